//! Which of a passed device's configuration space dom0 may touch.

use godwit_abi::{PciAddress, Refusal, Status};

use crate::platform::pci;

/// Widths and offsets configuration space knows.
pub(super) fn config_access(offset: u16, width: u8) -> Result<(), Refusal> {
    let fits =
        matches!(width, 1 | 2 | 4) && offset.is_multiple_of(u16::from(width)) && offset < 4096;
    if fits {
        Ok(())
    } else {
        Err(Status::BadArgument.into())
    }
}

/// BARs, ROM base, interrupt line, and the MSI and MSI-X capabilities: where a device appears and whom
/// it interrupts is the hypervisor's business.
pub(super) fn owned_by_hypervisor(device: PciAddress, offset: u16, width: u8) -> bool {
    const BARS: core::ops::Range<u16> = 0x10..0x28;
    const ROM: core::ops::Range<u16> = 0x30..0x34;
    const LINE: core::ops::Range<u16> = pci::INTERRUPT_LINE..pci::INTERRUPT_LINE + 1;
    let end = offset + u16::from(width);
    let touches = |range: &core::ops::Range<u16>| offset < range.end && range.start < end;
    let capability =
        |id, bytes| pci::capability(device, id).is_some_and(|at| touches(&(at..at + bytes)));
    touches(&BARS)
        || touches(&ROM)
        || touches(&LINE)
        || capability(pci::CAPABILITY_MSI, 24)
        || capability(pci::CAPABILITY_MSIX, 12)
}
