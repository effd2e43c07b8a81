//! A vCPU of SVM: its VMCB and what the VMCB does not hold.

use godwit_records::{Segment, VcpuState};
use godwit_vmm::hardware::{Control, Event, Gpr, SegmentName, SwitchedMsr, VcpuHardware};
use x86_64::registers::debug::{DebugAddressRegister, Dr0, Dr1, Dr2, Dr3};
use x86_64::registers::model_specific::Msr;

use super::cpu::SvmCpu;
use super::maps::maps;
use super::vmcb::{
    INTERCEPT_2, INTERCEPT_CR4_WRITE, INTERCEPT_CR8_WRITE, Vmcb, event, intercept_1,
    virtual_interrupt,
};
use super::{dump, state};
use crate::backend::VcpuSetup;
use crate::cpu::features::cpuid;
use crate::memory::{OutOfMemory, Page};

const EFER_SVME: u64 = 1 << 12;
const RFLAGS_IF: u64 = 1 << 9;
const CR0_TS: u64 = 1 << 3;
const IA32_TSC_AUX: u32 = 0xc000_0103;
/// No CPU: the vCPU has not run anywhere.
const NOWHERE: u32 = u32::MAX;

/// A vCPU.
pub(crate) struct SvmVcpu {
    vmcb: Page,
    /// RAX and RSP are copied from and to the VMCB at the world switch (RAX) and on demand (RSP).
    pub(super) gprs: [u64; 16],
    pub(super) debug_addresses: [u64; 4],
    pub(super) tsc_aux: u64,
    has_tsc_aux: bool,
    pub(super) flush: bool,
    last_cpu: u32,
    /// The ASID it has where there are enough.
    tag: u32,
    loaded: bool,
    /// An NMI handler runs; and at which RIP its IRET was seen, which has not executed yet.
    pub(super) nmi_blocked: bool,
    pub(super) iret_rip: Option<u64>,
    /// Exits in a row at the instruction behind STI or MOV SS.
    pub(super) shadow_exits: u32,
}

impl SvmVcpu {
    pub(super) fn new(setup: &VcpuSetup) -> Result<Self, OutOfMemory> {
        let maps = maps()?;
        let mut vcpu = Self {
            vmcb: Page::zeroed()?,
            gprs: [0; 16],
            debug_addresses: [0; 4],
            tsc_aux: 0,
            has_tsc_aux: cpuid(0x8000_0001, 0).edx & 1 << 27 != 0,
            flush: true,
            last_cpu: NOWHERE,
            tag: setup.tag.into(),
            loaded: false,
            nmi_blocked: false,
            iret_rip: None,
            shadow_exits: 0,
        };
        let vmcb = vcpu.vmcb_mut();
        use intercept_1::*;
        vmcb.intercept_1 = INTR
            | NMI
            | SMI
            | INIT
            | RDPMC
            | CPUID
            | INVD
            | HLT
            | INVLPGA
            | IOIO
            | MSR
            | TASK_SWITCH
            | SHUTDOWN;
        vmcb.intercept_2 = INTERCEPT_2;
        // CR4 decides what the guest may use, whatever CPUID says.
        vmcb.intercept_cr = INTERCEPT_CR4_WRITE;
        // #DB and #AC can keep a CPU busy for ever without an exit (CVE-2015-5307, CVE-2015-8104).
        // #MC is the host's.
        vmcb.intercept_exceptions = 1 << 1 | 1 << 17 | 1 << 18;
        vmcb.iopm_base = maps.io;
        vmcb.msrpm_base = maps.msr;
        vmcb.virtual_interrupt = virtual_interrupt::MASKING;
        vmcb.nested_control = 1;
        vmcb.nested_cr3 = setup.nested_root;
        vcpu.load(&VcpuState::reset());
        Ok(vcpu)
    }

