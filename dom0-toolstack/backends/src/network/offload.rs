//! What a sender left to the card, done in software: filling in checksums and cutting long TCP
//! segments; and the reverse, leaving checksums to a card that makes them.
//!
//! Frames come from guests: every field is checked, and a frame that does not hold together is
//! [`Malformed`], to be dropped and counted.

use super::checksum;
use super::headers::{Headers, IpVersion, PROTOCOL_TCP, PROTOCOL_UDP};
use crate::frame::{Frame, PartialChecksum, SegmentKind, Segmentation};
use alloc::vec::Vec;

/// The least payload of a segment that a guest may ask for: bounds the frames made of one
/// (RFC 791: every host takes 68 bytes, less 20 for the IP header).
pub const SEGMENT_PAYLOAD_BYTES_MIN: u16 = 48;
/// The longest frame there is: an IP packet of 64 KiB less one, with Ethernet header and VLAN tag.
pub const LONG_FRAME_BYTES_MAX: usize = 65535 + 18;

/// What is left to do cannot be done: the fields contradict the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// What the receiver of a frame can do itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Takes {
    /// Frames whose checksum is to be filled in.
    pub checksum: bool,
    /// Frames that are to be cut.
    pub segmentation: bool,
    /// The longest frame, in bytes, that is not to be cut.
    pub frame_bytes_max: usize,
}

impl Takes {
    /// Nothing: complete frames for the medium only.
    pub const NOTHING: Takes = Takes {
        checksum: false,
        segmentation: false,
        frame_bytes_max: super::headers::FRAME_BYTES_MAX,
    };
    /// Everything.
    pub const ALL: Takes = Takes {
        checksum: true,
        segmentation: true,
        frame_bytes_max: LONG_FRAME_BYTES_MAX,
    };
}

/// Makes of a frame what a receiver that takes `takes` can have, and gives it to `each`.
pub fn adapt(mut frame: Frame, takes: Takes, mut each: impl FnMut(Frame)) -> Result<(), Malformed> {
    if let Some(segmentation) = frame.segmentation {
        if takes.segmentation && takes.checksum {
            each(frame);
            return Ok(());
        }
        return cut(&frame, segmentation, takes.frame_bytes_max, each);
    }
    if frame.bytes.len() > takes.frame_bytes_max {
        return Err(Malformed);
    }
    if !takes.checksum {
        complete(&mut frame)?;
    }
    each(frame);
    Ok(())
}

/// Fills in the checksum of a frame that is not to be cut.
pub fn complete(frame: &mut Frame) -> Result<(), Malformed> {
    let Some(partial) = frame.checksum.take() else {
        return Ok(());
    };
    let start = usize::from(partial.start);
    let at = start + usize::from(partial.offset);
    let field = at..at + 2;
    if start > frame.bytes.len() || field.end > frame.bytes.len() {
        return Err(Malformed);
    }
    // The field holds the sum of the pseudo header and is part of what is summed.
    let value = match !checksum::sum(&frame.bytes[start..]) {
        // For UDP zero means "none", and the other form of zero is as good elsewhere.
        0 => 0xffff,
        value => value,
    };
    frame.bytes[field].copy_from_slice(&value.to_be_bytes());
    frame.checked = true;
    Ok(())
}

/// Cuts a long TCP segment (what RFC 793 would have sent as several) and completes the pieces.
fn cut(
    frame: &Frame,
    segmentation: Segmentation,
    frame_bytes_max: usize,
    mut each: impl FnMut(Frame),
) -> Result<(), Malformed> {
    let bytes = &frame.bytes;
    let headers = Headers::find(bytes).ok_or(Malformed)?;
    let version = match segmentation.kind {
        SegmentKind::Tcp4 => IpVersion::V4,
        SegmentKind::Tcp6 => IpVersion::V6,
    };
    let Headers { ip, transport, .. } = headers;
    let is_tcp = headers.protocol == PROTOCOL_TCP && transport + 20 <= headers.end;
    if headers.version != version || headers.is_fragment || !is_tcp {
        return Err(Malformed);
    }
    // The frame's own headers are believed, `header_bytes` is only a hint (Virtio 1.2, 5.1.6.2).
    let start = transport + 4 * usize::from(bytes[transport + 12] >> 4);
    let step = usize::from(segmentation.payload_bytes);
    if start < transport + 20
        || start >= headers.end
        || segmentation.payload_bytes < SEGMENT_PAYLOAD_BYTES_MIN
        || start + step > frame_bytes_max
    {
        return Err(Malformed);
    }
    let payload = &bytes[start..headers.end];
    let count = payload.len().div_ceil(step);
    for (index, part) in payload.chunks(step).enumerate() {
        let mut piece = Vec::with_capacity(start + part.len());
        piece.extend_from_slice(&bytes[..start]);
        piece.extend_from_slice(part);
        number(&mut piece, &headers, index, index * step);
        let flags = &mut piece[transport + 13];
        if index + 1 != count {
            // FIN and PSH belong to the last.
            *flags &= !0x09;
        }
        if index != 0 {
            // CWR belongs to the first (RFC 3168, 6.1.2).
            *flags &= !0x80;
        }
        fill_in(&mut piece, ip, &headers);
        each(Frame {
            bytes: piece,
            checksum: None,
            segmentation: None,
            checked: true,
        });
    }
    Ok(())
}

