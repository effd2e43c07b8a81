//! Structures that cross the border between hypervisor and dom0. Little endian, no padding,
//! sizes asserted; text is UTF-8, cut at a character border and filled up with zero bytes.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Checks a layout where it is declared and names its size.
macro_rules! layout {
    ($($(#[$meta:meta])* pub struct $Name:ident = $size:literal { $($(#[$fmeta:meta])* pub $field:ident: $ty:ty,)* })+) => { $(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
        #[repr(C)]
        pub struct $Name { $($(#[$fmeta])* pub $field: $ty,)* }
        const _: () = assert!(size_of::<$Name>() == $size);
        impl $Name {
            /// Size of this structure in bytes.
            pub const SIZE_BYTES: usize = $size;
        }
    )+ };
}
pub(crate) use layout;

/// `StartInfo::magic`.
pub const START_MAGIC: u64 = u64::from_le_bytes(*b"GODWITd0");

/// The instruction that makes a hypercall: `StartInfo::vendor`, `HostInfo::vendor`.
pub const VENDOR_INTEL: u32 = 1;
/// As [`VENDOR_INTEL`], for SVM.
pub const VENDOR_AMD: u32 = 2;

/// `DomainConfig::cpu_policy`: what CPUs of both vendors have, so that the domain can move.
pub const CPU_POLICY_PORTABLE: u32 = 0;
/// `DomainConfig::cpu_policy`: everything of this host.
pub const CPU_POLICY_HOST: u32 = 1;

/// The most modules passed to dom0.
pub const MODULES_MAX: usize = 8;
/// The most BARs of a PCI function.
pub const BARS_MAX: usize = 6;

layout! {
    /// What dom0 finds at its entry: RDI holds the address, RSP a stack of
    /// [`START_STACK_BYTES`], CS:RIP the ELF entry, long mode, interrupts off, identity page
    /// tables over its memory and its devices' BARs (image W^X, everything else RW and NX).
    pub struct StartInfo = 368 {
        /// [`START_MAGIC`].
        pub magic: u64,
        /// The version the hypervisor speaks.
        pub abi_version: u32,
        /// [`VENDOR_INTEL`]: VMCALL, [`VENDOR_AMD`]: VMMCALL.
        pub vendor: u32,
        /// TSC ticks a second.
        pub tsc_hz: u64,
        /// TSC when the hypervisor was entered by the boot loader.
        pub boot_tsc: u64,
        /// First byte of the memory of dom0 (guest-physical = host-physical).
        pub memory_base: u64,
        /// Its length in bytes.
        pub memory_bytes: u64,
        /// First byte of it that nothing uses: dom0's heap.
        pub heap_base: u64,
        /// Length of the heap in bytes.
        pub heap_bytes: u64,
        /// Arguments of the dom0 module, UTF-8.
        pub cmdline_address: u64,
        /// Their length in bytes.
        pub cmdline_bytes: u64,
        /// How many of `modules` are there.
        pub module_count: u32,
        /// 0.
        pub reserved: u32,
        /// The other boot modules, copied into dom0's memory.
        pub modules: [Module; MODULES_MAX],
        /// Nanoseconds of the hypervisor's clock (since boot) at `boot_tsc`; always 0 today.
        pub boot_ns: u64,
        /// How often dom0 was built before, since power-on (0: the first time).
        pub restarts: u64,
        /// First byte of the identity page tables, which dom0 must leave alone.
        pub tables_base: u64,
    }

    /// A boot module.
    pub struct Module = 32 {
        /// Address in dom0's memory.
        pub address: u64,
        /// Length in bytes.
        pub bytes: u64,
        /// Its string (name, then arguments), UTF-8.
        pub string_address: u64,
        /// Length of the string in bytes.
        pub string_bytes: u64,
    }

    /// The host, for `xl info`.
    pub struct HostInfo = 464 {
        /// Interface version.
        pub abi_version: u32,
        /// [`VENDOR_INTEL`] or [`VENDOR_AMD`].
        pub vendor: u32,
        /// CPUs that run vCPUs.
        pub cpus: u32,
        /// CPUs the firmware lists.
        pub cpus_present: u32,
        /// All memory of the machine, bytes.
        pub memory_bytes: u64,
        /// Memory not given to anybody, bytes.
        pub free_bytes: u64,
        /// Memory the hypervisor uses itself, bytes.
        pub hypervisor_bytes: u64,
        /// TSC ticks a second.
        pub tsc_hz: u64,
        /// TSC when the boot loader entered the hypervisor.
        pub boot_tsc: u64,
        /// TSC when dom0 was entered.
        pub dom0_entry_tsc: u64,
        /// [`HostFeatures`] bits.
        pub features: u64,
        /// Family, model, stepping: CPUID leaf 1 EAX.
        pub cpu_signature: u32,
        /// Domains there are.
        pub domains: u32,
        /// CPU name, CPUID leaves 8000_0002 to 8000_0004.
        pub cpu_name: [u8; 48],
        /// Hypervisor version and build.
        pub version: [u8; 64],
        /// Hypervisor command line.
        pub cmdline: [u8; 256],
        /// Exits refused by name because nothing handles them (unknown MSR, port, call...), since boot.
        pub unhandled: u64,
        /// Hypervisor image in memory, bytes.
        pub image_bytes: u64,
    }

    /// One CPU of the host.
    pub struct CpuInfo = 48 {
        /// Its local APIC id.
        pub apic_id: u32,
        /// 1: it runs vCPUs.
        pub online: u32,
        /// Nanoseconds it was idle since boot.
        pub idle_ns: u64,
        /// Exits it has handled.
        pub exits: u64,
        /// Nanoseconds since boot, when this was read.
        pub now_ns: u64,
        /// Raw id of the domain it runs, all ones when idle.
        pub domain: u32,
        /// vCPU of that domain.
        pub vcpu: u32,
        /// Interrupts taken.
        pub interrupts: u64,
    }

    /// What a new domain is to be.
    pub struct DomainConfig = 120 {
        /// Name, unique on the host: 1 to 63 bytes, UTF-8, no control characters.
        pub name: [u8; 64],
        /// Identity that stays when the domain moves.
        pub uuid: [u8; 16],
        /// Most memory it may have, in pages of 4 KiB.
        pub memory_pages_max: u64,
        /// vCPUs, 1 to 32.
        pub vcpus: u32,
        /// Scheduling weight, 1 to 65535 (256 is usual).
        pub weight: u32,
        /// Cap in percent of one CPU, 0 for none.
        pub cap_percent: u32,
        /// 0.
        pub flags: u32,
        /// [`CPU_POLICY_PORTABLE`] or [`CPU_POLICY_HOST`].
        pub cpu_policy: u32,
        /// 0.
        pub reserved_word: u32,
        /// 0.
        pub reserved: u64,
    }

    /// A domain, for `xl list`.
    pub struct DomainInfo = 184 {
        /// Raw id.
        pub domain: u32,
        /// [`DomainState`] as a number.
        pub state: u32,
        /// [`ShutdownReason`] as a number, when shut down or crashed.
        pub reason: u32,
        /// vCPUs.
        pub vcpus: u32,
        /// Name.
        pub name: [u8; 64],
        /// Identity.
        pub uuid: [u8; 16],
        /// Memory it has, pages of 4 KiB.
        pub memory_pages: u64,
        /// Most memory it may have, pages.
        pub memory_pages_max: u64,
        /// CPU time used by all its vCPUs, nanoseconds.
        pub cpu_ns: u64,
        /// Exits of all its vCPUs.
        pub exits: u64,
        /// Pauses not taken back.
        pub pauses: u32,
        /// Scheduling weight.
        pub weight: u32,
        /// Cap in percent of one CPU.
        pub cap_percent: u32,
        /// vCPUs running on a CPU right now.
        pub running: u32,
        /// vCPUs waiting for an event or interrupt.
        pub blocked: u32,
        /// Host pages used for its nested tables.
        pub table_pages: u32,
        /// What it was refused since it started (unknown MSRs, ports, calls).
        pub refused: u64,
        /// First 8 bytes of detail of a crash: guest-physical address or RIP.
        pub crash_detail: u64,
        /// Absolute offset of the end of its debug console.
        pub console_end: u64,
        /// Hypervisor memory used for this domain beyond its own pages, bytes.
        pub overhead_bytes: u64,
    }

    /// A vCPU, for `xl vcpu-list`.
    pub struct VcpuInfo = 48 {
        /// [`VcpuRunState`] as a number.
        pub state: u32,
        /// The CPU it runs or ran on, all ones for never.
        pub cpu: u32,
        /// CPU time, nanoseconds.
        pub cpu_ns: u64,
        /// Exits.
        pub exits: u64,
        /// CPUs it may run on, a bit each.
        pub affinity: u64,
        /// RIP at its last exit.
        pub rip: u64,
        /// 0.
        pub reserved: u64,
    }

    /// A PCI function passed to dom0.
    pub struct PciDevice = 120 {
        /// [`crate::PciAddress`] raw.
        pub address: u32,
        /// Vendor id.
        pub vendor: u16,
        /// Device id.
        pub device: u16,
        /// Class (23:16), subclass (15:8), interface (7:0).
        pub class: u32,
        /// Subsystem vendor (15:0) and id (31:16).
        pub subsystem: u32,
        /// Interrupts it offers, [`PCI_LINE`], [`PCI_MSI`], [`PCI_MSIX`].
        pub interrupts: u32,
        /// Entries of its MSI-X table.
        pub msix_entries: u32,
        /// Its BARs; an unused one has 0 bytes.
        pub bars: [Bar; BARS_MAX],
    }

    /// A base address register.
    pub struct Bar = 16 {
        /// Physical address, or port number.
        pub address: u64,
        /// Length in bytes, and [`BAR_PORT`] / [`BAR_PREFETCHABLE`] in the upper bits.
        pub length: u64,
    }
}

/// `Bar::length`: the BAR is in I/O space.
pub const BAR_PORT: u64 = 1 << 63;
/// `Bar::length`: prefetchable memory.
pub const BAR_PREFETCHABLE: u64 = 1 << 62;
/// `PciDevice::interrupts`: INTx.
pub const PCI_LINE: u32 = 1;
/// `PciDevice::interrupts`: MSI.
pub const PCI_MSI: u32 = 2;
/// `PciDevice::interrupts`: MSI-X.
pub const PCI_MSIX: u32 = 4;
/// Bytes of stack that dom0 starts on; below it is a page that is not mapped.
pub const START_STACK_BYTES: u64 = 256 << 10;

impl Bar {
    /// Length in bytes without the flags.
    pub const fn bytes(&self) -> u64 {
        self.length & !(BAR_PORT | BAR_PREFETCHABLE)
    }

    /// Whether it is in I/O space.
    pub const fn is_port(&self) -> bool {
        self.length & BAR_PORT != 0
    }
}

bitflags::bitflags! {
    /// `HostInfo::features`: what the virtualization hardware offers and Godwit uses.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct HostFeatures: u64 {
        /// Nested paging (EPT or NPT).
        const NESTED_PAGING = 1 << 0;
        /// Address space tags (VPID or ASID).
        const TAGGED_TLB = 1 << 1;
        /// Real mode runs unmodified.
        const UNRESTRICTED = 1 << 2;
        /// Page modification logging.
        const PML = 1 << 3;
        /// Hardware accessed and dirty bits in nested tables.
        const NESTED_DIRTY = 1 << 4;
        /// VMX preemption timer.
        const PREEMPTION_TIMER = 1 << 5;
        /// TSC scaling.
        const TSC_SCALING = 1 << 6;
        /// Nested pages of 2 MiB.
        const NESTED_2M = 1 << 7;
        /// Nested pages of 1 GiB.
        const NESTED_1G = 1 << 8;
        /// x2APIC in use on the host.
        const X2APIC = 1 << 9;
        /// Next RIP saved on exit (SVM).
        const NEXT_RIP = 1 << 10;
        /// An IOMMU confines dom0's devices.
        const IOMMU = 1 << 11;
        /// Virtual NMIs.
        const VIRTUAL_NMI = 1 << 12;
    }
}

/// Numbers with names: what crosses the border as `u32` and is shown to people.
macro_rules! names {
    ($($(#[$meta:meta])* pub enum $Name:ident { $($(#[$vmeta:meta])* $Variant:ident = $value:literal $text:literal,)+ })+) => { $(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub enum $Name { $($(#[$vmeta])* $Variant = $value,)+ }

        impl $Name {
            /// All of them.
            pub const ALL: &[$Name] = &[$($Name::$Variant),+];

            /// From the number, `None` for one of another version.
            pub fn from_number(number: u32) -> Option<Self> {
                Self::ALL.iter().copied().find(|value| *value as u32 == number)
            }

            /// In words.
            pub fn text(self) -> &'static str {
                match self { $($Name::$Variant => $text,)+ }
            }
        }
    )+ };
}

names! {
    /// `DomainInfo::state`.
    pub enum DomainState {
        /// Made, not yet started.
        Building = 0 "building",
        /// May run.
        Running = 1 "running",
        /// Paused.
        Paused = 2 "paused",
        /// Ended by itself.
        Shutdown = 3 "shutdown",
        /// Ended by a fault.
        Crashed = 4 "crashed",
        /// Being taken apart.
        Dying = 5 "dying",
    }
    /// `DomainInfo::reason`.
    pub enum ShutdownReason {
        /// It has not ended.
        None = 0 "none",
        /// Switched itself off.
        PowerOff = 1 "poweroff",
        /// Asked for a reset.
        Reboot = 2 "reboot",
        /// Triple fault.
        TripleFault = 3 "triple fault",
        /// Touched memory that is not there; `crash_detail` is the guest-physical address.
        BadMemory = 4 "access to memory that is not there",
        /// The CPU refused to enter it; `crash_detail` is the RIP.
        EntryFailed = 5 "VM entry failed",
        /// An exit nothing handles; `crash_detail` is the exit's number.
        UnknownExit = 6 "unknown exit",
        /// An instruction that could not be fetched or decoded; `crash_detail` is the RIP.
        BadInstruction = 7 "undecodable instruction",
        /// A fault of the control domain itself.
        Fault = 8 "fault",
    }
    /// `VcpuInfo::state`.
    pub enum VcpuRunState {
        /// Never started (waits for its start-up IPI).
        Offline = 0 "---",
        /// On a CPU.
        Running = 1 "r--",
        /// Could run.
        Runnable = 2 "---",
        /// Waits for an event or interrupt.
        Blocked = 3 "-b-",
        /// Its domain is paused.
        Paused = 4 "--p",
        /// Its domain has ended.
        Ended = 5 "--e",
    }
}

/// Text of a fixed field: up to the first zero byte, and only as far as it is UTF-8.
pub fn text(field: &[u8]) -> &str {
    let end = field
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(field.len());
    match core::str::from_utf8(&field[..end]) {
        Ok(text) => text,
        Err(error) => core::str::from_utf8(&field[..error.valid_up_to()]).unwrap_or(""),
    }
}

/// A fixed field from text, cut at a character border.
pub fn field<const N: usize>(text: &str) -> [u8; N] {
    let mut end = text.len().min(N);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let mut bytes = [0; N];
    bytes[..end].copy_from_slice(&text.as_bytes()[..end]);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_cut_at_character_borders_and_read_back() {
        assert_eq!(text(&field::<4>("abcdef")), "abcd");
        assert_eq!(text(&field::<4>("abcé")), "abc");
        assert_eq!(text(&field::<8>("abc")), "abc");
        assert_eq!(text(&[b'a', 0xff, b'b']), "a");
    }

    #[test]
    fn numbers_of_another_version_are_not_guessed() {
        assert_eq!(DomainState::from_number(2), Some(DomainState::Paused));
        assert_eq!(DomainState::from_number(77), None);
    }
}
