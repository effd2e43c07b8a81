//! Debug console at port 0xE9: what the guest writes goes into a ring that keeps the last [`CAPACITY`] bytes.
//!
//! The ring counts every byte ever written; a reader holds a [`Cursor`] into that stream, so that any number of readers can attach,
//! detach and come back, each sees the history that is left, and each learns how much it missed.

use super::BadState;
use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

/// The console's port. Reading it gives its own number, by which software detects it.
pub const PORT: u16 = 0xE9;
/// Bytes kept. A power of two.
pub const CAPACITY: usize = 16 * 1024;

const _: () = assert!(CAPACITY.is_power_of_two());

/// Position in the stream of all bytes a guest has written, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Cursor(pub u64);

/// What a read gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Bytes copied to the front of the reader's buffer.
    pub copied: usize,
    /// Bytes before those that the ring no longer had.
    pub lost: u64,
    /// Where to read on.
    pub next: Cursor,
}

/// The console of one domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DebugConsole {
    ring: Box<[u8]>,
    written: u64,
}

/// Saved state of [`DebugConsole`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DebugConsoleState {
    /// Bytes ever written.
    pub written: u64,
    /// The last of them, oldest first; all of them up to [`CAPACITY`].
    pub history: Vec<u8>,
}

impl Default for DebugConsole {
    fn default() -> DebugConsole {
        DebugConsole::new()
    }
}

impl DebugConsole {
    /// An empty console. Allocates the ring, once.
    pub fn new() -> DebugConsole {
        DebugConsole {
            ring: vec![0; CAPACITY].into_boxed_slice(),
            written: 0,
        }
    }

    /// Appends a byte, over the oldest if need be.
    #[inline]
    pub fn push(&mut self, byte: u8) {
        let slot = self.written as usize & (CAPACITY - 1);
        self.ring[slot] = byte;
        self.written += 1;
    }

    /// Where the next byte will be written.
    pub fn end(&self) -> Cursor {
        Cursor(self.written)
    }

    /// The oldest byte that is still there.
    pub fn oldest(&self) -> Cursor {
        Cursor(self.overwritten())
    }

    /// Bytes dropped because newer ones came.
    pub fn overwritten(&self) -> u64 {
        self.written.saturating_sub(CAPACITY as u64)
    }

    /// Copies bytes from `cursor` on. A cursor beyond the end (of another console, or an older state) reads from the end.
    pub fn read(&self, cursor: Cursor, buffer: &mut [u8]) -> Chunk {
        let from = cursor.0.clamp(self.overwritten(), self.written);
        // At most CAPACITY.
        let copied = buffer.len().min((self.written - from) as usize);
        let start = from as usize & (CAPACITY - 1);
        let first = copied.min(CAPACITY - start);
        buffer[..first].copy_from_slice(&self.ring[start..start + first]);
        buffer[first..copied].copy_from_slice(&self.ring[..copied - first]);
        Chunk {
            copied,
            lost: from.saturating_sub(cursor.0),
            next: Cursor(from + copied as u64),
        }
    }

    /// The state to move.
    pub fn save(&self) -> DebugConsoleState {
        let DebugConsole { ring, written } = self;
        let mut history = vec![0; (*written).min(ring.len() as u64) as usize];
        self.read(self.oldest(), &mut history);
        DebugConsoleState {
            written: *written,
            history,
        }
    }

    /// The console with this state.
    pub fn restore(state: &DebugConsoleState) -> Result<DebugConsole, BadState> {
        let DebugConsoleState { written, history } = state;
        BadState::unless(
            history.len() as u64 == (*written).min(CAPACITY as u64),
            "debug_console.history",
        )?;
        // As many as no guest writes in its life, so that the count cannot overflow afterwards.
        BadState::unless(*written <= u64::MAX / 2, "debug_console.written")?;
        let mut console = DebugConsole {
            written: *written - history.len() as u64,
            ..DebugConsole::new()
        };
        history.iter().for_each(|&byte| console.push(byte));
        Ok(console)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever is written and however it is read, what comes out is the stream less exactly the bytes reported lost.
        #[test]
        fn readers_see_the_stream_less_what_is_lost(bursts in proptest::collection::vec((0usize..9000, 1usize..5000), 1..12)) {
            let mut console = DebugConsole::new();
            let (mut stream, mut cursor) = (Vec::new(), Cursor::default());
            for (writes, reads) in bursts {
                for _ in 0..writes {
                    let byte = (stream.len() * 7 % 251) as u8;
                    console.push(byte);
                    stream.push(byte);
                }
                let mut buffer = vec![0; reads];
                let chunk = console.read(cursor, &mut buffer);
                let from = (cursor.0 + chunk.lost) as usize;
                prop_assert_eq!(&buffer[..chunk.copied], &stream[from..from + chunk.copied]);
                prop_assert!(chunk.lost == 0 || from == stream.len() - CAPACITY);
                prop_assert!(chunk.copied == reads || chunk.next == console.end());
                cursor = chunk.next;
                prop_assert_eq!(DebugConsole::restore(&console.save()).unwrap().save(), console.save());
            }
        }
    }

    #[test]
    fn foreign_cursor_and_bad_state_do_no_harm() {
        let mut console = DebugConsole::new();
        console.push(b'x');
        let chunk = console.read(Cursor(99), &mut [0; 4]);
        assert_eq!(
            chunk,
            Chunk {
                copied: 0,
                lost: 0,
                next: Cursor(1)
            }
        );
        let state = console.save();
        assert!(
            DebugConsole::restore(&DebugConsoleState {
                written: 2,
                ..state.clone()
            })
            .is_err()
        );
        assert!(
            DebugConsole::restore(&DebugConsoleState {
                written: u64::MAX,
                history: vec![0; CAPACITY]
            })
            .is_err()
        );
    }
}
