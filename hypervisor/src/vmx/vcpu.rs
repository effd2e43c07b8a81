//! A vCPU: its VMCS, its general registers, and what is swapped with it because a VMCS does not hold it.

use core::arch::asm;
use core::cell::Cell;

use godwit_records::VcpuState;
use godwit_vmm::exit::vmx::event::Injection;
use godwit_vmm::hardware::VcpuHardware;
use spin::Once;
use x86_64::registers::model_specific::Msr;

use super::capability::{
    Capability, SECONDARY_ENCLS, SECONDARY_PAUSE_LOOP, SECONDARY_PML, SECONDARY_XSAVES,
    USE_IO_BITMAPS,
};
use super::cpu::{Cpu, write_host_state};
use super::dirty_log::DirtyLog;
use super::fields::Field;
use super::instructions::{Extent, invept, invvpid, vmclear, vmptrld, vmwrite};
use crate::backend::VcpuSetup;
use crate::memory::{OutOfMemory, Page};

/// Ticks between two PAUSEs of one loop, and ticks a loop may take before it exits: about a contended lock whose holder does
/// not run.
const PAUSE_GAP_TICKS: u64 = 128;
const PAUSE_WINDOW_TICKS: u64 = 4096;

/// EPT pointer: write-back, four levels (SDM 3C table 25-9).
const EPT_WRITE_BACK: u64 = 6;
const EPT_FOUR_LEVELS: u64 = 3 << 3;
const EPT_ACCESSED_DIRTY: u64 = 1 << 6;

/// #DB and #AC are taken away from the guest because one that is raised by its own delivery would never end
/// (CVE-2015-8104, CVE-2015-5307); the guest gets them back at the next entry.
/// #MC is the host's.
const INTERCEPTED_EXCEPTIONS: u64 = 1 << 1 | 1 << 17 | 1 << 18;

/// Live MSRs that belong to the loaded vCPU. The host uses none of them.
pub(super) const SWAPPED_MSRS: [u32; 5] = [
    0xc000_0081, // STAR
    0xc000_0082, // LSTAR
    0xc000_0083, // CSTAR
    0xc000_0084, // SFMASK
    0xc000_0102, // KERNEL_GS_BASE
];
/// Likewise, on CPUs that have it.
pub(super) const IA32_TSC_AUX: u32 = 0xc000_0103;

/// MSRs a guest reads and writes without an exit: those the VMCS or [`SWAPPED_MSRS`] hold and that need no policy.
const PASSED_MSRS: [u32; 10] = [
    0x174,       // SYSENTER_CS
    0x175,       // SYSENTER_ESP
    0x176,       // SYSENTER_EIP
    0xc000_0081, // STAR
    0xc000_0082, // LSTAR
    0xc000_0083, // CSTAR
    0xc000_0084, // SFMASK
    0xc000_0100, // FS_BASE
    0xc000_0101, // GS_BASE
    0xc000_0102, // KERNEL_GS_BASE
];
/// IA32_TIME_STAMP_COUNTER: reads give the offset time.
const MSR_TSC: u32 = 0x10;

/// Live registers of a vCPU while it is loaded nowhere.
#[derive(Default)]
struct Swapped {
    msrs: [u64; SWAPPED_MSRS.len()],
    tsc_aux: u64,
    cr2: u64,
    dr: [u64; 4],
    dr6: u64,
}

/// Fields that are read more than once an exit.
#[derive(Clone, Copy)]
#[repr(usize)]
pub(super) enum Cached {
    Rip,
    Rflags,
    Interruptibility,
}

impl Cached {
    pub(super) const COUNT: usize = 3;

    pub(super) const fn field(self) -> Field {
        match self {
            Cached::Rip => Field::GUEST_RIP,
            Cached::Rflags => Field::GUEST_RFLAGS,
            Cached::Interruptibility => Field::GUEST_INTERRUPTIBILITY,
        }
    }
}

