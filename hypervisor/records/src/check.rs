//! Could a CPU be in this state? What an Intel CPU with unrestricted guest demands at VM entry
//! (SDM 3C 27.3.1), what an AMD CPU demands at VMRUN (APM 2 15.5.1), and what writing the
//! registers would demand: the union, so that a state that passes can be loaded on either and the
//! hypervisor gets no fault and no failed entry from it. What depends on the host (features of
//! the guest's CPUID policy, fixed bits of the capability MSRs, page-directory pointers in guest
//! memory) is not decided here.

use crate::Segment;
use crate::vcpu::{Activity, EventKind, PendingEvent, Shadow, VcpuState};
use core::fmt;

/// A field that no CPU could have so.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Invalid {
    /// The field of the record.
    pub field: &'static str,
    /// The rule it breaks.
    pub why: &'static str,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.why)
    }
}

/// `Ok` when `valid`.
pub(crate) fn rule(valid: bool, field: &'static str, why: &'static str) -> Result<(), Invalid> {
    if valid {
        Ok(())
    } else {
        Err(Invalid { field, why })
    }
}

const CR0_PE: u64 = 1 << 0;
const CR0_ET: u64 = 1 << 4;
const CR0_NW: u64 = 1 << 29;
const CR0_CD: u64 = 1 << 30;
const CR0_PG: u64 = 1 << 31;
/// PE, MP, EM, TS, ET, NE, WP, AM, NW, CD, PG.
const CR0_DEFINED: u64 = 0xe005_003f;

const CR4_PAE: u64 = 1 << 5;
const CR4_PCIDE: u64 = 1 << 17;
/// VME to UMIP, FSGSBASE to OSXSAVE, SMEP, SMAP, PKE: features all of whose state is in records.
const CR4_CARRIED: u64 = 0x0077_0fff;
/// Bits of a linear address. Guests have no LA57: with it MSRs may hold wider addresses even while
/// 4-level paging is in use (after an INIT, say), and a host without it could not load them.
const LINEAR_ADDRESS_BITS: u32 = 48;

const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
/// SCE, LME, LMA, NXE.
const EFER_CARRIED: u64 = 0xd01;

const RFLAGS_FIXED: u64 = 1 << 1;
const RFLAGS_IF: u64 = 1 << 9;
const RFLAGS_VM: u64 = 1 << 17;
/// Bits 63:22, 15, 5, 3.
const RFLAGS_RESERVED: u64 = !0x3f_ffff | 0x8028;

/// DR6 bits 63:32 and 12, always 0.
const DR6_ZEROES: u64 = !0xffff_ffff | 1 << 12;
/// DR6 bits 31:17 and 10:4, always 1. (Bits 16 and 11 are 1 or, with RTM and bus locks, 0.)
const DR6_ONES: u64 = 0xfffe_07f0;
/// DR7 bits 63:32, 15, 14 and 12, always 0.
const DR7_ZEROES: u64 = !0xffff_ffff | 0xd000;
/// DR7 bit 10, always 1.
const DR7_ONES: u64 = 1 << 10;

const XCR0_X87: u64 = 1 << 0;
const XCR0_SSE: u64 = 1 << 1;
const XCR0_AVX: u64 = 1 << 2;
const XCR0_AVX512: u64 = 7 << 5;
const XCR0_PKRU: u64 = 1 << 9;
const XCR0_CARRIED: u64 = XCR0_X87 | XCR0_SSE | XCR0_AVX | XCR0_AVX512 | XCR0_PKRU;

/// Segment attributes in virtual-8086 mode: present, DPL 3, writable, accessed.
const V86_ATTRIBUTES: u16 = 0xf3;
/// The longest x86 instruction.
const INSTRUCTION_BYTES_MAX: u8 = 15;
/// #DF, #TS, #NP, #SS, #GP, #PF, #AC.
const ERROR_CODE_VECTORS: u32 = 1 << 8 | 0x1f << 10 | 1 << 17;

impl VcpuState {
    /// Whether a CPU whose physical addresses have `physical_address_bits` (CPUID 0x8000_0008
    /// EAX bits 7:0) could be in this state. Names the first field that forbids it.
    pub fn check(&self, physical_address_bits: u8) -> Result<(), Invalid> {
        self.check_control_registers(physical_address_bits)?;
        self.check_flags_and_debug()?;
        self.check_msrs()?;
        self.check_addresses()?;
        self.check_code_and_data_segments()?;
        self.check_system_segments()?;
        self.check_activity()?;
        match self.pending_event {
            None => Ok(()),
            Some(event) => self.check_pending_event(event),
        }
    }

