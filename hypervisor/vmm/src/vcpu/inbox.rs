//! Messages from other CPUs to a vCPU: posted without a lock, collected by whoever runs it.
//!
//! Interrupts are bits, so posting one twice before it is collected is posting it once, as in an
//! IRR; nothing can overflow.
//!
//! # Why nothing is lost
//!
//! A poster writes the bits, then raises `mail`; the collector lowers `mail`, then takes the bits. Both
//! change `mail` by a read-modify-write, so its changes form one chain: a lowering that comes after a
//! raising reads from it, directly or through raisings by others (a release sequence goes on through
//! read-modify-writes), and so sees its bits, which it takes then. A raising that comes after the lowering
//! leaves `mail` up, and the next look collects. (With a plain store of `false` the collector could
//! overwrite a raising that it has not read from.)
//!
//! That the vCPU looks is the poster's second duty, in this order: post, then wake it in the scheduler,
//! then kick the CPU it runs on. The run loop's side is described there (`host::run`): it looks after
//! every exit and, under the scheduler's lock, before it sleeps.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use crate::devices::lapic::{Ipi, IpiMode, Trigger};

const NMI: u32 = 1;
const INIT: u32 = 1 << 1;
const SMI: u32 = 1 << 2;
const STARTUP: u32 = 1 << 3;
const PLATFORM: u32 = 1 << 4;
const FLUSH: u32 = 1 << 5;
const PAGE_SHIFT: u32 = 8;

/// What has been collected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// A fixed interrupt.
    Interrupt(u8, Trigger),
    /// A non-maskable interrupt.
    Nmi,
    /// A system-management interrupt.
    Smi,
    /// INIT.
    Init,
    /// A start-up IPI with its page.
    Startup(u8),
    /// The domain's devices were touched by somebody else.
    PlatformChanged,
    /// Its domain's nested tables map less than before: drop translations before the next entry.
    FlushTranslations,
}

/// The inbox of one vCPU.
#[derive(Debug, Default)]
pub struct Inbox {
    mail: AtomicBool,
    edge: [AtomicU64; 4],
    level: [AtomicU64; 4],
    flags: AtomicU32,
}

impl Inbox {
    /// An empty inbox.
    pub const fn new() -> Self {
        Self {
            mail: AtomicBool::new(false),
            edge: [const { AtomicU64::new(0) }; 4],
            level: [const { AtomicU64::new(0) }; 4],
            flags: AtomicU32::new(0),
        }
    }

    /// Whether there is nothing to collect. One load: asked before every entry.
    #[inline]
    pub fn is_empty(&self) -> bool {
        !self.mail.load(Ordering::Acquire)
    }

    /// Posts an IPI, or a device's interrupt in the form of one, that is addressed to this vCPU.
    pub fn post_ipi(&self, ipi: Ipi, trigger: Trigger) {
        match ipi.mode {
            IpiMode::Fixed | IpiMode::LowestPriority => {
                self.post(Message::Interrupt(ipi.vector, trigger))
            }
            IpiMode::Smi => self.post(Message::Smi),
            IpiMode::Nmi => self.post(Message::Nmi),
            IpiMode::Init => self.post(Message::Init),
            IpiMode::Startup => self.post(Message::Startup(ipi.vector)),
        }
    }

    /// Posts a message. The caller then wakes or kicks the vCPU.
    pub fn post(&self, message: Message) {
        match message {
            Message::Interrupt(vector, trigger) => {
                let set = match trigger {
                    Trigger::Edge => &self.edge,
                    Trigger::Level => &self.level,
                };
                set[usize::from(vector >> 6)].fetch_or(1 << (vector & 63), Ordering::AcqRel);
            }
            Message::Nmi => self.flag(NMI),
            Message::Smi => self.flag(SMI),
            Message::Init => self.flag(INIT),
            Message::PlatformChanged => self.flag(PLATFORM),
            Message::FlushTranslations => self.flag(FLUSH),
            Message::Startup(page) => {
                let page = u32::from(page) << PAGE_SHIFT;
                // The first page counts until it is collected, as for a CPU that has started.
                let _ = self
                    .flags
                    .fetch_update(Ordering::AcqRel, Ordering::Acquire, |flags| {
                        (flags & STARTUP == 0).then_some(flags | STARTUP | page)
                    });
            }
        }
        self.mail.swap(true, Ordering::AcqRel);
    }

