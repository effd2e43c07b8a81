//! What surrounds a vCPU, in memory: guest RAM as a sparse map, a TSC that stands still until it is
//! moved, the platform's devices, and a record of what was asked of the rest of the hypervisor.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};

use godwit_abi::{ABI_VERSION, Access, Answer, MAX_ARGUMENTS, Status};

use crate::cpuid::{Leaf, Policy};
use crate::devices::TscRate;
use crate::devices::lapic::{Address, Ipi, Trigger};
use crate::devices::ports::Platform;
use crate::vcpu::{Contents, Exchange, Quota, Refused, World};
use crate::walk::GuestMemory;

const PAGE_BYTES: u64 = 4096;

/// A host that has everything: every bit of every leaf.
pub fn everything(leaf: u32, subleaf: u32) -> Leaf {
    match (leaf, subleaf) {
        (0, _) => Leaf {
            eax: 0x20,
            ..Leaf::default()
        },
        (0x8000_0000, _) => Leaf {
            eax: 0x8000_0020,
            ..Leaf::default()
        },
        (4, 3..) => Leaf::default(),
        (0xd, 0) => Leaf {
            eax: u32::MAX,
            ebx: 0,
            ecx: 0,
            edx: u32::MAX,
        },
        (0xd, 2) => Leaf {
            eax: 256,
            ebx: 576,
            ..Leaf::default()
        },
        (0xd, sub @ 5..=9) => Leaf {
            eax: 64,
            ebx: 1000 + 64 * sub,
            ..Leaf::default()
        },
        (0xd, 3 | 4 | 10..) => Leaf::default(),
        _ => Leaf {
            eax: u32::MAX,
            ebx: u32::MAX,
            ecx: u32::MAX,
            edx: u32::MAX,
        },
    }
}

/// The surroundings.
#[derive(Debug)]
pub struct FakeWorld {
    pages: RefCell<BTreeMap<u64, Vec<u8>>>,
    /// Guest-physical addresses below this are RAM, zero until written.
    pub ram_bytes: u64,
    /// The host's TSC.
    pub host_tsc: Cell<u64>,
    /// Port devices.
    pub platform: Platform,
    /// Times the platform's lock was taken.
    pub platform_locks: u64,
    /// CPUID policy.
    pub policy: Policy,
    /// Hypercalls that were made, in order.
    pub hypercalls: Vec<(Access, u64, [u64; MAX_ARGUMENTS])>,
    /// What known and allowed hypercalls answer, in order; then `Ok` and 0.
    pub answers: VecDeque<Answer>,
    /// IPIs for other vCPUs.
    pub ipis: Vec<(Ipi, Trigger)>,
    /// Times the watching vCPU was to look at the platform.
    pub watcher_woken: u64,
    /// Where the local APIC was last said to be.
    pub apic_address: Option<Address>,
    /// Pages whose next write is to fault, and is then noted.
    pub withheld: BTreeSet<u64>,
    /// RAM whose contents have not come.
    pub absent: BTreeSet<u64>,
    /// The page of them that was touched last, and whether by ourselves and not told yet.
    pub starved: Cell<(u64, bool)>,
    /// Pages found dirty, by faults and by the processor's log, in order.
    pub dirtied: Vec<u64>,
    /// The domain's write quota.
    pub quota: Option<Quota>,
    /// Where the vCPU asks dom0.
    pub exchange: Exchange,
    /// Times dom0 was told of a question.
    pub asked: u64,
    /// Doorbells rung: slot and number.
    pub rung: Vec<(u8, u8)>,
    /// Refusals.
    pub refusals: Vec<Refused>,
    /// Times somebody was told of console output.
    pub console_told: u64,
    /// XCR0.
    pub xcr0: u64,
}

impl FakeWorld {
    /// A domain of one vCPU with 16 MiB, on a host that has everything, at host TSC 0.
    pub fn new(rate: TscRate) -> Self {
        Self::with_policy(rate, Policy::new(1, ABI_VERSION, everything))
    }

    /// The same with another policy.
    pub fn with_policy(rate: TscRate, policy: Policy) -> Self {
        Self {
            pages: RefCell::default(),
            ram_bytes: 16 << 20,
            host_tsc: Cell::new(0),
            platform: Platform::new(rate),
            platform_locks: 0,
            policy,
            hypercalls: Vec::new(),
            answers: VecDeque::new(),
            ipis: Vec::new(),
            watcher_woken: 0,
            apic_address: None,
            withheld: BTreeSet::new(),
            absent: BTreeSet::new(),
            starved: Cell::new((0, false)),
            dirtied: Vec::new(),
            quota: None,
            exchange: Exchange::new(),
            asked: 0,
            rung: Vec::new(),
            refusals: Vec::new(),
            console_told: 0,
            xcr0: 1,
        }
    }

