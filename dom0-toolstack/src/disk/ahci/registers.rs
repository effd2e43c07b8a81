//! Registers of an AHCI controller and of its ports, and the bits in them (Serial ATA AHCI 1.3.1, 3).

// Registers of the controller (3.1).
pub(super) const CAPABILITIES: usize = 0x00;
pub(super) const CONTROL: usize = 0x04;
pub(super) const INTERRUPT_STATUS: usize = 0x08;
pub(super) const PORTS: usize = 0x0c;
pub(super) const CAPABILITIES_2: usize = 0x24;
pub(super) const HANDOFF: usize = 0x28;
pub(super) const CAPABILITY_WIDE: u32 = 1 << 31;
pub(super) const CONTROL_RESET: u32 = 1;
pub(super) const CONTROL_INTERRUPTS: u32 = 1 << 1;
pub(super) const CONTROL_AHCI: u32 = 1 << 31;
pub(super) const HANDOFF_BIOS: u32 = 1;
pub(super) const HANDOFF_OS: u32 = 1 << 1;

/// Registers of a port (3.3).
pub(super) mod port {
    pub(in super::super) const FIRST: usize = 0x100;
    pub(in super::super) const BYTES: usize = 0x80;
    pub(in super::super) const LIST: usize = 0x00;
    pub(in super::super) const RECEIVED: usize = 0x08;
    pub(in super::super) const INTERRUPT_STATUS: usize = 0x10;
    pub(in super::super) const INTERRUPT_ENABLE: usize = 0x14;
    pub(in super::super) const COMMAND: usize = 0x18;
    pub(in super::super) const TASK_FILE: usize = 0x20;
    pub(in super::super) const SIGNATURE: usize = 0x24;
    pub(in super::super) const LINK_STATUS: usize = 0x28;
    pub(in super::super) const LINK_CONTROL: usize = 0x2c;
    pub(in super::super) const LINK_ERROR: usize = 0x30;
    pub(in super::super) const ISSUE: usize = 0x38;
}

// Of a port's command register.
pub(super) const COMMAND_START: u32 = 1;
pub(super) const COMMAND_SPIN_UP: u32 = 1 << 1;
pub(super) const COMMAND_POWER: u32 = 1 << 2;
pub(super) const COMMAND_RECEIVE: u32 = 1 << 4;
pub(super) const COMMAND_RECEIVES: u32 = 1 << 14;
pub(super) const COMMAND_RUNS: u32 = 1 << 15;
pub(super) const COMMAND_ACTIVE: u32 = 1 << 28;
/// Nothing is at the other end of the link (3.3.10, DET).
pub(super) const LINK_NONE: u32 = 0;
/// The link is up.
pub(super) const LINK_UP: u32 = 3;
/// What an ATA disk says after a reset.
pub(super) const SIGNATURE_ATA: u32 = 0x101;
/// Of the interrupt status: task file error, and the port's own (bus, interface) errors.
pub(super) const ERRORS: u32 = 1 << 30 | 1 << 29 | 1 << 28 | 1 << 27 | 1 << 24;
pub(super) const TASK_FILE_ERROR: u32 = 1 << 30;
/// A FIS has come that tells of an end, or something went wrong.
pub(super) const INTERRUPTS: u32 = ERRORS | 0b111;