/// A vCPU.
pub(crate) struct Vcpu {
    /// General registers in encoding order; the assembly of `entry` knows this.
    pub(super) gprs: [u64; 16],
    /// What HOST_RSP holds.
    pub(super) host_rsp: u64,
    /// The VMCS has been launched since it was last cleared.
    pub(super) launched: bool,
    /// An event is in the VM-entry interruption information.
    pub(super) pending: bool,
    /// Translations to drop before the next entry: [`STALE_LINEAR`], [`STALE_NESTED`].
    pub(super) stale: u8,
    /// What PREEMPTION_TIMER holds.
    pub(super) timer_value: u32,
    pub(super) timer_shift: Option<u8>,
    /// Which of `cache` are as in the VMCS.
    pub(super) cache_valid: Cell<u8>,
    pub(super) cache: [Cell<u64>; Cached::COUNT],
    /// The exception that was the last exit, in the form that gives it back to the guest.
    pub(super) reflected: Option<Injection>,
    /// What PRIMARY_CONTROLS holds.
    pub(super) primary: u32,
    /// What TSC_OFFSET holds.
    pub(super) tsc_offset: u64,
    pub(super) ept_pointer: u64,
    pub(super) capability: &'static Capability,
    pub(super) dirty_log: Option<DirtyLog>,
    /// I/O bitmaps A and B, one after the other. `None`: every port exits.
    io_bitmaps: Option<u64>,
    swapped: Swapped,
    tag: u16,
    /// The CPU it was loaded on last; 0 for none, and then the VMCS is blank.
    last_cpu: u64,
    loaded: bool,
    region: Page,
}

/// Linear and combined translations, by VPID.
pub(super) const STALE_LINEAR: u8 = 1;
/// Guest-physical translations, by EPT pointer.
pub(super) const STALE_NESTED: u8 = 2;

impl Vcpu {
    /// A vCPU in the reset state. Its VMCS is filled when it is first loaded.
    pub(super) fn create(setup: &VcpuSetup) -> Result<Vcpu, OutOfMemory> {
        assert!(setup.tag != 0, "VPID 0 is the host's");
        let capability = Capability::machine().expect("VT-x was probed before a vCPU was made");
        msr_bitmap()?;
        let region = Page::zeroed()?;
        // SAFETY: the page is ours, 4 KiB long and aligned.
        unsafe { region.pointer().cast::<u32>().write(capability.revision) };
        let flags = if capability.ept_dirty {
            EPT_ACCESSED_DIRTY
        } else {
            0
        };
        let dirty_log = match setup.dirty_log {
            true => Some(DirtyLog::new()?),
            false => None,
        };
        Ok(Vcpu {
            gprs: [0; 16],
            host_rsp: 0,
            launched: false,
            pending: false,
            stale: 0,
            timer_value: 0,
            timer_shift: capability.timer_shift,
            cache_valid: Cell::new(0),
            cache: [const { Cell::new(0) }; Cached::COUNT],
            reflected: None,
            primary: capability.primary,
            tsc_offset: 0,
            ept_pointer: setup.nested_root | EPT_WRITE_BACK | EPT_FOUR_LEVELS | flags,
            capability,
            dirty_log,
            io_bitmaps: None,
            swapped: Swapped::default(),
            tag: setup.tag,
            last_cpu: 0,
            loaded: false,
            region,
        })
    }

    /// Lets ports through whose bit is 0 in the bitmaps (SDM 3C 25.6.4).
    pub(super) fn open_ports(&mut self, bitmaps: u64) {
        assert!(self.last_cpu == 0, "the VMCS is filled already");
        if self.capability.io_bitmaps {
            self.io_bitmaps = Some(bitmaps);
            self.primary |= USE_IO_BITMAPS;
        } else {
            log::warn!(
                "this CPU's VT-x has no I/O bitmaps: dom0 cannot reach the ports of its devices"
            );
        }
    }

    /// Makes the VMCS current and the swapped registers live.
    pub(super) fn make_current(&mut self, cpu: &Cpu) {
        assert!(!self.loaded, "vCPU loaded twice");
        let blank = self.last_cpu == 0;
        // SAFETY: this CPU is in VMX operation (there is a `Cpu`). The region is ours and active nowhere (`loaded`), and stays
        // ours until `take_off`. A new region is cleared first, as SDM 3C 25.11.3 wants.
        let current = unsafe {
            let cleared = if blank {
                vmclear(self.region.physical())
            } else {
                Ok(())
            };
            cleared.and_then(|()| vmptrld(self.region.physical()))
        };
        assert!(current.is_ok(), "VMPTRLD failed: {current:?}");
        self.loaded = true;
        self.cache_valid.set(0);
        if self.last_cpu != cpu.id() {
            // What this CPU still holds under our VPID and EPT pointer is from long ago, or from their last owner.
            self.stale = STALE_LINEAR | STALE_NESTED;
            self.last_cpu = cpu.id();
            // SAFETY: our VMCS is current.
            unsafe { write_host_state() };
        }
        self.swap_in();
        if blank {
            self.write_controls();
            self.load(&VcpuState::reset());
        }
    }

