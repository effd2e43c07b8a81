//! Streams of bytes kept by the hypervisor (its log, a guest's debug console): following them, and
//! making what a guest wrote safe to show.
//!
//! What a guest writes is its own business, but the operator's terminal is not the guest's: control
//! characters other than tab and line end are shown, not obeyed.

use crate::host::Hypervisor;
use crate::site::DeviceHost;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;
use godwit_abi::{DomainId, Status};

/// Bytes read at once.
pub const CONSOLE_CHUNK_BYTES: usize = 4096;
/// Most bytes of the log that one `xl dmesg` shows.
pub const LOG_BYTES_MAX: usize = 4 << 20;

const INTERRUPT: u8 = 0x03;
/// Ctrl-], as `xl console` has it.
const ESCAPE: u8 = 0x1d;

/// Whether a byte typed ends `xl console`: Ctrl-]. Everything else is the guest's.
pub fn ends_console(byte: u8) -> bool {
    byte == ESCAPE
}

/// Whether a byte typed ends `xl top`: Q or Ctrl-C.
pub fn ends_top(byte: u8) -> bool {
    matches!(byte, b'q' | b'Q' | INTERRUPT)
}

/// A stream with absolute offsets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stream {
    /// The hypervisor's log.
    Log,
    /// A domain's debug console.
    Guest(DomainId),
}

impl Stream {
    fn start(self, hypervisor: &impl Hypervisor) -> Result<u64, Status> {
        match self {
            Stream::Log => hypervisor.log_start(),
            Stream::Guest(domain) => hypervisor.guest_console_start(domain),
        }
    }

    fn read(self, hypervisor: &impl Hypervisor, at: u64, out: &mut [u8]) -> Result<usize, Status> {
        match self {
            Stream::Log => hypervisor.log_read(at, out),
            Stream::Guest(domain) => hypervisor.guest_console_read(domain, at, out),
        }
    }
}

/// A reader of a stream.
#[derive(Clone, Debug)]
pub struct Tail {
    stream: Stream,
    offset: u64,
    printable: Printable,
}

impl Tail {
    /// A reader at the oldest byte kept.
    pub fn open(hypervisor: &impl Hypervisor, stream: Stream) -> Result<Self, Status> {
        Ok(Self {
            stream,
            offset: stream.start(hypervisor)?,
            printable: Printable::default(),
        })
    }

    /// What has come, at most [`CONSOLE_CHUNK_BYTES`] at once; empty when there is nothing more
    /// now. Says how much was overwritten before it could be read.
    pub fn next(&mut self, hypervisor: &impl Hypervisor) -> Result<String, Status> {
        let mut bytes = alloc::vec![0; CONSOLE_CHUNK_BYTES];
        let mut out = String::new();
        let count = match self.stream.read(hypervisor, self.offset, &mut bytes) {
            Err(Status::NotFound) => {
                let start = self.stream.start(hypervisor)?;
                let lost = start.saturating_sub(self.offset);
                out = format!("[{lost} bytes were overwritten]\n");
                self.offset = start;
                self.stream.read(hypervisor, start, &mut bytes)?
            }
            other => other?,
        };
        let count = count.min(bytes.len());
        self.offset += count as u64;
        self.printable.take(&bytes[..count], &mut out);
        Ok(out)
    }

    /// Everything there is now, at most [`LOG_BYTES_MAX`].
    pub fn all(&mut self, hypervisor: &impl Hypervisor) -> Result<String, Status> {
        let mut out = String::new();
        while out.len() < LOG_BYTES_MAX {
            let more = self.next(hypervisor)?;
            if more.is_empty() {
                break;
            }
            out.push_str(&more);
        }
        Ok(out)
    }
}

/// A reader of a domain's virtio console.
#[derive(Clone, Debug)]
pub struct DeviceTail {
    domain: DomainId,
    offset: u64,
    printable: Printable,
}

impl DeviceTail {
    /// A reader at the oldest byte kept.
    pub fn open(domain: DomainId) -> Self {
        Self {
            domain,
            offset: 0,
            printable: Printable::default(),
        }
    }

