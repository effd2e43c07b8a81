//! One function an instruction, and what kind of machine we are on.

use core::arch::asm;
use core::arch::x86_64::{__cpuid_count, _rdtsc, CpuidResult};

/// CPUID with a subleaf.
pub(crate) fn cpuid(leaf: u32, subleaf: u32) -> CpuidResult {
    __cpuid_count(leaf, subleaf)
}

/// Time-stamp counter, ordered after everything before it and before everything after it.
pub(crate) fn tsc() -> u64 {
    // SAFETY: LFENCE and RDTSC touch no memory; RDTSC is allowed at CPL 0 whatever CR4.TSD says.
    unsafe {
        asm!("lfence", options(nostack, preserves_flags));
        let now = _rdtsc();
        asm!("lfence", options(nostack, preserves_flags));
        now
    }
}

macro_rules! port_access {
    ($out:ident, $in:ident, $type:ty, $register:tt) => {
        /// OUT at this width.
        #[inline(always)]
        pub(crate) fn $out(port: u16, value: $type) {
            // SAFETY: this guest is alone on its virtual machine and owns every port; OUT touches no memory
            // (no test programs a DMA controller).
            unsafe { asm!(concat!("out dx, ", $register), in("dx") port, in($register) value, options(nomem, nostack, preserves_flags)) }
        }
        /// IN at this width.
        #[inline(always)]
        pub(crate) fn $in(port: u16) -> $type {
            let value: $type;
            // SAFETY: as for OUT.
            unsafe { asm!(concat!("in ", $register, ", dx"), in("dx") port, out($register) value, options(nomem, nostack, preserves_flags)) }
            value
        }
    };
}
port_access!(out8, in8, u8, "al");
port_access!(out16, in16, u16, "ax");
port_access!(out32, in32, u32, "eax");

/// RDMSR of a register known to exist; where it may not, `exec::read_msr`.
#[inline(always)]
pub(crate) fn read_msr(msr: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: RDMSR touches no memory; a #GP ends in trap.rs's report.
    unsafe {
        asm!("rdmsr", in("ecx") msr, out("eax") low, out("edx") high, options(nomem, nostack, preserves_flags))
    }
    u64::from(high) << 32 | u64::from(low)
}

/// WRMSR.
///
/// # Safety
/// The new value must not change how code or memory of this program works.
#[inline(always)]
pub(crate) unsafe fn write_msr(msr: u32, value: u64) {
    // SAFETY: the caller answers for the effect. Not `nomem`: APIC registers make interrupts happen.
    unsafe {
        asm!("wrmsr", in("ecx") msr, in("eax") value as u32, in("edx") (value >> 32) as u32, options(nostack, preserves_flags))
    }
}

/// Enables interrupts and halts; returns after one interrupt's handler, interrupts off again.
pub(crate) fn halt_once() {
    // SAFETY: the IDT is loaded before any test runs, and its handlers preserve every register.
    unsafe { asm!("sti", "hlt", "cli", options(nostack)) }
}

/// Opens the interrupt window for a few instructions, then closes it.
pub(crate) fn open_interrupt_window() {
    // SAFETY: as for `halt_once`.
    unsafe { asm!("sti", "nop", "nop", "cli", options(nostack)) }
}

/// Stops for ever with interrupts off.
pub(crate) fn stop() -> ! {
    loop {
        // SAFETY: halting is the end; nothing is expected to go on.
        unsafe { asm!("cli", "hlt", options(nomem, nostack)) }
    }
}

macro_rules! control_register {
    ($read:ident, $write:ident, $name:literal) => {
        /// Reads this control register.
        pub(crate) fn $read() -> u64 {
            let value: u64;
            // SAFETY: reading a control register at CPL 0 has no side effect.
            unsafe { asm!(concat!("mov {}, ", $name), out(reg) value, options(nomem, nostack, preserves_flags)) }
            value
        }
        /// Writes this control register.
        ///
        /// # Safety
        /// The new value must keep the code, stack and tables in use valid.
        pub(crate) unsafe fn $write(value: u64) {
            // SAFETY: the caller answers for the value.
            unsafe { asm!(concat!("mov ", $name, ", {}"), in(reg) value, options(nostack, preserves_flags)) }
        }
    };
}
control_register!(cr0, write_cr0, "cr0");
control_register!(cr3, write_cr3, "cr3");
control_register!(cr4, write_cr4, "cr4");
control_register!(cr8, write_cr8, "cr8");
control_register!(dr6, write_dr6, "dr6");
control_register!(dr7, write_dr7, "dr7");
control_register!(dr0, write_dr0, "dr0");

