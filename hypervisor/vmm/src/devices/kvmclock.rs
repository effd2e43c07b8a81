//! The paravirtual clock that Linux and the BSDs know as kvmclock: a page a vCPU from which the guest computes the time out of its
//! TSC without leaving to us.
//!
//! ```text
//! time = system_time + ((tsc - tsc_timestamp) << shift) * multiplier >> 32        nanoseconds since the domain began
//! unix = wall_clock + time
//! ```
//!
//! The parameters follow from the TSC's rate, so a page changes only when somebody moves a TSC or the rate (a move to a host with
//! another one); it is not rewritten as time goes by. All vCPUs count from one reference, and host TSCs are synchronous (the
//! hypervisor's own clock rests on that), so the time is the same on every vCPU and may be read without ordering between them: the
//! flag `TSC_STABLE`. It is withdrawn while vCPUs' TSCs differ because a guest has moved one.
//!
//! A page is guest memory; it is changed under its version: odd while it changes, so that a reader takes it again.
//!
//! Layout and protocol: Linux, Documentation/virt/kvm/x86/msr.rst and cpuid.rst.

use core::sync::atomic::{Ordering, fence};

use arrayvec::ArrayVec;

use super::{BadState, TscRate};
use crate::walk::GuestMemory;

/// MSR: address of the wall clock's structure, which is written at once.
pub const MSR_WALL_CLOCK: u32 = 0x4b56_4d00;
/// MSR: address of the vCPU's page, and whether it is on.
pub const MSR_SYSTEM_TIME: u32 = 0x4b56_4d01;
/// vCPUs that can have a page.
pub const VCPUS_MAX: usize = godwit_records::VCPUS_MAX;

const ENABLED: u64 = 1;
/// Addresses are multiples of four.
const MISALIGNED: u64 = 1 << 1;
const PAGE_BYTES: usize = 32;
const WALL_CLOCK_BYTES: usize = 12;
/// Flag of a page: readers need no ordering between vCPUs.
const TSC_STABLE: u8 = 1 << 0;
/// Flag of a page, cleared by the guest: the domain stood still, watchdogs are to be patient.
const GUEST_STOPPED: u8 = 1 << 1;
const SECOND_NS: u64 = 1_000_000_000;

/// The clock of one domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kvmclock {
    rate: TscRate,
    /// Platform time at which `reference_ns` was the time.
    reference_tsc: u64,
    reference_ns: u64,
    /// Nanoseconds since 1970 at time 0.
    epoch_ns: u64,
    /// [`MSR_SYSTEM_TIME`] of each vCPU.
    pages: [u64; VCPUS_MAX],
    /// The guest TSC of each vCPU less platform time.
    adjusts: [u64; VCPUS_MAX],
    /// [`MSR_WALL_CLOCK`].
    wall_clock: u64,
}

/// Saved state of [`Kvmclock`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvmclockState {
    /// Platform time of the reference.
    pub reference_tsc: u64,
    /// The time then, nanoseconds.
    pub reference_ns: u64,
    /// Nanoseconds since 1970 at time 0.
    pub epoch_ns: u64,
    /// MSR_KVM_SYSTEM_TIME_NEW of each vCPU.
    pub pages: [u64; VCPUS_MAX],
    /// The guest TSC of each vCPU less platform time.
    pub adjusts: [u64; VCPUS_MAX],
    /// MSR_KVM_WALL_CLOCK_NEW.
    pub wall_clock: u64,
}

/// Pages to write into guest memory: addresses and what comes behind the version.
pub type Pages = ArrayVec<(u64, [u8; PAGE_BYTES]), VCPUS_MAX>;

