//! What connects the devices: interrupt lines, timers, messages to the CPUs.
//!
//! An ISA interrupt reaches the PIC's input and the I/O APIC's pin of the same number, but IRQ 0 pin 2 (the firmware tables say so). The
//! PCI lines INTA to INTD reach pins [`INTX_FIRST_PIN`] and on, and the PIC inputs [`INTX_IRQS`].

use super::{Effect, Platform};
use crate::devices::ioapic::PINS;
use crate::devices::message::Message;
use crate::devices::pci::INTX_LINES;
use crate::devices::pic::Irq;
use arrayvec::ArrayVec;

/// Messages that one [`Platform::poll`] gives at most.
pub const MESSAGES_MAX: usize = 2 * PINS;
/// Messages for local APICs, in the order in which they were sent.
pub type Messages = ArrayVec<Message, MESSAGES_MAX>;

/// I/O APIC pin of PCI line INTA; INTB to INTD follow. Level-triggered.
pub const INTX_FIRST_PIN: u8 = 16;
/// PIC inputs of the PCI lines INTA to INTD, as the interrupt-line register of a function is to say.
pub const INTX_IRQS: [u8; INTX_LINES] = [10, 11, 10, 11];

/// Guest memory ends here at the latest and goes on at 4 GiB; above are PCI functions and the platform's own registers.
pub const LOW_MEMORY_BYTES_MAX: u64 = 0xC000_0000;

/// I/O APIC pin of the interval timer.
const TIMER_PIN: u8 = 2;

/// What there is to expect of the platform after a poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outlook {
    /// The PIC requests an interrupt.
    pub pic_requests: bool,
    /// Guest TSC at which [`Platform::poll`] will have something to do, `u64::MAX` for never.
    pub deadline_tsc: u64,
    /// The vCPU that watches the platform has to look: the PIC, which is wired to it, requests something, or the deadline is
    /// earlier than it knows.
    pub watcher_is_behind: bool,
}

impl Platform {
    /// What there is to expect, for who has just polled. `watches`: it is the vCPU that watches, which keeps the deadline.
    pub fn outlook(&mut self, now_tsc: u64, watches: bool) -> Outlook {
        let pic_requests = self.pic.pending();
        let deadline_tsc = self.next_deadline(now_tsc).unwrap_or(u64::MAX);
        let watcher_is_behind = !watches && (pic_requests || deadline_tsc < self.watched_tsc);
        if watches || watcher_is_behind {
            self.watched_tsc = deadline_tsc;
        }
        Outlook {
            pic_requests,
            deadline_tsc,
            watcher_is_behind,
        }
    }

    /// Drives an ISA interrupt line, into both kinds of controller. [`Platform::poll`] is due afterwards.
    pub fn set_irq(&mut self, irq: Irq, raised: bool) {
        if raised {
            self.pic.raise(irq);
        } else {
            self.pic.lower(irq);
        }
        let pin = if irq == Irq::TIMER {
            TIMER_PIN
        } else {
            irq.number()
        };
        self.ioapic.set_line(pin, raised);
    }

    /// As [`Platform::set_irq`], where the line may well be at that level already.
    #[inline]
    fn follow_irq(&mut self, irq: Irq, raised: bool) {
        if self.ioapic.line(irq.number()) != raised {
            self.set_irq(irq, raised);
        }
    }

    /// Drives the interrupt pin of a PCI function. [`Platform::poll`] is due afterwards.
    pub fn set_intx(&mut self, slot: u8, asserted: bool) {
        self.pci.set_intx(slot, asserted);
        self.drive_intx();
    }

    pub(super) fn drive_intx(&mut self) {
        let lines = self.pci.intx_lines();
        for (line, number) in (0..).zip(INTX_IRQS) {
            self.ioapic
                .set_line(INTX_FIRST_PIN + line, lines & 1 << line != 0);
            let shared = INTX_IRQS.iter().enumerate();
            let raised = shared
                .filter(|&(_, other)| *other == number)
                .any(|(line, _)| lines & 1 << line != 0);
            if let Some(irq) = Irq::new(number) {
                self.set_irq(irq, raised);
            }
        }
    }

    /// Wires the system control interrupt.
    #[inline]
    pub fn drive_sci(&mut self, now_tsc: u64) {
        let raised = self.pm.sci(now_tsc);
        self.follow_irq(Irq::SCI, raised);
    }

    /// Counter 0 of the interval timer has been accessed.
    pub(super) fn timer_accessed(&mut self) -> Effect {
        let before = self.timers_due_tsc;
        self.note_deadlines();
        Platform::changed_if(before != self.timers_due_tsc)
    }

    /// The clock has been accessed.
    pub(super) fn clock_accessed(&mut self) -> Effect {
        let before = (self.ioapic.line(Irq::CLOCK.number()), self.timers_due_tsc);
        self.follow_irq(Irq::CLOCK, self.rtc.irq());
        self.note_deadlines();
        let after = (self.ioapic.line(Irq::CLOCK.number()), self.timers_due_tsc);
        Platform::changed_if(before != after)
    }