    /// Whether [`Message::FlushTranslations`] is still to be collected. Once it is not, the vCPU enters its guest with
    /// no translation made before it was posted.
    pub fn flush_pending(&self) -> bool {
        self.flags.load(Ordering::Acquire) & FLUSH != 0
    }

    fn flag(&self, bit: u32) {
        self.flags.fetch_or(bit, Ordering::AcqRel);
    }

    /// Drops everything, because the vCPU is put into another state; but for
    /// [`Message::FlushTranslations`], which is about the CPUs it ran on and stays due.
    pub fn forget(&self) {
        self.mail.swap(false, Ordering::AcqRel);
        if self.flags.fetch_and(FLUSH, Ordering::AcqRel) & FLUSH != 0 {
            self.mail.swap(true, Ordering::AcqRel);
        }
        for word in self.edge.iter().chain(&self.level) {
            word.swap(0, Ordering::AcqRel);
        }
    }

    /// Takes everything, in an order in which it could have been sent: INIT before a start-up IPI
    /// before interrupts.
    pub fn collect(&self, mut take: impl FnMut(Message)) {
        self.mail.swap(false, Ordering::AcqRel);
        let flags = self.flags.swap(0, Ordering::AcqRel);
        for (bit, message) in [
            (FLUSH, Message::FlushTranslations),
            (PLATFORM, Message::PlatformChanged),
            (INIT, Message::Init),
            (STARTUP, Message::Startup((flags >> PAGE_SHIFT) as u8)),
            (SMI, Message::Smi),
            (NMI, Message::Nmi),
        ] {
            if flags & bit != 0 {
                take(message);
            }
        }
        for (words, trigger) in [(&self.edge, Trigger::Edge), (&self.level, Trigger::Level)] {
            for (index, word) in words.iter().enumerate() {
                let mut bits = word.swap(0, Ordering::AcqRel);
                while bits != 0 {
                    let vector = index as u8 * 64 + bits.trailing_zeros() as u8;
                    bits &= bits - 1;
                    take(Message::Interrupt(vector, trigger));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;

    fn collected(inbox: &Inbox) -> Vec<Message> {
        let mut all = Vec::new();
        inbox.collect(|message| all.push(message));
        all
    }

    #[test]
    fn each_interrupt_comes_once_and_init_comes_before_start() {
        let inbox = Inbox::new();
        assert!(inbox.is_empty());
        inbox.post(Message::Startup(0x9a));
        inbox.post(Message::Startup(0x12));
        inbox.post(Message::Interrupt(0x41, Trigger::Edge));
        inbox.post(Message::Interrupt(0x41, Trigger::Edge));
        inbox.post(Message::Interrupt(0xff, Trigger::Level));
        inbox.post(Message::Init);
        assert!(!inbox.is_empty());
        let all = collected(&inbox);
        assert_eq!(
            all,
            vec![
                Message::Init,
                Message::Startup(0x9a),
                Message::Interrupt(0x41, Trigger::Edge),
                Message::Interrupt(0xff, Trigger::Level),
            ]
        );
        assert!(inbox.is_empty() && collected(&inbox).is_empty());
    }

    #[test]
    fn a_flush_outlives_the_state_it_was_posted_in() {
        let inbox = Inbox::new();
        inbox.post(Message::Init);
        inbox.post(Message::Interrupt(0x41, Trigger::Level));
        inbox.forget();
        assert!(inbox.is_empty() && collected(&inbox).is_empty());
        inbox.post(Message::FlushTranslations);
        inbox.post(Message::Nmi);
        inbox.post(Message::Interrupt(0x42, Trigger::Edge));
        inbox.forget();
        assert!(!inbox.is_empty() && inbox.flush_pending());
        assert_eq!(collected(&inbox), vec![Message::FlushTranslations]);
    }

    #[test]
    fn nothing_is_lost_between_two_threads() {
        const ROUNDS: usize = 20_000;
        let inbox = Inbox::new();
        let mut seen = 0;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..ROUNDS {
                    inbox.post(Message::Nmi);
                    // The next one is sent when this one has been seen.
                    while inbox.flags.load(Ordering::Acquire) & NMI != 0 {
                        std::hint::spin_loop();
                    }
                }
            });
            while seen < ROUNDS {
                if !inbox.is_empty() {
                    inbox.collect(|_| seen += 1);
                }
            }
        });
        assert_eq!(seen, ROUNDS);
    }
}