/// `multiplier` and `shift` for a rate: nanoseconds are `(ticks << shift) * multiplier >> 32`, with a multiplier of 32 significant
/// bits, so that the relative error is below 2^-31.
fn scale(rate: TscRate) -> (u32, i8) {
    let mut shift = 0i8;
    let multiplier = |shift: i8| {
        let (up, down) = (shift.max(0).unsigned_abs(), shift.min(0).unsigned_abs());
        let ns = u128::from(SECOND_NS) << (32 + down);
        ns / (u128::from(rate.hz()) << up)
    };
    // Rates are between 10^6 and 10^12: ten bits either way.
    while multiplier(shift) > u128::from(u32::MAX) {
        shift += 1;
    }
    while multiplier(shift) <= u128::from(u32::MAX >> 1) {
        shift -= 1;
    }
    (multiplier(shift) as u32, shift)
}

impl Kvmclock {
    /// A clock that nobody reads yet, at time 0 at platform time 0.
    pub const fn new(rate: TscRate) -> Kvmclock {
        Kvmclock {
            rate,
            reference_tsc: 0,
            reference_ns: 0,
            epoch_ns: 0,
            pages: [0; VCPUS_MAX],
            adjusts: [0; VCPUS_MAX],
            wall_clock: 0,
        }
    }

    /// The domain resets: pages are off, the time goes on.
    pub fn reset(&mut self) {
        self.pages = [0; VCPUS_MAX];
        self.adjusts = [0; VCPUS_MAX];
        self.wall_clock = 0;
    }

    /// The time as guests compute it.
    pub fn time_ns(&self, platform_tsc: u64) -> u64 {
        let (multiplier, shift) = scale(self.rate);
        let ticks = platform_tsc.wrapping_sub(self.reference_tsc);
        let shifted = if shift < 0 {
            ticks >> shift.unsigned_abs()
        } else {
            ticks << shift
        };
        let ns = (u128::from(shifted) * u128::from(multiplier)) >> 32;
        self.reference_ns.wrapping_add(ns as u64)
    }

    /// Sets the time of day, nanoseconds since 1970. A guest sees it when it asks for the wall clock again.
    pub fn set_epoch(&mut self, unix_ns: u64, platform_tsc: u64) {
        self.epoch_ns = unix_ns.saturating_sub(self.time_ns(platform_tsc));
    }

    /// A vCPU's [`MSR_SYSTEM_TIME`].
    pub fn system_time(&self, vcpu: u32) -> Option<u64> {
        self.pages.get(vcpu as usize).copied()
    }

    /// [`MSR_WALL_CLOCK`].
    pub fn wall_clock(&self) -> u64 {
        self.wall_clock
    }

    /// Writes [`MSR_SYSTEM_TIME`] on a vCPU whose TSC is platform time and `adjust`. `None`: a value no CPU takes.
    pub fn set_system_time(&mut self, vcpu: u32, value: u64, adjust: u64) -> Option<()> {
        if value & MISALIGNED != 0 {
            return None;
        }
        *self.pages.get_mut(vcpu as usize)? = value;
        self.adjusts[vcpu as usize] = adjust;
        Some(())
    }

    /// A vCPU's TSC is platform time and `adjust` from now on. True if there are pages to write.
    pub fn tsc_moved(&mut self, vcpu: u32, adjust: u64) -> bool {
        if let Some(kept) = self.adjusts.get_mut(vcpu as usize) {
            *kept = adjust;
        }
        self.is_used()
    }

    /// Whether any vCPU has a page.
    pub fn is_used(&self) -> bool {
        self.pages.iter().any(|page| page & ENABLED != 0)
    }

    /// Notes [`MSR_WALL_CLOCK`]. Returns the structure to write there. `None`: a value no CPU takes.
    pub fn set_wall_clock(&mut self, value: u64) -> Option<[u8; WALL_CLOCK_BYTES]> {
        if value & 3 != 0 {
            return None;
        }
        self.wall_clock = value;
        let mut body = [0; WALL_CLOCK_BYTES];
        body[4..8].copy_from_slice(&((self.epoch_ns / SECOND_NS) as u32).to_le_bytes());
        body[8..12].copy_from_slice(&((self.epoch_ns % SECOND_NS) as u32).to_le_bytes());
        Some(body)
    }