    /// The serial port has been accessed.
    pub(super) fn serial_accessed(&mut self, now_tsc: u64) -> Effect {
        let before = (self.ioapic.line(Irq::SERIAL.number()), self.timers_due_tsc);
        let raised = self.serial.irq(now_tsc);
        self.follow_irq(Irq::SERIAL, raised);
        self.note_deadlines();
        let after = (self.ioapic.line(Irq::SERIAL.number()), self.timers_due_tsc);
        Platform::changed_if(before != after)
    }

    /// PCI configuration space or an MSI-X table has been written.
    pub(super) fn pci_accessed(&mut self) -> Effect {
        self.drive_intx();
        Platform::changed_if(self.pci.has_message() || self.ioapic.has_message())
    }

    pub(super) fn changed_if(changed: bool) -> Effect {
        if changed {
            Effect::InterruptChanged
        } else {
            Effect::None
        }
    }

    /// Bytes from outside for the serial port. Returns how many there was room for. [`Platform::poll`] is due afterwards.
    pub fn serial_input(&mut self, bytes: &[u8], now_tsc: u64) -> usize {
        let taken = self.serial.push_input(bytes, now_tsc);
        let _poll_is_due = self.serial_accessed(now_tsc);
        taken
    }

    /// Sets the clock, in nanoseconds since 1970. [`Platform::poll`] is due afterwards.
    pub fn set_clock(&mut self, epoch_ns: u64, now_tsc: u64) {
        self.rtc.set_time(epoch_ns, now_tsc);
        self.kvmclock.set_epoch(epoch_ns, now_tsc);
        let _poll_is_due = self.clock_accessed();
    }

    /// Describes the domain's memory where firmware does: what lies beyond [`LOW_MEMORY_BYTES_MAX`] is above 4 GiB.
    pub fn set_memory_size(&mut self, bytes: u64) {
        let low = bytes.min(LOW_MEMORY_BYTES_MAX);
        self.rtc.set_memory_size(low, bytes - low);
    }

    /// Presses the power button: the guest sees it through the system control interrupt. [`Platform::poll`] is due afterwards.
    pub fn press_power_button(&mut self, now_tsc: u64) {
        self.pm.press_power_button();
        self.drive_sci(now_tsc);
    }

    /// A CPU has ended a level-triggered interrupt. [`Platform::poll`] is due afterwards.
    pub fn end_of_interrupt(&mut self, vector: u8) {
        self.ioapic.end_of_interrupt(vector);
    }

    /// Lets timers and lines catch up with the time. Gives the messages to deliver; if there are [`MESSAGES_MAX`], call again. The PIC
    /// may request something afterwards. To be called after [`Effect::InterruptChanged`], after the calls that say so, and when
    /// [`Platform::next_deadline`] has passed.
    #[inline]
    pub fn poll(&mut self, now_tsc: u64) -> Messages {
        if now_tsc >= self.timers_due_tsc {
            self.run_timers(now_tsc);
        }
        self.drive_sci(now_tsc);
        let mut messages = Messages::new();
        if self.ioapic.has_message() || self.pci.has_message() {
            self.take_messages(&mut messages);
        }
        messages
    }

    #[cold]
    fn take_messages(&mut self, messages: &mut Messages) {
        while !messages.is_full()
            && let Some(message) = self
                .ioapic
                .next_message()
                .or_else(|| self.pci.next_message())
        {
            messages.push(message);
        }
    }

    #[cold]
    pub(super) fn run_timers(&mut self, now_tsc: u64) {
        if self.pit.take_edge(now_tsc) {
            self.set_irq(Irq::TIMER, true);
            self.set_irq(Irq::TIMER, false);
        }
        self.rtc.advance(now_tsc);
        self.follow_irq(Irq::CLOCK, self.rtc.irq());
        let raised = self.serial.irq(now_tsc);
        self.follow_irq(Irq::SERIAL, raised);
        self.note_deadlines();
    }

    /// Computes when timers want to be looked at. What has happened already is due at once.
    pub(super) fn note_deadlines(&mut self) {
        let edge_waits = self.pit.has_edge().then_some(0);
        let serial = self.serial.next_deadline();
        self.timers_due_tsc = [
            edge_waits,
            self.pit.next_deadline(),
            self.rtc.next_deadline(),
            serial.filter(|_| !self.ioapic.line(Irq::SERIAL.number())),
        ]
        .into_iter()
        .flatten()
        .min()
        .unwrap_or(u64::MAX);
    }

    /// Guest TSC at which [`Platform::poll`] will have something to do.
    #[inline]
    pub fn next_deadline(&self, now_tsc: u64) -> Option<u64> {
        let timers = (self.timers_due_tsc != u64::MAX).then_some(self.timers_due_tsc);
        match (timers, self.pm.next_deadline(now_tsc)) {
            (Some(timers), Some(pm)) => Some(timers.min(pm)),
            (timers, pm) => timers.or(pm),
        }
    }
}
