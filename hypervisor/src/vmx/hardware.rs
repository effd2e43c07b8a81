//! Registers and events of a loaded vCPU, as the code that decides sees them. The order is the trait's.

use godwit_records::{Segment, VcpuState};
use godwit_vmm::exit::vmx::access_rights;
use godwit_vmm::exit::vmx::control::{CR0_PG, EFER_LMA, EFER_LME};
use godwit_vmm::exit::vmx::event::{Injection, Interruption};
use godwit_vmm::hardware::{Control, Event, SegmentName, SwitchedMsr, VcpuHardware};
use x86_64::registers::model_specific::Msr;

use super::capability::{ENTRY_IA32E, INTERRUPT_WINDOW, NMI_WINDOW};
use super::fields::Field;
use super::instructions::{vmread, vmwrite};
use super::vcpu::{
    Cached, IA32_TSC_AUX, STALE_LINEAR, STALE_NESTED, SWAPPED_MSRS, Vcpu, read_cr2, write_cr2,
};

/// Interruptibility state (SDM 3C table 25-3): blocking by STI, by MOV SS, by NMI.
pub(super) const SHADOW_STI: u64 = 1 << 0;
pub(super) const SHADOW_MOV_SS: u64 = 1 << 1;
pub(super) const BLOCKED_BY_NMI: u64 = 1 << 3;
/// Pending debug exceptions: BS.
pub(super) const PENDING_STEP: u64 = 1 << 14;
const RFLAGS_TF: u64 = 1 << 8;
const RFLAGS_IF: u64 = 1 << 9;

/// Where a switched MSR is.
enum Place {
    Field(Field),
    Live(u32),
}

impl Vcpu {
    /// Reads a field of this vCPU.
    pub(super) fn field(&self, field: Field) -> u64 {
        // SAFETY: the vCPU is loaded (contract of `VcpuHardware`), so its VMCS is current.
        unsafe { vmread(field) }
    }

    /// Writes a field of the guest state or a control of this vCPU.
    pub(super) fn set_field(&mut self, field: Field, value: u64) {
        // SAFETY: as in `field`; callers write guest state, or controls that leave the host in charge.
        unsafe { vmwrite(field, value) };
    }

    /// A field that was perhaps read since the last exit.
    #[inline]
    pub(super) fn cached(&self, which: Cached) -> u64 {
        let (slot, bit) = (&self.cache[which as usize], 1 << which as usize);
        if self.cache_valid.get() & bit == 0 {
            slot.set(self.field(which.field()));
            self.cache_valid.set(self.cache_valid.get() | bit);
        }
        slot.get()
    }

    /// Writes such a field.
    #[inline]
    pub(super) fn set_cached(&mut self, which: Cached, value: u64) {
        self.set_field(which.field(), value);
        self.cache[which as usize].set(value);
        self.cache_valid
            .set(self.cache_valid.get() | 1 << which as usize);
    }

    fn set_primary(&mut self, bit: u32, wanted: bool) {
        let controls = if wanted {
            self.primary | bit
        } else {
            self.primary & !bit
        };
        if controls != self.primary {
            self.primary = controls;
            self.set_field(Field::PRIMARY_CONTROLS, u64::from(controls));
        }
    }

    /// LMA is LME and paging together; the entry control "IA-32e mode guest" follows it (SDM 3C 27.3.1.1).
    pub(super) fn set_efer(&mut self, value: u64) {
        let long = value & EFER_LME != 0 && self.field(Field::GUEST_CR0) & CR0_PG != 0;
        let (efer, control) = if long {
            (value | EFER_LMA, ENTRY_IA32E)
        } else {
            (value & !EFER_LMA, 0)
        };
        self.set_field(Field::GUEST_EFER, efer);
        self.set_field(
            Field::ENTRY_CONTROLS,
            u64::from(self.capability.entry & !ENTRY_IA32E | control),
        );
    }

