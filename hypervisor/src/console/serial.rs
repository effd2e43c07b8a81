//! COM1 with its two rings, and who gets what is typed.

use spin::once::Once;
use uart_16550::backend::PioBackend;
use uart_16550::spec::registers::{IER, ISR};
use uart_16550::{Config, Uart16550};

use super::keys::{Focus, Keys};
use godwit_vmm::console_row::Row;

/// Port of COM1.
const COM1: u16 = 0x3f8;
/// Causes of one interrupt that are served at a time: more than a full ring has, so only a broken line comes to that.
const CAUSES_MAX: u32 = 64 << 10;
/// Bytes that may wait for the line.
const SEND_BYTES: usize = 32 << 10;
/// Typed bytes that may wait for dom0.
const RECEIVE_BYTES: usize = 1 << 10;

/// A queue of bytes of fixed size.
struct Queue<const N: usize> {
    bytes: [u8; N],
    head: usize,
    length: usize,
}

impl<const N: usize> Queue<N> {
    const fn new() -> Self {
        Self {
            bytes: [0; N],
            head: 0,
            length: 0,
        }
    }

    fn push(&mut self, byte: u8) -> bool {
        if self.length == N {
            return false;
        }
        self.bytes[(self.head + self.length) % N] = byte;
        self.length += 1;
        true
    }

    /// The longest run at the front that is contiguous in memory.
    fn front(&self) -> &[u8] {
        &self.bytes[self.head..(self.head + self.length).min(N)]
    }

    fn consume(&mut self, count: usize) {
        self.head = (self.head + count) % N;
        self.length -= count;
    }
}

pub(super) struct Serial {
    /// Nothing here is other than zero at first, so that the rings take no room in the image: an `Option` of a UART would be.
    uart: Once<Uart16550<PioBackend>>,
    send: Queue<SEND_BYTES>,
    receive: Queue<RECEIVE_BYTES>,
    keys: Keys,
    row: Row,
    interrupts: bool,
    waiting_for_room: bool,
}

impl Serial {
    pub(super) const fn new() -> Self {
        Self {
            uart: Once::new(),
            send: Queue::new(),
            receive: Queue::new(),
            keys: Keys::new(),
            row: Row::new(),
            interrupts: false,
            waiting_for_room: false,
        }
    }

    pub(super) fn open(&mut self) {
        // SAFETY: COM1's ports are the hypervisor's alone: no domain is let through to them.
        let Ok(mut uart) = (unsafe { Uart16550::new_port(COM1) }) else {
            return;
        };
        if uart.init(Config::default()).is_ok() {
            self.uart.call_once(|| uart);
        }
    }

    pub(super) fn enable_interrupts(&mut self) {
        self.interrupts = true;
        if let Some(uart) = self.uart.get_mut() {
            uart.disable_interrupts(IER::all());
            uart.enable_interrupts(IER::DATA_READY | IER::RECEIVER_LINE_STATUS);
        }
        self.pump();
    }

    /// Moves bytes into the transmitter as far as it takes them now.
    fn pump(&mut self) {
        let Some(uart) = self.uart.get_mut() else {
            self.send.consume(self.send.length);
            return;
        };
        let sent = uart.send_bytes(self.send.front());
        self.send.consume(sent);
        if self.interrupts {
            let wanted = self.send.length > 0;
            let enabled = uart.config().interrupts.contains(IER::THR_EMPTY);
            if wanted && !enabled {
                uart.enable_interrupts(IER::THR_EMPTY);
            } else if !wanted && enabled {
                uart.disable_interrupts(IER::THR_EMPTY);
            }
        }
    }

    /// dom0's bytes: as many as there is room for. When that is not all, `serve` says when there is.
    pub(super) fn write(&mut self, bytes: &[u8]) -> usize {
        let taken = self.enqueue(bytes);
        self.row.sent(&bytes[..taken]);
        self.waiting_for_room = taken < bytes.len();
        taken
    }

    fn enqueue(&mut self, bytes: &[u8]) -> usize {
        let taken = bytes
            .iter()
            .take_while(|byte| self.send.push(**byte))
            .count();
        self.pump();
        taken
    }

    /// A line of the hypervisor's, between those of dom0: `line` writes it, with its line feed.
    pub(super) fn write_line(&mut self, line: impl FnOnce(&mut Self)) {
        let row = core::mem::take(&mut self.row);
        let (before, behind) = row.around();
        self.write_waiting(before);
        line(self);
        self.write_waiting(behind);
        self.row = row;
    }

    /// The hypervisor's bytes: all of them, waiting for room where there is none.
    pub(super) fn write_waiting(&mut self, mut bytes: &[u8]) {
        loop {
            let taken = self.enqueue(bytes);
            bytes = &bytes[taken..];
            if bytes.is_empty() || !self.uart.is_completed() {
                return;
            }
        }
    }

    /// Waits until everything is in the transmitter.
    pub(super) fn drain(&mut self) {
        while self.send.length > 0 {
            self.pump();
        }
        if let Some(uart) = self.uart.get_mut() {
            while uart.ready_to_send().is_err() {}
        }
    }

    /// Serves the line until it asks for nothing more. Its interrupt is an edge: were one cause still there when this returns,
    /// the line would stay up and never interrupt again, for typed bytes and for sent ones.
    pub(super) fn serve(&mut self) -> bool {
        let mut news = false;
        for _ in 0..CAUSES_MAX {
            // Reading this takes the transmitter's interrupt back; reading what came, the receiver's.
            let isr = self.uart.get_mut().map(Uart16550::isr);
            news |= self.receive();
            self.pump();
            if isr.is_none_or(|isr| isr.contains(ISR::INTERRUPT_STATUS)) {
                break;
            }
        }
        if self.waiting_for_room && self.send.length < SEND_BYTES / 2 {
            self.waiting_for_room = false;
            news = true;
        }
        if let Some(text) = self.keys.announcement() {
            self.enqueue(text.as_bytes());
        }
        news
    }

    /// Takes what was typed. True: some of it is for dom0.
    fn receive(&mut self) -> bool {
        let mut news = false;
        if let Some(uart) = self.uart.get_mut() {
            while let Ok(byte) = uart.try_receive_byte() {
                match self.keys.typed(byte) {
                    Focus::Dom0 => {
                        // A full ring drops what is typed, as every terminal does.
                        news |= self.receive.push(byte);
                    }
                    Focus::Hypervisor => {}
                }
            }
        }
        news
    }

    pub(super) fn read(&mut self, out: &mut [u8]) -> usize {
        let mut count = 0;
        while count < out.len() && self.receive.length > 0 {
            out[count] = self.receive.front()[0];
            self.receive.consume(1);
            count += 1;
        }
        count
    }
}
