//! Preamble and frames as octets.

use super::reader::StreamError;
use super::{BODY_BYTES_MAX, FRAME_HEADER_BYTES, OLDEST, VERSION};
use alloc::vec::Vec;
use core::fmt;

const MAGIC: [u8; 8] = *b"GODWITms";
/// Octets of a preamble.
pub const PREAMBLE_BYTES: usize = 32;

/// What a frame holds. A newtype, so that a kind of a later version survives and prints.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrameKind(pub u16);

macro_rules! kinds {
    ($( $(#[doc = $doc:literal])+ $value:literal $NAME:ident $text:literal; )+) => {
        impl FrameKind {
            $( $(#[doc = $doc])+ pub const $NAME: FrameKind = FrameKind($value); )+

            /// In words.
            pub fn name(self) -> Option<&'static str> {
                match self {
                    $( Self::$NAME => Some($text), )+
                    FrameKind(_) => None,
                }
            }
        }
    };
}

kinds! {
    /// The toolstack's note of the domain, text.
    0x0001 CONFIGURATION "configuration";
    /// vCPU number (u16), then its `VcpuState` record.
    0x0002 VCPU "vCPU";
    /// vCPU number (u16), then its `XsaveState` record.
    0x0003 XSAVE "extended state";
    /// The records of the devices in the hypervisor.
    0x0004 PLATFORM "platform";
    /// PCI device number (u32), then the record of a device that dom0 serves.
    0x0005 DEVICE "device";
    /// The `CpuPolicyState` record of the domain.
    0x0006 CPU "CPU";
    /// First guest page (u64), then whole pages.
    0x0010 PAGES "pages";
    /// Runs of pages that are zero: first guest page (u64) and pages (u64), each.
    0x0011 ZEROES "zero pages";
    /// The digest of all memory.
    0x0020 DIGEST "digest";
    /// Who is there and what is wanted: text, of a migration only, as all below.
    0x0100 HELLO "hello";
    /// A request of the handover.
    0x0101 REQUEST "request";
    /// A reply of the handover.
    0x0102 REPLY "reply";
    /// A reply of the handover that refuses, then why, text, a reason a line.
    0x0103 REFUSAL "refusal";
    /// Pages, each in its encoding.
    0x0104 BATCH "batch";
    /// Batches taken in so far (u64).
    0x0105 TAKEN "taken";
    /// A clock is read: the asker's time (u64, microseconds), and in the answer also the answerer's.
    0x0106 CLOCK "clock";
    /// Runs of pages that the domain has given back, as in ZEROES.
    0x0107 HOLES "holes";
    /// When the clock of the domain was read, by the clock of who takes it over (u64, microseconds).
    0x0108 STOPPED "stopped";
    /// Digests of parts of memory, or the hashes of a part's pages: asked for, and answered.
    0x0109 COMPARE "compare";
    /// Bytes that only measure the link; in the answer how many were taken (u64).
    0x0140 PROBE "probe";
    /// Domains that a host wants back, text, a line each; in the answer what becomes of each.
    0x0141 RECALL "recall";
    /// A configuration file: its path, a line feed, its text; in the answer `taken` or `refused`, a line
    /// feed, and why.
    0x0142 OFFLINE "offline";
    /// A kernel or ramdisk of an offline move: length, digest and path, text; in the answer whether it is
    /// wanted, or why it is refused.
    0x0143 IMAGE "image";
    /// Bytes of it, in order.
    0x0144 IMAGE_DATA "image data";
    /// Runs of pages that stay at the source when the domain goes (post-copy), as in ZEROES.
    0x0150 MISSING "missing pages";
    /// Runs of them that the destination asks for, in the order in which it wants them, as in ZEROES.
    0x0151 FETCH "fetch";
    /// The answer: a batch. What was asked for and is not in it is the domain's no more.
    0x0152 FETCHED "fetched";
    /// Nothing is missing any more: the digest of what was fetched, and whether it is of all (u8).
    0x0153 COMPLETE "complete";
    /// The last frame; no body.
    0x7fff END "end";
    /// Where the domain comes from, text for people.
    0x8001 ORIGIN "origin";
}

impl FrameKind {
    /// Whether a reader that does not know it may pass over it.
    pub fn is_optional(self) -> bool {
        self.0 >= 0x8000
    }
}

impl fmt::Display for FrameKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "kind {:#06x}", self.0),
        }
    }
}