    /// The page-directory-pointer entries a guest has loaded that pages with PAE outside long mode. A processor with EPT takes
    /// them from the VMCS and not from memory (SDM 3C 27.3.2.4), so whoever gives such a guest its state reads them at CR3
    /// and sets them here. [`VcpuHardware::load`] makes them invalid: without this the entry fails.
    #[allow(
        dead_code,
        reason = "for guests that use PAE paging when their state is loaded"
    )]
    pub(crate) fn set_page_directory_pointers(&mut self, entries: [u64; 4]) {
        for (index, entry) in entries.into_iter().enumerate() {
            self.set_field(Field::pdpte(index as u32), entry);
        }
    }
}

fn place(msr: SwitchedMsr) -> Place {
    let [star, lstar, cstar, sfmask, kernel_gs_base] = SWAPPED_MSRS;
    match msr {
        SwitchedMsr::Efer => Place::Field(Field::GUEST_EFER),
        SwitchedMsr::Star => Place::Live(star),
        SwitchedMsr::Lstar => Place::Live(lstar),
        SwitchedMsr::Cstar => Place::Live(cstar),
        SwitchedMsr::Sfmask => Place::Live(sfmask),
        SwitchedMsr::FsBase => Place::Field(Field::GUEST_FS_BASE),
        SwitchedMsr::GsBase => Place::Field(Field::GUEST_GS_BASE),
        SwitchedMsr::KernelGsBase => Place::Live(kernel_gs_base),
        SwitchedMsr::SysenterCs => Place::Field(Field::GUEST_SYSENTER_CS),
        SwitchedMsr::SysenterEsp => Place::Field(Field::GUEST_SYSENTER_ESP),
        SwitchedMsr::SysenterEip => Place::Field(Field::GUEST_SYSENTER_EIP),
        SwitchedMsr::Pat => Place::Field(Field::GUEST_PAT),
        SwitchedMsr::TscAux => Place::Live(IA32_TSC_AUX),
    }
}

impl VcpuHardware for Vcpu {
    #[inline]
    fn gprs(&self) -> &[u64; 16] {
        &self.gprs
    }

    #[inline]
    fn gprs_mut(&mut self) -> &mut [u64; 16] {
        &mut self.gprs
    }

    #[inline]
    fn rip(&self) -> u64 {
        self.cached(Cached::Rip)
    }

    #[inline]
    fn set_rip(&mut self, rip: u64) {
        self.set_cached(Cached::Rip, rip);
    }

    fn rsp(&self) -> u64 {
        self.field(Field::GUEST_RSP)
    }

    #[inline]
    fn rflags(&self) -> u64 {
        self.cached(Cached::Rflags)
    }

    fn set_rflags(&mut self, rflags: u64) {
        self.set_cached(Cached::Rflags, rflags);
    }

    fn control(&self, register: Control) -> u64 {
        let shadowed =
            |real, shadow, mask: u64| self.field(real) & !mask | self.field(shadow) & mask;
        let fixed = &self.capability.fixed;
        match register {
            Control::Cr0 => shadowed(Field::GUEST_CR0, Field::CR0_SHADOW, fixed.cr0_mask()),
            Control::Cr2 => read_cr2(),
            Control::Cr3 => self.field(Field::GUEST_CR3),
            Control::Cr4 => shadowed(Field::GUEST_CR4, Field::CR4_SHADOW, fixed.cr4_mask()),
        }
    }

    fn set_control(&mut self, register: Control, value: u64) {
        let fixed = &self.capability.fixed;
        match register {
            Control::Cr0 => {
                let cr0 = fixed.cr0(value);
                self.set_field(Field::GUEST_CR0, cr0.real);
                self.set_field(Field::CR0_SHADOW, cr0.shadow);
                self.set_efer(self.field(Field::GUEST_EFER));
            }
            // SAFETY: the vCPU is loaded.
            Control::Cr2 => return unsafe { write_cr2(value) },
            Control::Cr3 => self.set_field(Field::GUEST_CR3, value),
            Control::Cr4 => {
                let cr4 = fixed.cr4(value);
                self.set_field(Field::GUEST_CR4, cr4.real);
                self.set_field(Field::CR4_SHADOW, cr4.shadow);
            }
        }
        // With a VPID, entries keep translations that a MOV by the guest itself would have dropped (SDM 3C 29.4.3.1).
        self.stale |= STALE_LINEAR;
    }