    /// Saves the swapped registers and clears the VMCS, so that another CPU can load it.
    pub(super) fn take_off(&mut self) {
        assert!(self.loaded, "vCPU unloaded that was not loaded");
        self.swap_out();
        // SAFETY: the region is ours and active on this CPU.
        let cleared = unsafe { vmclear(self.region.physical()) };
        assert!(cleared.is_ok(), "VMCLEAR failed: {cleared:?}");
        self.loaded = false;
        self.launched = false;
    }

    fn swap_in(&mut self) {
        let Swapped {
            msrs,
            tsc_aux,
            cr2,
            dr,
            dr6,
        } = &self.swapped;
        // SAFETY: the host uses none of these registers, and DR7 is off outside guests, so no breakpoint fires. The values
        // were read from the same registers, or are zeroes.
        unsafe {
            for (index, value) in SWAPPED_MSRS.into_iter().zip(msrs) {
                Msr::new(index).write(*value);
            }
            if self.capability.tsc_aux {
                Msr::new(IA32_TSC_AUX).write(*tsc_aux);
            }
            write_cr2(*cr2);
            write_debug(*dr, *dr6);
        }
    }

    fn swap_out(&mut self) {
        let mut msrs = [0; SWAPPED_MSRS.len()];
        for (index, value) in SWAPPED_MSRS.into_iter().zip(&mut msrs) {
            // SAFETY: exists on every 64-bit CPU.
            *value = unsafe { Msr::new(index).read() };
        }
        let tsc_aux = if self.capability.tsc_aux {
            // SAFETY: the CPU has it.
            unsafe { Msr::new(IA32_TSC_AUX).read() }
        } else {
            0
        };
        let (dr, dr6) = read_debug();
        self.swapped = Swapped {
            msrs,
            tsc_aux,
            cr2: read_cr2(),
            dr,
            dr6,
        };
    }

    /// Fills the control fields of a blank VMCS (SDM 3C 25.6 to 25.8).
    fn write_controls(&mut self) {
        let capability = self.capability;
        let bitmap = msr_bitmap().expect("the MSR bitmap was made with the first vCPU");
        let log = self.dirty_log.as_ref();
        let secondary = capability.secondary | log.map_or(0, |_| SECONDARY_PML);
        let controls = [
            (Field::PIN_CONTROLS, u64::from(capability.pin)),
            (Field::PRIMARY_CONTROLS, u64::from(self.primary)),
            (Field::SECONDARY_CONTROLS, u64::from(secondary)),
            (Field::EXIT_CONTROLS, u64::from(capability.exit)),
            (Field::ENTRY_CONTROLS, u64::from(capability.entry)),
            (Field::EXCEPTION_BITMAP, INTERCEPTED_EXCEPTIONS),
            (Field::PAGE_FAULT_MASK, 0),
            (Field::PAGE_FAULT_MATCH, 0),
            (Field::CR3_TARGET_COUNT, 0),
            (Field::EXIT_MSR_STORE_COUNT, 0),
            (Field::EXIT_MSR_LOAD_COUNT, 0),
            (Field::ENTRY_MSR_LOAD_COUNT, 0),
            (Field::ENTRY_INTERRUPTION, 0),
            (Field::CR0_MASK, capability.fixed.cr0_mask()),
            (Field::CR4_MASK, capability.fixed.cr4_mask()),
            (Field::VPID, u64::from(self.tag)),
            (Field::EPT_POINTER, self.ept_pointer),
            (Field::MSR_BITMAP, bitmap),
            (Field::TSC_OFFSET, self.tsc_offset),
            (Field::LINK_POINTER, u64::MAX),
        ];
        let (ports, bitmaps) = (self.io_bitmaps.is_some(), self.io_bitmaps.unwrap_or(0));
        let logged = log.map(|log| (log.address(), log.start()));
        let (log_page, log_start) = logged.unwrap_or_default();
        let (timed, timer) = (capability.timer_shift.is_some(), self.timer_value.into());
        let has = |control| capability.secondary & control != 0;
        let loops = has(SECONDARY_PAUSE_LOOP);
        // These fields exist only where their control does.
        let optional = [
            (log.is_some(), Field::PML_ADDRESS, log_page),
            (log.is_some(), Field::PML_INDEX, log_start),
            (ports, Field::IO_BITMAP_A, bitmaps),
            (ports, Field::IO_BITMAP_B, bitmaps + 4096),
            (timed, Field::PREEMPTION_TIMER, timer),
            (loops, Field::PAUSE_GAP, PAUSE_GAP_TICKS),
            (loops, Field::PAUSE_WINDOW, PAUSE_WINDOW_TICKS),
            // IA32_XSS is 0 in guests, so XSAVES has nothing to exit for.
            (has(SECONDARY_XSAVES), Field::XSS_EXITING, 0),
            (has(SECONDARY_ENCLS), Field::ENCLS_EXITING, u64::MAX),
        ];
        let present = optional.into_iter().filter(|(exists, _, _)| *exists);
        for (field, value) in controls
            .into_iter()
            .chain(present.map(|(_, field, value)| (field, value)))
        {
            // SAFETY: our VMCS is current; the controls are those that keep the host in charge.
            unsafe { vmwrite(field, value) };
        }
    }

