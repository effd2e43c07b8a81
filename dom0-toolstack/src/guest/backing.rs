//! What is behind a guest's entropy device, balloon and console on this host.

use super::memory;
use crate::memory::HostMemory;
use crate::random;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::rc::{Rc, Weak};
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::task::{Context, Poll, Waker};
use embassy_futures::yield_now;
use embassy_sync::blocking_mutex::raw::NoopRawMutex;
use embassy_sync::signal::Signal;
use embassy_time::{Duration, Timer};
use godwit_abi::{DomainId, Status};
use godwit_backends::memory::GuestMemory;
use godwit_backends::virtio::balloon::{BalloonHost, Moving, Statistic};
use godwit_backends::virtio::console::Terminal;
use godwit_backends::virtio::entropy::RandomSource;

/// How often a guest's wish for memory is looked at again while the host has none.
const MEMORY_LOOK: Duration = Duration::from_millis(200);
/// Bytes of a console's output that are kept.
const HISTORY_BYTES_MAX: usize = 64 << 10;
/// Bytes of typed input that wait for a guest.
const TYPED_BYTES_MAX: usize = 4 << 10;

/// The CPU's random numbers.
pub(super) struct Chance;

impl RandomSource for Chance {
    fn fill(&self, out: &mut [u8]) {
        random::fill(out);
    }
}

/// Moves pages between a guest and the host.
pub(super) struct Pages {
    pub(super) domain: DomainId,
    pub(super) memory: Rc<HostMemory>,
    /// The guest's, which goes when its last device does.
    pub(super) guest: RefCell<Weak<GuestMemory>>,
    statistics: RefCell<Vec<Statistic>>,
}

impl Pages {
    pub(super) fn new(domain: DomainId, memory: Rc<HostMemory>) -> Rc<Self> {
        Rc::new(Self {
            domain,
            memory,
            guest: RefCell::new(Weak::new()),
            statistics: RefCell::new(Vec::new()),
        })
    }
}

impl BalloonHost for Pages {
    fn release<'a>(&'a self, pages: &'a [u64]) -> Moving<'a> {
        Box::pin(async move {
            let Some(guest) = self.guest.borrow().upgrade() else {
                return;
            };
            // Out of our own view first, so that no request can use them any more.
            let taken: Vec<(u64, u64)> = pages
                .iter()
                .filter_map(|page| Some((*page, guest.remove_page(*page)?)))
                .collect();
            memory::release(self.domain, &self.memory, &taken);
            // A chain may name very many, over and over.
            yield_now().await;
        })
    }

    fn populate<'a>(&'a self, pages: &'a [u64]) -> Moving<'a> {
        Box::pin(async move {
            for page in pages {
                loop {
                    let Some(guest) = self.guest.borrow().upgrade() else {
                        return;
                    };
                    match memory::restore(self.domain, &self.memory, *page) {
                        Ok(Some(run)) => {
                            guest.add_run(run);
                            break;
                        }
                        // The guest waits until the host has memory again.
                        Ok(None) => Timer::after(MEMORY_LOOK).await,
                        // It has never released this one, or it never had it.
                        Err(Status::Exists | Status::BadArgument | Status::NoDomain) => break,
                        Err(status) => {
                            log::warn!("page {page:#x} for domain {}: {status}", self.domain);
                            break;
                        }
                    }
                }
            }
            yield_now().await;
        })
    }

    fn statistics(&self, statistics: &[Statistic]) {
        *self.statistics.borrow_mut() = statistics.to_vec();
    }
}

/// The terminal of a virtio console: what the guest wrote last is kept, what is typed waits.
#[derive(Default)]
pub(super) struct Screen {
    history: RefCell<VecDeque<u8>>,
    /// Bytes ever written: the absolute offset of the end of `history`.
    written: Cell<u64>,
    typed: RefCell<VecDeque<u8>>,
    waker: RefCell<Option<Waker>>,
    /// Something was written.
    pub(super) changed: Signal<NoopRawMutex, ()>,
}

impl Screen {
    /// What was written from the absolute `offset` on, as far as it is kept, and the new offset.
    pub(super) fn read(&self, offset: u64) -> (Vec<u8>, u64) {
        let history = self.history.borrow();
        let end = self.written.get();
        let start = offset.clamp(end - history.len() as u64, end);
        let skip = history.len() - (end - start) as usize;
        (history.iter().skip(skip).copied().collect(), end)
    }

    /// Types. Returns the bytes taken.
    pub(super) fn type_in(&self, bytes: &[u8]) -> usize {
        let mut typed = self.typed.borrow_mut();
        let taken = bytes.len().min(TYPED_BYTES_MAX - typed.len());
        typed.extend(&bytes[..taken]);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
        taken
    }
}

impl Terminal for Screen {
    fn write(&self, bytes: &[u8]) {
        let mut history = self.history.borrow_mut();
        history.extend(bytes);
        let excess = history.len().saturating_sub(HISTORY_BYTES_MAX);
        history.drain(..excess);
        self.written.set(self.written.get() + bytes.len() as u64);
        self.changed.signal(());
    }

    fn poll_read(&self, context: &mut Context<'_>, out: &mut [u8]) -> Poll<usize> {
        let mut typed = self.typed.borrow_mut();
        if typed.is_empty() {
            *self.waker.borrow_mut() = Some(context.waker().clone());
            return Poll::Pending;
        }
        let count = out.len().min(typed.len());
        for (byte, typed) in out.iter_mut().zip(typed.drain(..count)) {
            *byte = typed;
        }
        Poll::Ready(count)
    }
}