    fn segment(&self, name: SegmentName) -> Segment {
        let fields = Field::segment(name as u32);
        access_rights::to_segment(
            self.field(fields.selector) as u16,
            self.field(fields.base),
            self.field(fields.limit) as u32,
            self.field(fields.rights) as u32,
        )
    }

    fn msr(&self, msr: SwitchedMsr) -> u64 {
        match place(msr) {
            Place::Field(field) => self.field(field),
            Place::Live(IA32_TSC_AUX) if !self.capability.tsc_aux => 0,
            // SAFETY: the MSR exists (checked for TSC_AUX, the others do on every 64-bit CPU), and the vCPU is loaded: the
            // value is its own.
            Place::Live(index) => unsafe { Msr::new(index).read() },
        }
    }

    fn set_msr(&mut self, msr: SwitchedMsr, value: u64) {
        match place(msr) {
            Place::Field(Field::GUEST_EFER) => self.set_efer(value),
            Place::Field(field) => self.set_field(field, value),
            Place::Live(IA32_TSC_AUX) if !self.capability.tsc_aux => {
                assert!(
                    value == 0,
                    "IA32_TSC_AUX set on a CPU that does not have it"
                );
            }
            // SAFETY: the MSR exists, the caller has checked the value, and the host does not use the register.
            Place::Live(index) => unsafe { Msr::new(index).write(value) },
        }
    }

    fn set_tsc_offset(&mut self, offset: u64) {
        if offset != self.tsc_offset {
            self.tsc_offset = offset;
            self.set_field(Field::TSC_OFFSET, offset);
        }
    }

    #[inline]
    fn event_pending(&self) -> bool {
        self.pending
    }

    fn inject(&mut self, event: Event) {
        let reflected = self.reflected.take().filter(|exception| {
            let number = Interruption(exception.information).vector();
            matches!(event, Event::Exception(wanted, _) if wanted == number)
        });
        self.deliver(reflected.unwrap_or_else(|| Injection::of_event(event, self.protected())));
    }

    #[inline]
    fn interrupt_allowed(&self) -> bool {
        !self.pending
            && self.cached(Cached::Rflags) & RFLAGS_IF != 0
            && self.cached(Cached::Interruptibility) & (SHADOW_STI | SHADOW_MOV_SS) == 0
    }

    fn nmi_allowed(&self) -> bool {
        let blocking = SHADOW_STI | SHADOW_MOV_SS | BLOCKED_BY_NMI;
        !self.pending && self.cached(Cached::Interruptibility) & blocking == 0
    }

    #[inline]
    fn set_interrupt_window(&mut self, wanted: bool) {
        self.set_primary(INTERRUPT_WINDOW, wanted);
    }

    #[inline]
    fn set_nmi_window(&mut self, wanted: bool) {
        self.set_primary(NMI_WINDOW, wanted);
    }

    #[inline]
    fn clear_interrupt_shadow(&mut self) {
        let state = self.cached(Cached::Interruptibility);
        let cleared = state & !(SHADOW_STI | SHADOW_MOV_SS);
        if cleared != state {
            self.set_cached(Cached::Interruptibility, cleared);
        }
    }

    #[inline]
    fn step_trap(&mut self) {
        // IA32_DEBUGCTL.BTF, which would ask for branches only, is 0 in guests.
        if self.cached(Cached::Rflags) & RFLAGS_TF != 0 {
            self.set_field(
                Field::GUEST_PENDING_DEBUG,
                self.field(Field::GUEST_PENDING_DEBUG) | PENDING_STEP,
            );
        }
    }

    fn save(&self) -> VcpuState {
        self.save_state()
    }

    fn load(&mut self, state: &VcpuState) {
        self.load_state(state);
    }

    fn drain_dirty_log(&mut self, room: u16, report: impl FnMut(u64)) {
        self.drain_log(room, report);
    }

    fn flush_translations(&mut self) {
        self.stale = STALE_LINEAR | STALE_NESTED;
    }

    fn dump(&self, out: &mut dyn core::fmt::Write) -> core::fmt::Result {
        self.dump_fields(out)
    }
}