    /// Drops what `stale` names.
    #[cold]
    pub(super) fn drop_translations(&mut self) {
        let stale = core::mem::take(&mut self.stale);
        let context = |extent, context| if extent == Extent::All { 0 } else { context };
        let Capability {
            invept: ept_extent,
            invvpid: vpid_extent,
            ..
        } = *self.capability;
        // SAFETY: a loaded vCPU means VMX operation.
        let dropped = unsafe {
            let nested = if stale & STALE_NESTED != 0 {
                invept(ept_extent, context(ept_extent, self.ept_pointer))
            } else {
                Ok(())
            };
            nested.and_then(|()| invvpid(vpid_extent, context(vpid_extent, u64::from(self.tag))))
        };
        assert!(dropped.is_ok(), "INVEPT or INVVPID failed: {dropped:?}");
    }
}

impl Drop for Vcpu {
    fn drop(&mut self) {
        assert!(!self.loaded, "a VMCS is freed while a CPU may write it");
    }
}

/// Physical address of the MSR bitmap all vCPUs share (SDM 3C 25.6.9): all exit but [`PASSED_MSRS`].
fn msr_bitmap() -> Result<u64, OutOfMemory> {
    static BITMAP: Once<u64> = Once::new();
    BITMAP.try_call_once(make_msr_bitmap).copied()
}

fn make_msr_bitmap() -> Result<u64, OutOfMemory> {
    const WRITES: usize = 2048;
    let page = Page::zeroed()?;
    // SAFETY: the page is ours, 4 KiB long, and nobody else knows it yet.
    let bytes = unsafe { &mut *page.pointer().cast::<[u8; 4096]>() };
    bytes.fill(0xff);
    let mut pass = |index: u32, base: usize| {
        let high = if index >> 30 == 3 { 1024 } else { 0 };
        let number = index as usize & 0x1fff;
        bytes[base + high + number / 8] &= !(1 << (number % 8));
    };
    for index in PASSED_MSRS {
        pass(index, 0);
        pass(index, WRITES);
    }
    pass(MSR_TSC, 0);
    let physical = page.physical();
    // Shared by every vCPU there will be: kept for ever.
    core::mem::forget(page);
    Ok(physical)
}

/// CR2 of the loaded vCPU.
pub(super) fn read_cr2() -> u64 {
    x86_64::registers::control::Cr2::read_raw()
}

/// Sets it.
///
/// # Safety
/// A vCPU is loaded, or being loaded: the host has no page faults whose address it would still need.
pub(super) unsafe fn write_cr2(value: u64) {
    // SAFETY: CR2 has no effect of its own.
    unsafe { asm!("mov cr2, {}", in(reg) value, options(nostack, nomem, preserves_flags)) };
}

/// DR0 to DR3, and DR6.
pub(super) fn read_debug() -> ([u64; 4], u64) {
    let ([mut dr0, mut dr1, mut dr2, mut dr3], mut dr6) = ([0u64; 4], 0u64);
    // SAFETY: reading has no effect; DR7.GD is 0 in the host (exits clear DR7), so nothing is raised.
    unsafe {
        asm!("mov {}, dr0", "mov {}, dr1", "mov {}, dr2", "mov {}, dr3", "mov {}, dr6",
            inout(reg) dr0, inout(reg) dr1, inout(reg) dr2, inout(reg) dr3, inout(reg) dr6,
            options(nostack, nomem, preserves_flags));
    }
    ([dr0, dr1, dr2, dr3], dr6)
}

/// Sets them.
///
/// # Safety
/// The host's DR7 enables no breakpoint. `dr6` has its upper half 0.
pub(super) unsafe fn write_debug(dr: [u64; 4], dr6: u64) {
    let [dr0, dr1, dr2, dr3] = dr;
    // SAFETY: the caller's contract.
    unsafe {
        asm!("mov dr0, {}", "mov dr1, {}", "mov dr2, {}", "mov dr3, {}", "mov dr6, {}",
            in(reg) dr0, in(reg) dr1, in(reg) dr2, in(reg) dr3, in(reg) dr6,
            options(nostack, nomem, preserves_flags));
    }
}