    /// Every page as it is to be. `stopped`: the domain has stood still.
    pub fn pages(&self, stopped: bool) -> Pages {
        let used = || (0..VCPUS_MAX).filter(|&vcpu| self.pages[vcpu] & ENABLED != 0);
        let mut adjusts = used().map(|vcpu| self.adjusts[vcpu]);
        let first = adjusts.next();
        let stable = adjusts.all(|adjust| Some(adjust) == first);
        let flags = if stable { TSC_STABLE } else { 0 } | if stopped { GUEST_STOPPED } else { 0 };
        let (multiplier, shift) = scale(self.rate);
        used()
            .map(|vcpu| {
                let tsc = self.reference_tsc.wrapping_add(self.adjusts[vcpu]);
                let mut body = [0; PAGE_BYTES];
                body[8..16].copy_from_slice(&tsc.to_le_bytes());
                body[16..24].copy_from_slice(&self.reference_ns.to_le_bytes());
                body[24..28].copy_from_slice(&multiplier.to_le_bytes());
                body[28] = shift as u8;
                body[29] = flags;
                (self.pages[vcpu] & !ENABLED, body)
            })
            .collect()
    }

    /// The state to move.
    pub fn save(&self) -> KvmclockState {
        let &Kvmclock {
            rate: _,
            reference_tsc,
            reference_ns,
            epoch_ns,
            pages,
            adjusts,
            wall_clock,
        } = self;
        KvmclockState {
            reference_tsc,
            reference_ns,
            epoch_ns,
            pages,
            adjusts,
            wall_clock,
        }
    }

    /// The clock with this state, in a domain whose TSC has this rate.
    pub fn restore(state: &KvmclockState, rate: TscRate) -> Result<Kvmclock, BadState> {
        let &KvmclockState {
            reference_tsc,
            reference_ns,
            epoch_ns,
            pages,
            adjusts,
            wall_clock,
        } = state;
        let aligned = pages.iter().all(|page| page & MISALIGNED == 0) && wall_clock & 3 == 0;
        BadState::unless(aligned, "kvmclock.pages")?;
        Ok(Kvmclock {
            rate,
            reference_tsc,
            reference_ns,
            epoch_ns,
            pages,
            adjusts,
            wall_clock,
        })
    }
}