    fn long_mode(&self) -> bool {
        self.efer & EFER_LMA != 0
    }

    fn virtual_8086(&self) -> bool {
        self.rflags & RFLAGS_VM != 0
    }

    fn check_control_registers(&self, physical_address_bits: u8) -> Result<(), Invalid> {
        let (cr0, cr4, efer) = (self.cr0, self.cr4, self.efer);
        let paging = cr0 & CR0_PG != 0;
        rule(cr0 & !CR0_DEFINED == 0, "cr0", "a reserved bit is set")?;
        rule(cr0 & CR0_ET != 0, "cr0", "ET (bit 4) is always 1")?;
        rule(!paging || cr0 & CR0_PE != 0, "cr0", "PG needs PE")?;
        rule(cr0 & CR0_NW == 0 || cr0 & CR0_CD != 0, "cr0", "NW needs CD")?;
        rule(
            cr4 & !CR4_CARRIED == 0,
            "cr4",
            "a bit is set that is reserved or whose feature guests do not have",
        )?;
        rule(
            efer & !EFER_CARRIED == 0,
            "efer",
            "a bit is set that is reserved or whose feature guests do not have",
        )?;
        let long_mode = self.long_mode();
        rule(
            long_mode == (paging && efer & EFER_LME != 0),
            "efer",
            "LMA is set exactly when LME and CR0.PG are",
        )?;
        rule(
            !long_mode || cr4 & CR4_PAE != 0,
            "cr4",
            "long mode needs PAE",
        )?;
        rule(
            long_mode || cr4 & CR4_PCIDE == 0,
            "cr4",
            "PCIDE needs long mode",
        )?;
        let cr3_bits = u32::from(physical_address_bits).min(52);
        rule(
            self.cr3 >> cr3_bits == 0,
            "cr3",
            "beyond the physical address width",
        )?;
        rule(self.cr8 <= 15, "cr8", "greater than 15")?;
        let xcr0 = self.xcr0;
        rule(xcr0 & XCR0_X87 != 0, "xcr0", "x87 (bit 0) is always 1")?;
        rule(
            xcr0 & !XCR0_CARRIED == 0,
            "xcr0",
            "a component is enabled that guests do not have",
        )?;
        rule(
            xcr0 & XCR0_AVX == 0 || xcr0 & XCR0_SSE != 0,
            "xcr0",
            "AVX needs SSE",
        )?;
        rule(
            xcr0 & XCR0_AVX512 == 0 || xcr0 & (XCR0_AVX512 | XCR0_AVX) == XCR0_AVX512 | XCR0_AVX,
            "xcr0",
            "AVX-512 is all of bits 7:5, with AVX",
        )
    }

    fn check_flags_and_debug(&self) -> Result<(), Invalid> {
        let rflags = self.rflags;
        rule(rflags & RFLAGS_FIXED != 0, "rflags", "bit 1 is always 1")?;
        rule(
            rflags & RFLAGS_RESERVED == 0,
            "rflags",
            "a reserved bit is set",
        )?;
        let protected_not_long = self.cr0 & CR0_PE != 0 && !self.long_mode();
        rule(
            !self.virtual_8086() || protected_not_long,
            "rflags",
            "VM needs protected mode and forbids long mode",
        )?;
        rule(
            self.dr6 & DR6_ZEROES == 0 && self.dr6 & DR6_ONES == DR6_ONES,
            "dr6",
            "a fixed bit has the wrong value",
        )?;
        rule(
            self.dr7 & DR7_ZEROES == 0 && self.dr7 & DR7_ONES == DR7_ONES,
            "dr7",
            "a fixed bit has the wrong value",
        )
    }

    fn check_msrs(&self) -> Result<(), Invalid> {
        let types_known = self
            .pat
            .to_le_bytes()
            .iter()
            .all(|memory_type| matches!(memory_type, 0 | 1 | 4..=7));
        rule(types_known, "pat", "an entry has a reserved memory type")?;
        for (field, address) in [
            ("lstar", self.lstar),
            ("cstar", self.cstar),
            ("kernel_gs_base", self.kernel_gs_base),
            ("sysenter_esp", self.sysenter_esp),
            ("sysenter_eip", self.sysenter_eip),
        ] {
            check_canonical(field, address)?;
        }
        Ok(())
    }

