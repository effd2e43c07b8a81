//! The machine around the CPUs: ACPI tables, interrupt controllers, clocks, PCI, power.

pub(crate) mod acpi;
pub(crate) mod apic;
pub(crate) mod clock;
pub(crate) mod ioapic;
pub(crate) mod pci;
pub(crate) mod power;
pub(crate) mod wall;