/// Writes a structure that begins with a version of four bytes, which is odd while the rest changes and even, and another, afterwards.
/// `false`: not all of it is memory.
pub fn publish<M: GuestMemory>(memory: &M, gpa: u64, body: &[u8]) -> bool {
    let mut old = [0; 4];
    if !memory.read(gpa, &mut old) {
        return false;
    }
    let changing = u32::from_le_bytes(old).wrapping_add(1) | 1;
    // Readers look at the version, the rest, and the version again, in this order.
    let begun = memory.write(gpa, &changing.to_le_bytes());
    fence(Ordering::SeqCst);
    let written = begun && memory.write(gpa + 4, &body[4..]);
    fence(Ordering::SeqCst);
    written && memory.write(gpa, &changing.wrapping_add(1).to_le_bytes())
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use core::cell::RefCell;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn field(page: &[u8; PAGE_BYTES], at: usize) -> u64 {
        u64::from_le_bytes(page[at..at + 8].try_into().unwrap())
    }

    /// The time as a guest reads it, per the protocol's own words.
    fn guest_ns(page: &[u8; PAGE_BYTES], tsc: u64) -> u64 {
        let delta = tsc.wrapping_sub(field(page, 8));
        let multiplier = u32::from_le_bytes(page[24..28].try_into().unwrap());
        let shifted = match page[28] as i8 {
            down @ ..0 => delta >> down.unsigned_abs(),
            up => delta << up,
        };
        field(page, 16) + ((u128::from(shifted) * u128::from(multiplier)) >> 32) as u64
    }

    proptest! {
        /// A guest reads the elapsed time, to a part in a thousand million, at any rate and on any vCPU.
        #[test]
        fn the_page_tells_the_time(hz in TscRate::HZ_MIN..=100_000_000_000u64, seconds in 0u64..10_000_000, adjust: u64) {
            let rate = TscRate::from_hz(hz).unwrap();
            let mut clock = Kvmclock::new(rate);
            clock.set_system_time(3, 0x1000 | 1, adjust).unwrap();
            let pages = clock.pages(false);
            let [(gpa, page)] = pages.as_slice() else { panic!("one page") };
            prop_assert_eq!(*gpa, 0x1000);
            prop_assert_eq!(page[29], TSC_STABLE);
            let tsc = seconds * hz;
            let ns = guest_ns(page, tsc.wrapping_add(adjust));
            let exact = seconds * SECOND_NS;
            prop_assert!(ns <= exact && exact - ns <= exact / 1_000_000_000 + 1, "{ns} for {exact}");
            prop_assert_eq!(ns, clock.time_ns(tsc));
        }
    }

    #[test]
    fn the_stable_flag_goes_while_tscs_differ() {
        let mut clock = Kvmclock::new(TscRate::from_hz(3_000_000_000).unwrap());
        clock.set_system_time(0, 0x1001, 0).unwrap();
        clock.set_system_time(1, 0x2001, 0).unwrap();
        assert!(clock.tsc_moved(1, 77));
        let flags = |clock: &Kvmclock| -> Vec<u8> {
            clock
                .pages(false)
                .iter()
                .map(|(_, page)| page[29])
                .collect()
        };
        assert_eq!(flags(&clock), [0, 0]);
        clock.tsc_moved(1, 0);
        assert_eq!(flags(&clock), [TSC_STABLE, TSC_STABLE]);
        assert_eq!(clock.set_system_time(1, 0x2003, 0), None, "misaligned");
        assert_eq!(clock.set_system_time(VCPUS_MAX as u32, 1, 0), None);
    }

    #[test]
    fn the_wall_clock_is_that_of_time_zero() {
        let hz = 2_000_000_000;
        let mut clock = Kvmclock::new(TscRate::from_hz(hz).unwrap());
        clock.set_epoch(1_700_000_010 * SECOND_NS + 5, 10 * hz);
        let body = clock.set_wall_clock(0x100).unwrap();
        assert_eq!(
            u32::from_le_bytes(body[4..8].try_into().unwrap()),
            1_700_000_000
        );
        assert_eq!(u32::from_le_bytes(body[8..12].try_into().unwrap()), 5);
    }

    /// Notes every write with the version at that moment.
    #[derive(Default)]
    struct Noted {
        bytes: RefCell<Vec<u8>>,
        writes: RefCell<Vec<(u64, u32)>>,
    }

    impl GuestMemory for Noted {
        fn read(&self, gpa: u64, out: &mut [u8]) -> bool {
            let at = gpa as usize;
            let bytes = self.bytes.borrow();
            let found = bytes.get(at..at + out.len());
            found.inspect(|bytes| out.copy_from_slice(bytes)).is_some()
        }
        fn write(&self, gpa: u64, bytes: &[u8]) -> bool {
            let at = gpa as usize;
            let mut memory = self.bytes.borrow_mut();
            let Some(place) = memory.get_mut(at..at + bytes.len()) else {
                return false;
            };
            place.copy_from_slice(bytes);
            let version = u32::from_le_bytes(memory[8..12].try_into().unwrap());
            self.writes.borrow_mut().push((gpa, version));
            true
        }
    }

    #[test]
    fn what_changes_changes_under_an_odd_version() {
        let memory = Noted::default();
        memory.bytes.borrow_mut().resize(64, 0);
        memory.bytes.borrow_mut()[8] = 4;
        assert!(publish(&memory, 8, &[9; PAGE_BYTES]));
        assert_eq!(*memory.writes.borrow(), [(8, 5), (12, 5), (8, 6)]);
        // A version that was odd, because the page held something else.
        memory.bytes.borrow_mut()[8] = 7;
        assert!(publish(&memory, 8, &[9; PAGE_BYTES]));
        assert_eq!(memory.writes.borrow()[3..], [(8, 9), (12, 9), (8, 10)]);
        assert!(!publish(&memory, 60, &[9; PAGE_BYTES]));
    }
}