    /// Everything that has come; empty when there is nothing more now. Says how much was
    /// overwritten before it could be read.
    pub fn next(&mut self, devices: &impl DeviceHost) -> Result<String, String> {
        let (bytes, end) = devices.console_read(self.domain, self.offset)?;
        let mut out = String::new();
        // What was written before somebody first looked is missed by nobody.
        let lost = end.saturating_sub(bytes.len() as u64 + self.offset);
        if lost > 0 && self.offset > 0 {
            out = format!("[{lost} bytes were overwritten]\n");
        }
        self.offset = end;
        self.printable.take(&bytes, &mut out);
        Ok(out)
    }
}

/// Bytes into text without control characters; keeps a character that is cut in two until its
/// rest comes.
#[derive(Clone, Default, Debug)]
pub struct Printable {
    /// Beginning of a character: at most 3 bytes.
    partial: Vec<u8>,
}

impl Printable {
    /// Appends `bytes` to `out`, made printable.
    pub fn take(&mut self, bytes: &[u8], out: &mut String) {
        let mut all = core::mem::take(&mut self.partial);
        all.extend(bytes);
        let mut rest = all.as_slice();
        while !rest.is_empty() {
            match core::str::from_utf8(rest) {
                Ok(text) => return show(text, out),
                Err(error) => {
                    let (good, bad) = rest.split_at(error.valid_up_to());
                    show(core::str::from_utf8(good).unwrap_or(""), out);
                    let Some(length) = error.error_len() else {
                        self.partial = bad.into();
                        return;
                    };
                    for byte in &bad[..length] {
                        let _ = write!(out, "\\x{byte:02x}");
                    }
                    rest = &bad[length..];
                }
            }
        }
    }
}

fn show(text: &str, out: &mut String) {
    for c in text.chars() {
        match c {
            '\n' | '\t' => out.push(c),
            // The console writes CR LF for every line end.
            '\r' => {}
            c if c.is_control() => {
                let _ = write!(out, "\\x{:02x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::FakeHypervisor;
    use proptest::prelude::*;

    fn printable(pieces: &[&[u8]]) -> String {
        let (mut printable, mut out) = (Printable::default(), String::new());
        for piece in pieces {
            printable.take(piece, &mut out);
        }
        out
    }

    #[test]
    fn control_characters_are_shown_not_obeyed() {
        let pieces: [&[u8]; 4] = [b"a\x1b[2Jb\r\n", b"\xe2\x82", b"\xac\xc2\x9b", b"\xff!"];
        assert_eq!(printable(&pieces), "a\\x1b[2Jb\n€\\x9b\\xff!");
    }

    #[test]
    fn follows_what_comes() {
        let host = FakeHypervisor::new();
        let id = host.add_domain("a", 1);
        let long = std::vec![b'x'; CONSOLE_CHUNK_BYTES + 1];
        host.with(id, |domain| domain.console = long).unwrap();
        let mut tail = Tail::open(&host, Stream::Guest(id)).unwrap();
        assert_eq!(tail.next(&host).unwrap().len(), CONSOLE_CHUNK_BYTES);
        assert_eq!(tail.next(&host).unwrap(), "x");
        assert_eq!(tail.next(&host).unwrap(), "");
        host.with(id, |domain| domain.console.push(b'y')).unwrap();
        assert_eq!(tail.next(&host).unwrap(), "y");
        host.domain_destroy(id).unwrap();
        assert_eq!(tail.next(&host), Err(Status::NoDomain));
    }

    #[test]
    fn what_was_lost_is_said() {
        let host = FakeHypervisor::new();
        host.state.borrow_mut().log = b"log".to_vec();
        let mut tail = Tail::open(&host, Stream::Log).unwrap();
        host.fail_call(0, Status::NotFound);
        assert_eq!(tail.all(&host).unwrap(), "[0 bytes were overwritten]\nlog");
    }

    proptest! {
        #[test]
        fn any_bytes_are_shown_however_cut(
            bytes in prop::collection::vec(any::<u8>(), 0..60), cut in 0usize..60,
        ) {
            let (left, right) = bytes.split_at(cut.min(bytes.len()));
            let whole = printable(&[&bytes]);
            prop_assert_eq!(printable(&[left, right]), whole.clone());
            prop_assert!(whole.chars().all(|c| !c.is_control() || c == '\n' || c == '\t'));
        }
    }
}