/// Lengths, identification and sequence number of piece `index`, whose payload begins `offset`
/// bytes into the whole.
fn number(piece: &mut [u8], headers: &Headers, index: usize, offset: usize) {
    let Headers { ip, transport, .. } = *headers;
    match headers.version {
        IpVersion::V4 => {
            let total = (piece.len() - ip) as u16;
            piece[ip + 2..ip + 4].copy_from_slice(&total.to_be_bytes());
            let ident = u16::from_be_bytes([piece[ip + 4], piece[ip + 5]]);
            let ident = ident.wrapping_add(index as u16);
            piece[ip + 4..ip + 6].copy_from_slice(&ident.to_be_bytes());
        }
        IpVersion::V6 => {
            let total = (piece.len() - ip - 40) as u16;
            piece[ip + 4..ip + 6].copy_from_slice(&total.to_be_bytes());
        }
    }
    let field = transport + 4..transport + 8;
    let mut sequence = [0; 4];
    sequence.copy_from_slice(&piece[field.clone()]);
    let sequence = u32::from_be_bytes(sequence).wrapping_add(offset as u32);
    piece[field].copy_from_slice(&sequence.to_be_bytes());
}

/// The checksums of a piece.
fn fill_in(piece: &mut [u8], ip: usize, headers: &Headers) {
    let transport = headers.transport;
    if headers.version == IpVersion::V4 {
        piece[ip + 10..ip + 12].fill(0);
        let header = !checksum::sum(&piece[ip..transport]);
        piece[ip + 10..ip + 12].copy_from_slice(&header.to_be_bytes());
    }
    let field = transport + 16..transport + 18;
    piece[field.clone()].fill(0);
    let pseudo = headers.pseudo_sum(piece, piece.len() - transport);
    let value = !checksum::add(pseudo, checksum::sum(&piece[transport..]));
    piece[field].copy_from_slice(&value.to_be_bytes());
}

/// Leaves the checksum of a TCP or UDP packet to the card: puts the sum of the pseudo header into
/// the field. Anything else is as it was.
pub fn leave_to_card(frame: &mut Frame) {
    let Some(headers) = Headers::find(&frame.bytes).filter(|headers| !headers.is_fragment) else {
        return;
    };
    let Some(offset) = headers.checksum_offset() else {
        return;
    };
    let pseudo = headers.pseudo_sum(&frame.bytes, headers.end - headers.transport);
    let at = headers.transport + offset;
    frame.bytes[at..at + 2].copy_from_slice(&pseudo.to_be_bytes());
    // Padding after the packet would be summed as well.
    frame.bytes.truncate(headers.end);
    frame.checksum = Some(PartialChecksum {
        start: headers.transport as u16,
        offset: offset as u16,
    });
}

/// Whether the checksum of a TCP or UDP packet is right. True too where there is nothing to check:
/// made on this host or checked by the card, none given (UDP over IPv4), fragments, other
/// protocols.
pub fn is_intact(frame: &Frame) -> bool {
    if frame.checked || frame.checksum.is_some() {
        return true;
    }
    let Some(headers) = Headers::find(&frame.bytes).filter(|headers| !headers.is_fragment) else {
        return true;
    };
    let Some(offset) = headers.checksum_offset() else {
        return true;
    };
    let packet = &frame.bytes[headers.transport..headers.end];
    let is_absent = headers.protocol == PROTOCOL_UDP && packet[offset..offset + 2] == [0, 0];
    if is_absent && headers.version == IpVersion::V4 {
        return true;
    }
    let pseudo = headers.pseudo_sum(&frame.bytes, packet.len());
    checksum::add(pseudo, checksum::sum(packet)) == 0xffff
}
