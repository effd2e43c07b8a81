//! Records: what travels once the handshake is done.
//!
//! A record is a header of 12 octets (length of the body, number of the record) and a body that is
//! encrypted under that number as nonce. The header needs no tag of its own: another number is
//! another nonce, another length another text, and either way the body's tag does not fit. Numbers
//! are counted by both sides, so what comes again, is left out or comes early is called by name.
//! A record without payload closes its direction; an end without it is a truncation.

use super::error::ChannelError;
use alloc::vec::Vec;
use snow::StatelessTransportState;

/// Octets before the body.
pub const RECORD_HEADER_BYTES: usize = 12;
/// The most octets of a body (Noise, section 3).
pub const RECORD_BYTES_MAX: usize = 65535;
/// Octets of a tag.
const TAG_BYTES: usize = 16;
/// The most octets in a record.
pub const PAYLOAD_BYTES_MAX: usize = RECORD_BYTES_MAX - TAG_BYTES;
/// Each direction changes its key (Noise, section 11.3) before every record whose number is a
/// multiple of this: a key that leaks does not open the gigabytes sent under the ones before.
pub const REKEY_RECORDS: u64 = 1 << 14;

/// The keys and counters of both directions of a connection.
pub struct Records {
    noise: StatelessTransportState,
    pub(super) sent: u64,
    received: u64,
}

impl Records {
    pub(super) fn new(noise: StatelessTransportState) -> Self {
        Self {
            noise,
            sent: 0,
            received: 0,
        }
    }

    /// Appends the next record to `out`. `payload` has at most [`PAYLOAD_BYTES_MAX`] octets; none
    /// closes the direction.
    pub fn seal(&mut self, payload: &[u8], out: &mut Vec<u8>) {
        if self.sent > 0 && self.sent.is_multiple_of(REKEY_RECORDS) {
            self.noise.rekey_outgoing();
        }
        let bytes = payload.len() + TAG_BYTES;
        out.extend((bytes as u32).to_le_bytes());
        out.extend(self.sent.to_le_bytes());
        let start = out.len();
        out.resize(start + bytes, 0);
        let sealed = self
            .noise
            .write_message(self.sent, payload, &mut out[start..]);
        assert_eq!(
            sealed.ok(),
            Some(bytes),
            "a record is larger than its limit"
        );
        self.sent += 1;
    }

    /// Reads a header: how many octets the body has.
    pub fn header(&self, octets: &[u8; RECORD_HEADER_BYTES]) -> Result<usize, ChannelError> {
        let (length, number) = octets.split_at(4);
        let length = u32::from_le_bytes(length.try_into().expect("four octets"));
        let number = u64::from_le_bytes(number.try_into().expect("eight octets"));
        match number {
            found if found < self.received => return Err(ChannelError::Replay),
            found if found > self.received => {
                return Err(ChannelError::OutOfOrder {
                    expected: self.received,
                    found,
                });
            }
            _ => {}
        }
        match length as usize {
            bytes if bytes < TAG_BYTES => Err(ChannelError::Truncated("a record's tag")),
            bytes if bytes > RECORD_BYTES_MAX => Err(ChannelError::TooLong {
                bytes: bytes as u64,
                most: RECORD_BYTES_MAX,
            }),
            bytes => Ok(bytes),
        }
    }

    /// Opens the body behind a header that was read. `out` has room for it without its tag. Returns the
    /// octets of the payload; 0 is the end.
    pub fn open(&mut self, body: &[u8], out: &mut [u8]) -> Result<usize, ChannelError> {
        if self.received > 0 && self.received.is_multiple_of(REKEY_RECORDS) {
            self.noise.rekey_incoming();
        }
        let opened = self.noise.read_message(self.received, body, out);
        let bytes = opened.map_err(|_| ChannelError::Forged("a record"))?;
        self.received += 1;
        Ok(bytes)
    }
}