impl fmt::Debug for FrameKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A frame whose checksum was right.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    /// What it holds.
    pub kind: FrameKind,
    /// Version of that.
    pub version: u16,
    /// The body.
    pub body: Vec<u8>,
}

/// The beginning of a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Preamble {
    /// Version of the stream.
    pub version: u16,
    /// The oldest reader that can read it.
    pub readable_since: u16,
    /// Tells this stream from every other.
    pub stream_id: u64,
}

impl Preamble {
    /// Of a stream that begins here.
    pub fn new(stream_id: u64) -> Self {
        Self {
            version: VERSION,
            readable_since: OLDEST,
            stream_id,
        }
    }

    /// As octets.
    pub fn encode(&self) -> [u8; PREAMBLE_BYTES] {
        let mut bytes = [0; PREAMBLE_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..10].copy_from_slice(&self.version.to_le_bytes());
        bytes[10..12].copy_from_slice(&self.readable_since.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.stream_id.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..24]);
        bytes[24..28].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// From octets. The version is looked at before the checksum: a later version may have another.
    pub fn decode(bytes: &[u8; PREAMBLE_BYTES]) -> Result<Self, StreamError> {
        let short = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        if bytes[..8] != MAGIC {
            return Err(StreamError::NoStream);
        }
        let (version, readable_since) = (short(8), short(10));
        if readable_since > VERSION || version < OLDEST {
            return Err(StreamError::Version(version));
        }
        let crc = crc32fast::hash(&bytes[..24]);
        if bytes[24..28] != crc.to_le_bytes() || bytes[12..16] != [0; 4] || bytes[28..] != [0; 4] {
            return Err(StreamError::Preamble);
        }
        let id = bytes[16..24].try_into().expect("eight octets");
        Ok(Self {
            version,
            readable_since,
            stream_id: u64::from_le_bytes(id),
        })
    }
}

/// The head of a frame: what precedes its body.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    pub kind: FrameKind,
    pub version: u16,
    pub length: u32,
    pub sequence: u32,
    pub crc: u32,
}

impl Head {
    /// Of a body in pieces.
    pub(super) fn new(
        stream_id: u64,
        sequence: u32,
        (kind, version): (FrameKind, u16),
        pieces: &[&[u8]],
    ) -> Self {
        let length: usize = pieces.iter().map(|piece| piece.len()).sum();
        assert!(length <= BODY_BYTES_MAX, "a body of {length} bytes");
        let mut head = Self {
            kind,
            version,
            length: length as u32,
            sequence,
            crc: 0,
        };
        head.crc = head.checksum(stream_id, pieces);
        head
    }

    pub(super) fn checksum(&self, stream_id: u64, pieces: &[&[u8]]) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&stream_id.to_le_bytes());
        hasher.update(&self.encode()[..12]);
        pieces.iter().for_each(|piece| hasher.update(piece));
        hasher.finalize()
    }

    pub(super) fn encode(&self) -> [u8; FRAME_HEADER_BYTES] {
        let mut bytes = [0; FRAME_HEADER_BYTES];
        bytes[..2].copy_from_slice(&self.kind.0.to_le_bytes());
        bytes[2..4].copy_from_slice(&self.version.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.length.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[12..].copy_from_slice(&self.crc.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8; FRAME_HEADER_BYTES]) -> Self {
        let short = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let long = |at: usize| u32::from(short(at)) | u32::from(short(at + 2)) << 16;
        Self {
            kind: FrameKind(short(0)),
            version: short(2),
            length: long(4),
            sequence: long(8),
            crc: long(12),
        }
    }
}