/// Page-fault address.
pub(crate) fn cr2() -> u64 {
    let value: u64;
    // SAFETY: reading CR2 has no side effect.
    unsafe { asm!("mov {}, cr2", out(reg) value, options(nomem, nostack, preserves_flags)) }
    value
}

/// XCR0, where CR4.OSXSAVE is set.
pub(crate) fn xcr0() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: XGETBV of register 0 is valid once CR4.OSXSAVE is set; else the #UD is reported.
    unsafe {
        asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") high, options(nomem, nostack, preserves_flags))
    }
    u64::from(high) << 32 | u64::from(low)
}

/// CR4.OSXSAVE.
pub(crate) const CR4_OSXSAVE: u64 = 1 << 18;
/// XCR0 bits used here: x87, SSE, AVX, and AVX-512's three.
const XCR0_WANTED: u64 = 0b1110_0111;
/// Register number of EFER, and its no-execute enable.
pub(crate) const MSR_EFER: u32 = 0xc000_0080;
const EFER_NXE: u64 = 1 << 11;

/// Enables what the CPU offers: XSAVE with AVX state, and no-execute pages.
pub(crate) fn enable_features() {
    if cpuid(1, 0).ecx & 1 << 26 != 0 {
        let leaf = cpuid(0xd, 0);
        let xcr0 = (u64::from(leaf.edx) << 32 | u64::from(leaf.eax)) & XCR0_WANTED;
        // SAFETY: OSXSAVE and XCR0 only open vector state, which this soft-float program does not use by itself.
        unsafe {
            write_cr4(cr4() | CR4_OSXSAVE);
            asm!("xsetbv", in("ecx") 0, in("eax") xcr0 as u32, in("edx") (xcr0 >> 32) as u32, options(nostack, preserves_flags));
        }
    }
    if cpuid(0x8000_0001, 0).edx & 1 << 20 != 0 {
        // SAFETY: no page table entry of entry.rs has its no-execute bit set, so nothing changes for our code.
        unsafe { write_msr(MSR_EFER, read_msr(MSR_EFER) | EFER_NXE) }
    }
}

/// What runs us, by CPUID leaf 0x4000_0000.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Host {
    /// Our hypervisor: everything it promises is checked.
    Godwit,
    /// QEMU's TCG without a hypervisor: it ignores writes of reserved MSR bits and reads unknown MSRs as 0.
    Tcg,
    /// Anything else: taken for exact hardware.
    Hardware,
}

/// Whether the CPU below makes every check the manuals ask for. TCG does not, bare or under Godwit with SVM,
/// where it cannot be told from a real AMD CPU: so only what Godwit itself decides is checked there.
pub(crate) fn is_cpu_exact() -> bool {
    match host() {
        Host::Tcg => false,
        Host::Godwit => vendor() == Vendor::Intel,
        Host::Hardware => true,
    }
}

/// Twelve bytes of three registers.
pub(crate) fn signature(registers: [u32; 3]) -> [u8; 12] {
    let mut text = [0; 12];
    for (chunk, register) in text.chunks_exact_mut(4).zip(registers) {
        chunk.copy_from_slice(&register.to_le_bytes());
    }
    text
}

/// Finds out what runs us.
pub(crate) fn host() -> Host {
    if cpuid(1, 0).ecx & 1 << 31 == 0 {
        return Host::Hardware;
    }
    let leaf = cpuid(0x4000_0000, 0);
    match &signature([leaf.ebx, leaf.ecx, leaf.edx]) {
        b"GodwitGodwit" => Host::Godwit,
        b"TCGTCGTCGTCG" => Host::Tcg,
        _ => Host::Hardware,
    }
}

/// CPU vendor by CPUID leaf 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Vendor {
    Intel,
    Amd,
    Other,
}

/// Finds the vendor.
pub(crate) fn vendor() -> Vendor {
    let leaf = cpuid(0, 0);
    match &signature([leaf.ebx, leaf.edx, leaf.ecx]) {
        b"GenuineIntel" => Vendor::Intel,
        b"AuthenticAMD" | b"HygonGenuine" => Vendor::Amd,
        _ => Vendor::Other,
    }
}

/// A small random number generator (xorshift64*), so that a run repeats from its seed.
pub(crate) struct Random(u64);

impl Random {
    /// Any seed will do; nearby seeds give unrelated streams.
    pub(crate) fn new(seed: u64) -> Self {
        let mixed = (seed ^ 0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        Self(if mixed == 0 { 1 } else { mixed })
    }

    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}