    #[inline]
    pub(super) fn vmcb(&self) -> &Vmcb {
        // SAFETY: the page is ours and holds a VMCB (any bytes are one); the CPU writes to it only
        // inside `enter`, which has `&mut self`.
        unsafe { &*self.vmcb.pointer().cast::<Vmcb>() }
    }

    #[inline]
    pub(super) fn vmcb_mut(&mut self) -> &mut Vmcb {
        // SAFETY: as in `vmcb`, and `&mut self` makes this the only reference.
        unsafe { &mut *self.vmcb.pointer().cast::<Vmcb>() }
    }

    #[inline]
    pub(super) fn vmcb_physical(&self) -> u64 {
        self.vmcb.physical()
    }

    /// Uses an I/O permission map of its own (APM 2, 15.10.1).
    pub(super) fn open_ports(&mut self, map: u64) {
        self.vmcb_mut().iopm_base = map;
    }

    pub(super) fn load_on(&mut self, cpu: &SvmCpu) {
        let here = crate::cpu::this().index;
        let shared = cpu.asids - 1;
        if self.last_cpu != here || self.tag >= shared {
            self.last_cpu = here;
            // What this CPU remembers under our ASID may be from before we ran elsewhere, or another's.
            self.flush = true;
        }
        self.vmcb_mut().asid = self.tag.min(shared);
        self.loaded = true;
        self.swap_in();
    }

    pub(super) fn unload(&mut self) {
        self.debug_addresses = self.debug_addresses();
        self.loaded = false;
    }

    /// Puts into the CPU what VMLOAD does not.
    fn swap_in(&self) {
        let [dr0, dr1, dr2, dr3] = self.debug_addresses;
        Dr0::write(dr0);
        Dr1::write(dr1);
        Dr2::write(dr2);
        Dr3::write(dr3);
        if self.has_tsc_aux {
            // SAFETY: CPUID lists RDTSCP; the value was checked to fit when the guest wrote it.
            unsafe { Msr::new(IA32_TSC_AUX).write(self.tsc_aux) };
        }
    }

    /// DR0 to DR3, wherever they are now.
    pub(super) fn debug_addresses(&self) -> [u64; 4] {
        match self.loaded {
            true => [Dr0::read(), Dr1::read(), Dr2::read(), Dr3::read()],
            false => self.debug_addresses,
        }
    }
}