    fn check_addresses(&self) -> Result<(), Invalid> {
        check_canonical("gdtr_base", self.gdtr_base)?;
        check_canonical("idtr_base", self.idtr_base)?;
        if self.long_mode() && self.cs.attributes & Segment::LONG != 0 {
            // Code may run up to the last byte below the hole, and RIP then points into the hole:
            // the bits above the address width are equal, not copies of the bit below them.
            let above = self.rip >> LINEAR_ADDRESS_BITS;
            let ones = u64::MAX >> LINEAR_ADDRESS_BITS;
            rule(
                above == 0 || above == ones,
                "rip",
                "not a canonical address",
            )
        } else {
            rule(
                self.rip >> 32 == 0,
                "rip",
                "wider than 32 bits outside 64-bit mode",
            )
        }
    }

    fn check_code_and_data_segments(&self) -> Result<(), Invalid> {
        let segments = [
            ("cs", self.cs),
            ("ds", self.ds),
            ("es", self.es),
            ("fs", self.fs),
            ("gs", self.gs),
            ("ss", self.ss),
        ];
        for (field, segment) in segments {
            rule(
                segment.attributes & Segment::RESERVED == 0,
                field,
                "attributes bits 11:8 are always 0",
            )?;
            if self.virtual_8086() {
                let base = u64::from(segment.selector) << 4;
                rule(
                    segment.base == base,
                    field,
                    "virtual-8086 base is selector * 16",
                )?;
                rule(
                    segment.limit == 0xffff,
                    field,
                    "virtual-8086 limit is 0xffff",
                )?;
                rule(
                    segment.attributes == V86_ATTRIBUTES,
                    field,
                    "virtual-8086 attributes are 0xf3",
                )?;
            } else if segment.usable() {
                rule(
                    segment.attributes & Segment::CODE_OR_DATA != 0,
                    field,
                    "not a code or data segment",
                )?;
                check_granularity(field, segment)?;
                if !matches!(field, "fs" | "gs") {
                    rule(segment.base >> 32 == 0, field, "base wider than 32 bits")?;
                }
            }
        }
        check_canonical("fs", self.fs.base)?;
        check_canonical("gs", self.gs.base)?;
        if self.virtual_8086() {
            return Ok(());
        }
        for (field, segment) in &segments[1..5] {
            let kind = segment.kind();
            let readable = kind & 0b1000 == 0 || kind & 0b0010 != 0;
            rule(
                !segment.usable() || kind & 1 != 0 && readable,
                field,
                "not an accessed, readable segment",
            )?;
        }
        self.check_privilege()
    }

    /// CS and SS, whose DPL is the CPL, outside virtual-8086 mode.
    fn check_privilege(&self) -> Result<(), Invalid> {
        const DATA: u16 = 3;
        const DATA_EXPAND_DOWN: u16 = 7;
        let (cs, cpl) = (self.cs, self.cpl());
        rule(cs.usable(), "cs", "not present")?;
        rule(
            self.cr0 & CR0_PE != 0 || cpl == 0,
            "ss",
            "real mode runs at privilege level 0",
        )?;
        match cs.kind() {
            // Real mode leaves what was there; a VM entry takes it as writable data (SDM 3C 27.3.1.2).
            DATA => rule(
                self.cr0 & CR0_PE == 0 && cs.dpl() == 0,
                "cs",
                "a data segment outside real mode",
            )?,
            9 | 11 => rule(
                cs.dpl() == cpl,
                "cs",
                "DPL differs from that of SS, the CPL",
            )?,
            13 | 15 => rule(cs.dpl() <= cpl, "cs", "conforming DPL above the CPL")?,
            _other => return rule(false, "cs", "not an accessed code segment"),
        }
        let both = Segment::LONG | Segment::BIG;
        rule(
            !self.long_mode() || cs.attributes & both != both,
            "cs",
            "L and D are both set in long mode",
        )?;
        rule(
            !self.ss.usable() || matches!(self.ss.kind(), DATA | DATA_EXPAND_DOWN),
            "ss",
            "not an accessed, writable data segment",
        )
    }

