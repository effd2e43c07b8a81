//! A byte ring that keeps absolute offsets: a writer that never waits and readers that each know
//! how far they have read. What a slow reader misses is counted, never silently skipped: reading
//! an offset that has been overwritten is an error that names the oldest byte still there.
//!
//! Invariant: the bytes `[start(), end())` of the stream are in the ring, and
//! `end() - start() <= capacity`.

/// A reader asked for bytes that are no longer, or not yet, in the ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OutOfRing {
    /// The oldest offset still there.
    pub start: u64,
}

/// A byte ring of `N` bytes.
pub struct ByteRing<const N: usize> {
    bytes: [u8; N],
    end: u64,
}

impl<const N: usize> ByteRing<N> {
    /// An empty ring.
    pub const fn new() -> Self {
        Self {
            bytes: [0; N],
            end: 0,
        }
    }

    /// Absolute offset of the oldest byte kept.
    pub fn start(&self) -> u64 {
        self.end.saturating_sub(N as u64)
    }

    /// Absolute offset just after the newest byte.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Appends one byte, over the oldest when full.
    #[inline]
    pub fn push(&mut self, byte: u8) {
        self.bytes[(self.end % N as u64) as usize] = byte;
        self.end += 1;
    }

    /// Appends bytes.
    pub fn extend(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.push(*byte);
        }
    }

    /// Copies from the absolute `offset` on into `out`; returns how many bytes, 0 at the end.
    pub fn read(&self, offset: u64, out: &mut [u8]) -> Result<usize, OutOfRing> {
        if offset < self.start() || offset > self.end {
            return Err(OutOfRing {
                start: self.start(),
            });
        }
        let count = (self.end - offset).min(out.len() as u64) as usize;
        for (index, slot) in out[..count].iter_mut().enumerate() {
            *slot = self.bytes[((offset + index as u64) % N as u64) as usize];
        }
        Ok(count)
    }
}

impl<const N: usize> Default for ByteRing<N> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec::Vec;

    #[test]
    fn agrees_with_a_plain_list_at_every_offset() {
        let mut ring = ByteRing::<7>::new();
        let mut all = Vec::new();
        for byte in 0..40u8 {
            ring.push(byte);
            all.push(byte);
            for offset in 0..=all.len() + 1 {
                let mut out = [0xee; 7];
                match ring.read(offset as u64, &mut out) {
                    Ok(count) => assert_eq!(&out[..count], &all[offset..]),
                    Err(error) => {
                        assert_eq!(error.start as usize, all.len().saturating_sub(7));
                        assert!(offset < error.start as usize || offset > all.len());
                    }
                }
            }
        }
    }
}