impl VcpuHardware for SvmVcpu {
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
        self.vmcb().rip
    }

    #[inline]
    fn set_rip(&mut self, rip: u64) {
        self.vmcb_mut().rip = rip;
    }

    fn rsp(&self) -> u64 {
        self.vmcb().rsp
    }

    #[inline]
    fn rflags(&self) -> u64 {
        self.vmcb().rflags
    }

    fn set_rflags(&mut self, rflags: u64) {
        self.vmcb_mut().rflags = rflags;
    }

    #[inline]
    fn control(&self, register: Control) -> u64 {
        let vmcb = self.vmcb();
        match register {
            Control::Cr0 => vmcb.cr0,
            Control::Cr2 => vmcb.cr2,
            Control::Cr3 => vmcb.cr3,
            Control::Cr4 => vmcb.cr4,
        }
    }

    fn set_control(&mut self, register: Control, value: u64) {
        let vmcb = self.vmcb_mut();
        let changed = match register {
            // Translations do not depend on it, and it changes often.
            Control::Cr0 => (vmcb.cr0 ^ value) & !CR0_TS != 0,
            Control::Cr2 => false,
            Control::Cr3 => true,
            Control::Cr4 => vmcb.cr4 != value,
        };
        match register {
            Control::Cr0 => vmcb.cr0 = value,
            Control::Cr2 => vmcb.cr2 = value,
            Control::Cr3 => vmcb.cr3 = value,
            Control::Cr4 => vmcb.cr4 = value,
        }
        // The ASID keeps translations that a MOV by the guest itself would have dropped (APM 2, 15.16.1).
        self.flush |= changed;
    }

    #[inline]
    fn segment(&self, name: SegmentName) -> Segment {
        let vmcb = self.vmcb();
        match name {
            SegmentName::Es => state::segment(&vmcb.es),
            SegmentName::Cs => state::segment(&vmcb.cs),
            // The CPL has a field of its own; SS.DPL is where everybody else looks for it.
            SegmentName::Ss => {
                let segment = state::segment(&vmcb.ss);
                Segment {
                    attributes: segment.attributes & !0x60 | u16::from(vmcb.cpl & 3) << 5,
                    ..segment
                }
            }
            SegmentName::Ds => state::segment(&vmcb.ds),
            SegmentName::Fs => state::segment(&vmcb.fs),
            SegmentName::Gs => state::segment(&vmcb.gs),
            SegmentName::Ldtr => state::segment(&vmcb.ldtr),
            SegmentName::Tr => state::segment(&vmcb.tr),
        }
    }

    fn msr(&self, msr: SwitchedMsr) -> u64 {
        let vmcb = self.vmcb();
        match msr {
            SwitchedMsr::Efer => vmcb.efer & !EFER_SVME,
            SwitchedMsr::Star => vmcb.star,
            SwitchedMsr::Lstar => vmcb.lstar,
            SwitchedMsr::Cstar => vmcb.cstar,
            SwitchedMsr::Sfmask => vmcb.sfmask,
            SwitchedMsr::FsBase => vmcb.fs.base,
            SwitchedMsr::GsBase => vmcb.gs.base,
            SwitchedMsr::KernelGsBase => vmcb.kernel_gs_base,
            SwitchedMsr::SysenterCs => vmcb.sysenter_cs,
            SwitchedMsr::SysenterEsp => vmcb.sysenter_esp,
            SwitchedMsr::SysenterEip => vmcb.sysenter_eip,
            SwitchedMsr::Pat => vmcb.pat,
            SwitchedMsr::TscAux => self.tsc_aux,
        }
    }

    fn set_msr(&mut self, msr: SwitchedMsr, value: u64) {
        if msr == SwitchedMsr::TscAux {
            self.tsc_aux = value;
            if self.has_tsc_aux {
                // SAFETY: the vCPU is loaded here, so the register is the guest's; the caller has
                // checked the value.
                unsafe { Msr::new(IA32_TSC_AUX).write(value) };
            }
            return;
        }
        let vmcb = self.vmcb_mut();
        match msr {
            SwitchedMsr::Efer => vmcb.efer = value | EFER_SVME,
            SwitchedMsr::Star => vmcb.star = value,
            SwitchedMsr::Lstar => vmcb.lstar = value,
            SwitchedMsr::Cstar => vmcb.cstar = value,
            SwitchedMsr::Sfmask => vmcb.sfmask = value,
            SwitchedMsr::FsBase => vmcb.fs.base = value,
            SwitchedMsr::GsBase => vmcb.gs.base = value,
            SwitchedMsr::KernelGsBase => vmcb.kernel_gs_base = value,
            SwitchedMsr::SysenterCs => vmcb.sysenter_cs = value,
            SwitchedMsr::SysenterEsp => vmcb.sysenter_esp = value,
            SwitchedMsr::SysenterEip => vmcb.sysenter_eip = value,
            SwitchedMsr::Pat => vmcb.pat = value,
            SwitchedMsr::TscAux => unreachable!("handled above"),
        }
    }

    fn set_tsc_offset(&mut self, offset: u64) {
        self.vmcb_mut().tsc_offset = offset;
    }

    #[inline]
    fn event_pending(&self) -> bool {
        self.vmcb().event_injection & event::VALID != 0
    }

    fn inject(&mut self, new: Event) {
        debug_assert!(!self.event_pending());
        let value = match new {
            Event::External(vector) => event::EXTERNAL | u64::from(vector),
            Event::Nmi => {
                self.nmi_blocked = true;
                event::NMI | 2
            }
            Event::Exception(vector, None) => event::EXCEPTION | u64::from(vector),
            Event::Exception(vector, Some(code)) => {
                event::EXCEPTION | u64::from(vector) | event::ERROR_VALID | u64::from(code) << 32
            }
        };
        self.vmcb_mut().event_injection = value | event::VALID;
    }

    fn interrupt_allowed(&self) -> bool {
        let vmcb = self.vmcb();
        vmcb.rflags & RFLAGS_IF != 0 && vmcb.interrupt_shadow & 1 == 0 && !self.event_pending()
    }

    fn nmi_allowed(&self) -> bool {
        !self.nmi_blocked && self.vmcb().interrupt_shadow & 1 == 0 && !self.event_pending()
    }

    fn set_interrupt_window(&mut self, wanted: bool) {
        // A virtual interrupt that outranks everything makes the CPU exit where it would take it.
        const REQUEST: u64 = virtual_interrupt::IRQ
            | virtual_interrupt::PRIORITY_HIGHEST
            | virtual_interrupt::IGNORE_TPR;
        let vmcb = self.vmcb_mut();
        if wanted {
            vmcb.virtual_interrupt |= REQUEST;
            vmcb.intercept_1 |= intercept_1::VINTR;
        } else {
            vmcb.virtual_interrupt &= !REQUEST;
            vmcb.intercept_1 &= !intercept_1::VINTR;
        }
    }

    /// The exit comes at the handler's IRET, before it has executed. Until RIP has moved the NMI stays
    /// blocked; then the next exit, at the latest at the end of the time slice, delivers.
    fn set_nmi_window(&mut self, wanted: bool) {
        let seen = self.iret_rip.is_some();
        let vmcb = self.vmcb_mut();
        if wanted && seen {
            // At its IRET already: an exit there would be the same one for ever.
        } else if wanted {
            vmcb.intercept_1 |= intercept_1::IRET;
        } else {
            vmcb.intercept_1 &= !intercept_1::IRET;
            self.iret_rip = Some(self.vmcb().rip);
        }
    }

    #[inline]
    fn clear_interrupt_shadow(&mut self) {
        self.vmcb_mut().interrupt_shadow = 0;
    }

    /// #DB is a trap here: RIP is behind the instruction, DR6.BS says why (APM 2, 13.1.1).
    fn step_trap(&mut self) {
        const DR6_BS: u64 = 1 << 14;
        self.vmcb_mut().dr6 |= DR6_BS;
        if !self.event_pending() {
            self.inject(Event::Exception(godwit_vmm::hardware::vector::DEBUG, None));
        }
    }

    #[inline]
    fn virtual_tpr(&self) -> Option<u8> {
        Some((self.vmcb().virtual_interrupt & virtual_interrupt::TPR) as u8 & 15)
    }

    #[inline]
    fn set_virtual_tpr(&mut self, priority: u8, held: bool) {
        let vmcb = self.vmcb_mut();
        vmcb.virtual_interrupt =
            vmcb.virtual_interrupt & !virtual_interrupt::TPR | u64::from(priority);
        // A virtual interrupt of the held one's class would do as well, but emulators differ on
        // whether it must be above the priority or may equal it.
        vmcb.intercept_cr = INTERCEPT_CR4_WRITE | if held { INTERCEPT_CR8_WRITE } else { 0 };
    }

    fn save(&self) -> VcpuState {
        state::save(self)
    }

    fn load(&mut self, new: &VcpuState) {
        state::load(self, new);
        if self.loaded {
            self.swap_in();
        }
        self.gprs[Gpr::Rax as usize] = new.gprs[Gpr::Rax as usize];
        // What is remembered under our ASID is of another state.
        self.flush = true;
    }

    fn drain_dirty_log(&mut self, _: u16, _: impl FnMut(u64)) {
        // SVM has no such log.
    }

    fn flush_translations(&mut self) {
        self.flush = true;
    }

    fn dump(&self, out: &mut dyn core::fmt::Write) -> core::fmt::Result {
        dump::dump(self, out)
    }
}