    fn check_system_segments(&self) -> Result<(), Invalid> {
        const TABLE_INDICATOR: u16 = 1 << 2;
        const LDT: u16 = 2;
        const BUSY_TSS_16: u16 = 3;
        const BUSY_TSS: u16 = 11;
        rule(self.tr.usable(), "tr", "not present")?;
        let kind = self.tr.kind();
        rule(
            kind == BUSY_TSS || kind == BUSY_TSS_16 && !self.long_mode(),
            "tr",
            "not a busy task-state segment",
        )?;
        for (field, segment) in [("tr", self.tr), ("ldtr", self.ldtr)] {
            if !segment.usable() {
                continue;
            }
            rule(
                segment.attributes & (Segment::CODE_OR_DATA | Segment::RESERVED) == 0,
                field,
                "not a system segment, or attributes bits 11:8 set",
            )?;
            rule(
                segment.selector & TABLE_INDICATOR == 0,
                field,
                "the selector is one of the LDT",
            )?;
            check_canonical(field, segment.base)?;
            check_granularity(field, segment)?;
        }
        rule(
            !self.ldtr.usable() || self.ldtr.kind() == LDT,
            "ldtr",
            "not a local descriptor table",
        )
    }

    fn check_activity(&self) -> Result<(), Invalid> {
        let running = self.activity == Activity::Running;
        rule(
            running || self.interrupt_shadow == Shadow::None,
            "interrupt_shadow",
            "only a running CPU holds interrupts back",
        )?;
        rule(
            self.interrupt_shadow != Shadow::Sti || self.rflags & RFLAGS_IF != 0,
            "interrupt_shadow",
            "STI has set IF, which is clear",
        )?;
        rule(
            self.activity != Activity::Halted || self.cpl() == 0,
            "activity",
            "only privilege level 0 can halt",
        )?;
        rule(
            running || self.pending_event.is_none(),
            "pending_event",
            "a CPU that delivers an event is running",
        )
    }

    fn check_pending_event(&self, event: PendingEvent) -> Result<(), Invalid> {
        const FIELD: &str = "pending_event";
        let vector_fits = match event.kind {
            EventKind::External | EventKind::SoftwareInterrupt => true,
            EventKind::Nmi => event.vector == 2,
            EventKind::Exception => event.vector < 32 && event.vector != 2,
            EventKind::PrivilegedSoftwareException => event.vector == 1,
            EventKind::SoftwareException => matches!(event.vector, 3 | 4),
        };
        rule(vector_fits, FIELD, "the vector is not one of this kind")?;
        let software = match event.kind {
            EventKind::External | EventKind::Nmi | EventKind::Exception => false,
            EventKind::SoftwareInterrupt
            | EventKind::PrivilegedSoftwareException
            | EventKind::SoftwareException => true,
        };
        rule(
            if software {
                (1..=INSTRUCTION_BYTES_MAX).contains(&event.instruction_length)
            } else {
                event.instruction_length == 0
            },
            FIELD,
            "software events have an instruction of 1 to 15 bytes, others none",
        )?;
        let pushes_code = event.kind == EventKind::Exception
            && self.cr0 & CR0_PE != 0
            && ERROR_CODE_VECTORS >> event.vector & 1 != 0;
        rule(
            event.error_code.is_some() == pushes_code,
            FIELD,
            "an error code is missing, or there is one too many",
        )?;
        rule(
            event.error_code.is_none_or(|code| code >> 16 == 0),
            FIELD,
            "the error code is wider than 16 bits",
        )?;
        match event.kind {
            EventKind::External => rule(
                self.rflags & RFLAGS_IF != 0 && self.interrupt_shadow == Shadow::None,
                FIELD,
                "an external interrupt while interrupts are held back",
            ),
            EventKind::Nmi => rule(
                !self.nmi_blocked && self.interrupt_shadow != Shadow::MovSs,
                FIELD,
                "an NMI while NMIs are held back",
            ),
            EventKind::Exception
            | EventKind::SoftwareInterrupt
            | EventKind::PrivilegedSoftwareException
            | EventKind::SoftwareException => Ok(()),
        }
    }
}

fn check_canonical(field: &'static str, address: u64) -> Result<(), Invalid> {
    let shift = 64 - LINEAR_ADDRESS_BITS;
    let extended = ((address << shift) as i64 >> shift) as u64;
    rule(address == extended, field, "not a canonical address")
}

/// G says how the descriptor counts, the limit is in bytes: they must agree.
fn check_granularity(field: &'static str, segment: Segment) -> Result<(), Invalid> {
    let pages = segment.attributes & Segment::GRANULARITY != 0;
    rule(
        if pages {
            segment.limit & 0xfff == 0xfff
        } else {
            segment.limit >> 20 == 0
        },
        field,
        "the limit does not agree with G",
    )
}
