//! What a record is about: the number in its header.

use core::fmt;

macro_rules! kinds {
    ($( $(#[doc = $doc:literal])+ $value:literal $NAME:ident $name:literal; )+) => {
        /// The kind of a record. A newtype, so that a kind of a later version survives and prints.
        ///
        /// Kinds below [`Kind::OPTIONAL`] must be understood by whoever restores a guest; those
        /// from it on may be skipped. A number is never given to something else.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct Kind(pub u16);

        impl Kind {
            /// The first kind that may be skipped.
            pub const OPTIONAL: u16 = 0x8000;

            $( $(#[doc = $doc])+ pub const $NAME: Kind = Kind($value); )+

            /// Every kind of this version: number, name, meaning.
            pub const ALL: &[(Kind, &str, &str)] = &[
                $( (Kind($value), $name, concat!($($doc),+)), )+
            ];
        }
    };
}

kinds! {
    /// A vCPU's registers: `VcpuState`.
    0x0001 VCPU_STATE "vcpu-state";
    /// A vCPU's extended (FPU and vector) state: `XsaveState`.
    0x0002 XSAVE_STATE "xsave-state";
    /// A vCPU's local APIC with its timer.
    0x0003 LAPIC "lapic";
    /// The pair of 8259 interrupt controllers.
    0x0004 PIC "pic";
    /// The ACPI fixed registers and PM timer.
    0x0005 ACPI_PM "acpi-pm";
    /// What the time was and how fast it ran.
    0x0006 PLATFORM_TIME "platform-time";
    /// What a vCPU has besides: `VcpuLocal`.
    0x0007 VCPU_LOCAL "vcpu-local";
    /// The reset control register.
    0x0008 RESET_CONTROL "reset-control";
    /// The I/O APIC.
    0x0009 IOAPIC "ioapic";
    /// The interval timer.
    0x000a PIT "pit";
    /// The real-time clock with its memory.
    0x000b RTC "rtc";
    /// The serial port.
    0x000c UART "uart";
    /// The PCI bus.
    0x000d PCI_BUS "pci-bus";
    /// A PCI function.
    0x000e PCI_FUNCTION "pci-function";
    /// The paravirtual clock.
    0x000f KVMCLOCK "kvmclock";
    /// What a domain's CPUs answer to CPUID: `CpuPolicyState`.
    0x0010 CPU_POLICY "cpu-policy";
    /// A virtio device's common configuration: `VirtioState`.
    0x0040 VIRTIO "virtio";
    /// A virtio block device besides: `VirtioBlockState`.
    0x0041 VIRTIO_BLOCK "virtio-block";
    /// A virtio network device besides: `VirtioNetState`.
    0x0042 VIRTIO_NET "virtio-net";
    /// A virtio balloon besides: `VirtioBalloonState`.
    0x0043 VIRTIO_BALLOON "virtio-balloon";
    /// For tests only; never in a stream.
    0xffff TEST "test";
}

impl Kind {
    /// The name of this kind, or `None` for a number of another version.
    pub fn name(self) -> Option<&'static str> {
        Self::ALL
            .iter()
            .find(|(kind, _, _)| *kind == self)
            .map(|(_, name, _)| *name)
    }

    /// Whether a reader that does not know the kind may skip the record.
    pub const fn optional(self) -> bool {
        self.0 >= Self::OPTIONAL
    }
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "kind {:#06x}", self.0),
        }
    }
}
