//! A console (virtio 1.2, 5.3): port 0, with the terminal's size.
//!
//! Output is given away at once. Input is only asked for while the guest has a buffer for it, so
//! none of it is in here when the device is saved.

use crate::virtio::queue::Chain;
use crate::virtio::{CONFIG_BYTES_MAX, Device, Identity, Serving, VirtioFunction};
use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::Cell;
use core::future::poll_fn;
use core::task::{Context, Poll};
use godwit_records::{DecodeError, Fault};

const INPUT: usize = 0;
const OUTPUT: usize = 1;
const QUEUE_SIZES: &[u16] = &[64, 64];
/// Communication controller, other.
const PCI_CLASS: u32 = 0x07_80_00;
const DEVICE_ID: u16 = 3;
/// VIRTIO_CONSOLE_F_SIZE.
const SIZE: u64 = 1;
/// Bytes that are moved at once.
const CHUNK_BYTES: usize = 4096;
/// Chunks before other tasks have their turn.
const CHUNKS_MAX: usize = 16;

/// What the console is connected to.
pub trait Terminal {
    /// Takes all of what the guest has written. Whoever keeps it bounds it.
    fn write(&self, bytes: &[u8]);
    /// Puts what was typed to the start of `out`, which is not empty. Returns how many bytes, at
    /// least one.
    fn poll_read(&self, context: &mut Context<'_>, out: &mut [u8]) -> Poll<usize>;
}

/// The device.
pub struct Console {
    terminal: Rc<dyn Terminal>,
    /// Columns and rows.
    size: Cell<(u16, u16)>,
}

impl Console {
    /// A console of `columns` and `rows`.
    pub fn new(terminal: Rc<dyn Terminal>, columns: u16, rows: u16) -> Rc<Console> {
        Rc::new(Console {
            terminal,
            size: Cell::new((columns, rows)),
        })
    }

    /// The terminal has another size; then tell the guest ([`VirtioFunction::config_changed`]).
    pub fn resize(&self, columns: u16, rows: u16) {
        self.size.set((columns, rows));
    }

    async fn output(&self, chain: &Chain) -> u32 {
        let mut chunk = vec![0; CHUNK_BYTES.min(chain.readable_bytes() as usize)];
        let mut at = 0;
        while at < chain.readable_bytes() {
            let length = chain.read(at, &mut chunk);
            self.terminal.write(&chunk[..length]);
            at += length as u64;
            if at.is_multiple_of((CHUNK_BYTES * CHUNKS_MAX) as u64) {
                give_way().await;
            }
        }
        0
    }

