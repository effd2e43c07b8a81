//! The tables that describe fixed hardware: RSDP, FACS, FADT, MCFG.

use super::{OEM_ID, PCI_CONFIGURATION_START, SCI_GSI, checksum};
use alloc::vec::Vec;

/// Length of the RSDP.
pub(super) const RSDP_BYTES: usize = 36;
/// What its first checksum covers.
const RSDP_BYTES_1_0: usize = 20;

/// The RSDP, revision 2 (section 5.2.5.3). There is no RSDT.
pub(super) fn rsdp(xsdt: u64) -> [u8; RSDP_BYTES] {
    let mut rsdp = [0; RSDP_BYTES];
    rsdp[..8].copy_from_slice(b"RSD PTR ");
    rsdp[9..15].copy_from_slice(OEM_ID);
    rsdp[15] = 2;
    rsdp[20..24].copy_from_slice(&(RSDP_BYTES as u32).to_le_bytes());
    rsdp[24..32].copy_from_slice(&xsdt.to_le_bytes());
    rsdp[8] = checksum(&rsdp[..RSDP_BYTES_1_0]);
    rsdp[32] = checksum(&rsdp);
    rsdp
}

/// The FACS, version 2 (section 5.2.10): a lock nobody contends, a waking vector nobody calls.
pub(super) fn facs() -> [u8; 64] {
    let mut facs = [0; 64];
    facs[..4].copy_from_slice(b"FACS");
    facs[4..8].copy_from_slice(&64u32.to_le_bytes());
    facs[32] = 2;
    facs
}

/// PCI configuration space of segment 0, bus 0 (PCI Firmware 3.3 section 4.1.2).
pub(super) fn mcfg_body() -> Vec<u8> {
    let mut body = alloc::vec![0; 8];
    body.extend(PCI_CONFIGURATION_START.to_le_bytes());
    // Segment, first bus, last bus, reserved.
    body.extend([0; 8]);
    body
}

// The hypervisor's power-management block: one row of ports.
const PM1_EVENT_PORT: u16 = 0x600;
const PM1_EVENT_BYTES: u8 = 4;
const PM1_CONTROL_PORT: u16 = 0x604;
const PM1_CONTROL_BYTES: u8 = 2;
const PM_TIMER_PORT: u16 = 0x608;
const PM_TIMER_BYTES: u8 = 4;
/// First port of the block, and its length.
pub(super) const PM_PORTS: (u16, u8) = (PM1_EVENT_PORT, 12);

const RESET_PORT: u16 = 0xcf9;
/// Hard reset of the CPU.
const RESET_VALUE: u8 = 0x06;

/// Length of the FADT without its header.
const FADT_BODY_BYTES: usize = 276 - super::HEADER_BYTES;
/// ACPI 6.5.
const FADT_MINOR_VERSION: u8 = 5;
/// "Enterprise server".
const PROFILE: u8 = 4;
/// C2 and C3 are not there: latencies above 100 and 1000 microseconds.
const NO_C2_LATENCY: u16 = 0xfff;
const NO_C3_LATENCY: u16 = 0xfff;

/// IAPC_BOOT_ARCH (table 5.11): there are ISA devices (the UART); no 8042 (bit 1 clear), no VGA,
/// MSI works (bit 3 clear), no ASPM to control, a CMOS RTC (bit 5 clear).
const BOOT_ARCHITECTURE: u16 = 1 << 0 | 1 << 2 | 1 << 4;

/// Flags (table 5.10). Clear: PWR_BUTTON (the power button is fixed hardware), TMR_VAL_EXT (the
/// timer has 24 bits), HW_REDUCED_ACPI.
const FLAGS: u32 = WBINVD | PROC_C1 | SLP_BUTTON | FIX_RTC | RESET_REG_SUP;
const WBINVD: u32 = 1 << 0;
const PROC_C1: u32 = 1 << 2;
/// There is no sleep button in fixed hardware; nor, in the DSDT, any other.
const SLP_BUTTON: u32 = 1 << 5;
/// The RTC's alarm does not wake the machine.
const FIX_RTC: u32 = 1 << 6;
const RESET_REG_SUP: u32 = 1 << 10;

/// The FADT, revision 6 (section 5.2.9), without its header. Offsets below are those of the table.
pub(super) fn fadt_body(facs: u64, dsdt: u64) -> [u8; FADT_BODY_BYTES] {
    let mut body = [0; FADT_BODY_BYTES];
    let mut put = |at: usize, bytes: &[u8]| {
        let at = at - super::HEADER_BYTES;
        body[at..at + bytes.len()].copy_from_slice(bytes);
    };
    // The FACS by its 32-bit address only: giving both would be giving two tables (section 5.2.9).
    put(36, &(facs as u32).to_le_bytes());
    put(40, &(dsdt as u32).to_le_bytes());
    put(45, &[PROFILE]);
    put(46, &u16::from(SCI_GSI).to_le_bytes());
    put(56, &u32::from(PM1_EVENT_PORT).to_le_bytes());
    put(64, &u32::from(PM1_CONTROL_PORT).to_le_bytes());
    put(76, &u32::from(PM_TIMER_PORT).to_le_bytes());
    put(88, &[PM1_EVENT_BYTES, PM1_CONTROL_BYTES, 0, PM_TIMER_BYTES]);
    put(96, &NO_C2_LATENCY.to_le_bytes());
    put(98, &NO_C3_LATENCY.to_le_bytes());
    put(109, &BOOT_ARCHITECTURE.to_le_bytes());
    put(112, &FLAGS.to_le_bytes());
    put(116, &port(RESET_PORT, 1, Access::Byte));
    put(128, &[RESET_VALUE]);
    put(131, &[FADT_MINOR_VERSION]);
    put(140, &dsdt.to_le_bytes());
    put(148, &port(PM1_EVENT_PORT, PM1_EVENT_BYTES, Access::Word));
    put(
        172,
        &port(PM1_CONTROL_PORT, PM1_CONTROL_BYTES, Access::Word),
    );
    put(208, &port(PM_TIMER_PORT, PM_TIMER_BYTES, Access::Dword));
    put(268, b"GODWIT\0\0");
    body
}

/// Width of an access, as in a generic address.
enum Access {
    Byte = 1,
    Word = 2,
    Dword = 3,
}

/// A generic address (section 5.2.3.2) of `bytes` ports.
fn port(first: u16, bytes: u8, access: Access) -> [u8; 12] {
    const SYSTEM_IO: u8 = 1;
    let mut address = [0; 12];
    address[..4].copy_from_slice(&[SYSTEM_IO, bytes * 8, 0, access as u8]);
    address[4..6].copy_from_slice(&first.to_le_bytes());
    address
}