    /// Calls `action` with each piece of a range that lies in one page.
    fn pieces(
        &self,
        gpa: u64,
        bytes: usize,
        mut action: impl FnMut(&mut Vec<u8>, usize, usize, usize),
    ) -> bool {
        let Some(end) = gpa.checked_add(bytes as u64) else {
            return false;
        };
        if end > self.ram_bytes {
            return false;
        }
        let mut pages = self.pages.borrow_mut();
        let mut done = 0;
        while done < bytes {
            let at = gpa + done as u64;
            let offset = (at % PAGE_BYTES) as usize;
            if self.absent.contains(&(at / PAGE_BYTES)) {
                self.starved.set((at / PAGE_BYTES, true));
                return false;
            }
            let count = (PAGE_BYTES as usize - offset).min(bytes - done);
            let page = pages
                .entry(at / PAGE_BYTES)
                .or_insert_with(|| alloc::vec![0; PAGE_BYTES as usize]);
            action(page, offset, count, done);
            done += count;
        }
        true
    }
}

impl GuestMemory for FakeWorld {
    fn read(&self, gpa: u64, out: &mut [u8]) -> bool {
        self.pieces(gpa, out.len(), |page, offset, count, done| {
            out[done..done + count].copy_from_slice(&page[offset..offset + count]);
        })
    }

    fn write(&self, gpa: u64, bytes: &[u8]) -> bool {
        self.pieces(gpa, bytes.len(), |page, offset, count, done| {
            page[offset..offset + count].copy_from_slice(&bytes[done..done + count]);
        })
    }
}

impl World for FakeWorld {
    fn host_tsc(&self) -> u64 {
        self.host_tsc.get()
    }

    fn platform<R>(&mut self, action: impl FnOnce(&mut Platform) -> R) -> R {
        self.platform_locks += 1;
        action(&mut self.platform)
    }

    fn policy(&self) -> &Policy {
        &self.policy
    }

    fn hypercall(
        &mut self,
        access: Access,
        number: u64,
        arguments: [u64; MAX_ARGUMENTS],
    ) -> Answer {
        self.hypercalls.push((access, number, arguments));
        match godwit_abi::TABLE.iter().find(|call| call.number == number) {
            None => Answer::Return(Status::UnknownCall, 0),
            Some(call) if call.access == Access::Control && access != Access::Control => {
                Answer::Return(Status::Denied, 0)
            }
            Some(_) => self
                .answers
                .pop_front()
                .unwrap_or(Answer::Return(Status::Ok, 0)),
        }
    }

    fn send_ipi(&mut self, ipi: Ipi, trigger: Trigger) {
        self.ipis.push((ipi, trigger));
    }

    fn wake_watcher(&mut self) {
        self.watcher_woken += 1;
    }

    fn apic_moved(&mut self, address: Address) {
        self.apic_address = Some(address);
    }

    fn write_fault(&mut self, gpa: u64) -> bool {
        let withheld = self.withheld.remove(&(gpa / PAGE_BYTES));
        if withheld {
            self.dirtied.push(gpa / PAGE_BYTES);
        }
        withheld
    }

    fn contents(&mut self, gpa: u64) -> Contents {
        let page = gpa / PAGE_BYTES;
        match (self.absent.contains(&page), gpa < self.ram_bytes) {
            (true, _) => {
                self.starved.set((page, false));
                Contents::Absent
            }
            (false, true) => Contents::Here,
            (false, false) => Contents::Nothing,
        }
    }

    fn missed(&mut self) -> bool {
        let (page, missed) = self.starved.get();
        self.starved.set((page, false));
        missed
    }

    fn has_come(&self) -> bool {
        !self.absent.contains(&self.starved.get().0)
    }

    fn logged_write(&mut self, gpa: u64) {
        self.dirtied.push(gpa / PAGE_BYTES);
    }

    fn write_quota(&self) -> Option<Quota> {
        self.quota
    }

    fn exchange(&self) -> &Exchange {
        &self.exchange
    }

    fn asked(&mut self) {
        self.asked += 1;
    }

    fn ring(&mut self, slot: u8, doorbell: u8) {
        self.rung.push((slot, doorbell));
    }

    fn xcr0(&self) -> u64 {
        self.xcr0
    }

    fn set_xcr0(&mut self, value: u64) {
        self.xcr0 = value;
    }

    fn console_output(&mut self) {
        self.console_told += 1;
    }

    fn refused(&mut self, what: Refused) {
        self.refusals.push(what);
    }
}