    fn poll_input(&self, function: &VirtioFunction, context: &mut Context<'_>) {
        function.park(INPUT, context.waker());
        for _ in 0..CHUNKS_MAX {
            let Some(chain) = function.take(INPUT) else {
                function.publish(INPUT);
                if function.arm(INPUT) > 0 {
                    continue;
                }
                return;
            };
            let mut chunk = [0; CHUNK_BYTES];
            let room = chain.writable_bytes().min(CHUNK_BYTES as u64) as usize;
            if room == 0 {
                function.complete(INPUT, chain, 0);
                continue;
            }
            match self.terminal.poll_read(context, &mut chunk[..room]) {
                Poll::Ready(length) => {
                    chain.write(0, &chunk[..length]);
                    function.complete(INPUT, chain, length as u32);
                }
                Poll::Pending => {
                    function.put_back(INPUT, chain);
                    function.publish(INPUT);
                    return;
                }
            }
        }
        function.publish(INPUT);
        context.waker().wake_by_ref();
    }
}

/// Lets other tasks have their turn.
async fn give_way() {
    let mut waited = false;
    poll_fn(|context| {
        if core::mem::replace(&mut waited, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Takes the state of a device that keeps nothing.
pub(super) fn no_state(record: &'static str, bytes: &[u8]) -> Result<(), DecodeError> {
    if bytes.is_empty() {
        return Ok(());
    }
    Err(DecodeError {
        record,
        field: "end",
        offset: 0,
        fault: Fault::TrailingBytes,
    })
}

impl Device for Console {
    fn identity(&self) -> Identity {
        Identity {
            device_id: DEVICE_ID,
            pci_class: PCI_CLASS,
        }
    }

    fn features(&self) -> u64 {
        SIZE
    }

    fn consistent(&self, _features: u64) -> bool {
        true
    }

    fn queue_sizes(&self) -> &'static [u16] {
        QUEUE_SIZES
    }

    fn read_config(&self, _features: u64, out: &mut [u8; CONFIG_BYTES_MAX]) {
        let (columns, rows) = self.size.get();
        out[..2].copy_from_slice(&columns.to_le_bytes());
        out[2..4].copy_from_slice(&rows.to_le_bytes());
    }

    /// Emergency writes are not offered.
    fn write_config(&self, _features: u64, _offset: usize, _bytes: &[u8]) {}

    fn reset(&self) {}

    fn save(&self, _out: &mut Vec<u8>) {}

    fn restore(&self, bytes: &[u8]) -> Result<(), DecodeError> {
        no_state("console", bytes)
    }

    fn serve<'a>(&'a self, function: &'a VirtioFunction) -> Serving<'a> {
        let mut output =
            Box::pin(function.serve(OUTPUT, 1, async |chain: &_| self.output(chain).await));
        Box::pin(poll_fn(move |context| {
            self.poll_input(function, context);
            output.as_mut().poll(context)
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::virtio::fake::{Counter, Driver, drive, guest, negotiate, settle};
    use core::cell::RefCell;
    use core::pin::pin;
    use std::collections::VecDeque;

    const DATA: u64 = 0x8000;

    #[derive(Default)]
    struct Tape {
        written: RefCell<Vec<u8>>,
        typed: RefCell<VecDeque<u8>>,
    }

    impl Terminal for Tape {
        fn write(&self, bytes: &[u8]) {
            self.written.borrow_mut().extend(bytes);
        }
        fn poll_read(&self, _context: &mut Context<'_>, out: &mut [u8]) -> Poll<usize> {
            let mut typed = self.typed.borrow_mut();
            let length = out.len().min(typed.len());
            for (to, from) in out.iter_mut().zip(typed.drain(..length)) {
                *to = from;
            }
            if length > 0 {
                Poll::Ready(length)
            } else {
                Poll::Pending
            }
        }
    }

    #[test]
    fn bytes_go_both_ways() {
        let memory = guest(64);
        let tape = Rc::new(Tape::default());
        let console = Console::new(tape.clone(), 80, 25);
        let interrupts = Rc::new(Counter::default());
        let function = VirtioFunction::new(memory.clone(), console.clone(), interrupts);
        negotiate(&function, u64::MAX);
        let mut input = Driver::new(&memory, 0x1000, 64, true);
        let mut output = Driver::new(&memory, 0x4000, 64, true);
        input.enable(&function, 0, 1);
        output.enable(&function, 1, 2);
        drive(&function);
        let mut run = pin!(function.run());
        assert_eq!(function.read(3, 0, 4), 25 << 16 | 80);
        console.resize(132, 50);
        function.config_changed();
        assert_eq!(function.read(3, 0, 4), 50 << 16 | 132);

        let long: Vec<u8> = (0..10_000u32).map(|n| (n % 251) as u8).collect();
        memory.write(DATA, &long).unwrap();
        output
            .offer(&[(DATA, 5000), (DATA + 5000, 5000)], &[])
            .unwrap();
        settle(run.as_mut());
        assert_eq!(output.returned().map(|r| r.1), Some(0));
        assert_eq!(tape.written.take(), long);

        tape.typed.borrow_mut().extend(b"hello");
        settle(run.as_mut());
        assert_eq!(tape.typed.borrow().len(), 5, "not read without a buffer");
        input.offer(&[(DATA, 1)], &[]).unwrap();
        input.offer(&[], &[(DATA, 3)]).unwrap();
        input.offer(&[], &[(DATA + 3, 8)]).unwrap();
        input.offer(&[], &[(DATA + 64, 8)]).unwrap();
        settle(run.as_mut());
        let lengths: Vec<_> = core::iter::from_fn(|| input.returned())
            .map(|r| r.1)
            .collect();
        assert_eq!(lengths, [0, 3, 2]);
        let mut typed = [0; 5];
        memory.read(DATA, &mut typed).unwrap();
        assert_eq!(&typed, b"hello");

        // A buffer that waits for input does not keep the device from being saved or reset.
        assert!(settle(pin!(function.quiesce())).is_some());
        let saved = function.save();
        assert!(function.restore(&[&saved[..], &[0]].concat()).is_err());
        function.restore(&saved).unwrap();
        function.resume();
        tape.typed.borrow_mut().extend(b"again");
        settle(run.as_mut());
        assert_eq!(input.returned().map(|r| r.1), Some(5));
    }
}
