//! Inter-processor interrupts: decoding the interrupt command register (SDM 3A 11.6.1, 11.12.9) into a value, and who is meant.

/// Physical destination that means every CPU, in x2APIC width.
pub const BROADCAST: u32 = u32::MAX;

/// Bits of the ICR that software sets; the rest is reserved. The busy bit (12) is ignored, as Intel's CPUs do.
pub(super) const ICR_WRITABLE: u64 = 0xFFFF_FFFF_000C_CFFF;
pub(super) const ICR_BUSY: u64 = 1 << 12;

/// What an IPI does at its destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IpiMode {
    /// Delivers the vector to each CPU addressed.
    Fixed,
    /// Delivers the vector to one CPU of those addressed; the caller chooses.
    LowestPriority,
    /// System-management interrupt. Guests have no SMM here: the caller drops it by name.
    Smi,
    /// Non-maskable interrupt; the vector does not count.
    Nmi,
    /// Resets the CPU to wait for a start-up IPI.
    Init,
    /// Starts a waiting CPU at `vector << 12`.
    Startup,
}

/// The CPUs an IPI goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// The CPU with this APIC ID, or all of them for [`BROADCAST`].
    Physical(u32),
    /// CPUs whose logical destination register matches: 8 bits from an xAPIC, 32 from an x2APIC.
    Logical(u32),
    /// Every CPU.
    AllIncludingSelf,
    /// Every CPU but the sender.
    AllExcludingSelf,
}

/// One interrupt message from a CPU to others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipi {
    /// Who gets it.
    pub destination: Destination,
    /// What it does there.
    pub mode: IpiMode,
    /// Vector, or start page of a start-up IPI.
    pub vector: u8,
}

/// A decoded ICR write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// Reserved delivery mode, or the INIT de-assert that CPUs since the Pentium 4 ignore.
    Nothing,
    /// A fixed interrupt with a vector below 16.
    IllegalVector,
    /// A fixed interrupt to the sender itself.
    ToSelf(u8),
    /// A message to others.
    Send(Ipi),
}

/// Decodes an ICR value. `wide` tells the 32-bit destination of x2APIC mode from the 8 bits (63:56) of xAPIC mode.
pub(super) fn decode(icr: u64, wide: bool) -> Command {
    let vector = icr as u8;
    let mode = match icr >> 8 & 7 {
        0 => IpiMode::Fixed,
        1 => IpiMode::LowestPriority,
        2 => IpiMode::Smi,
        4 => IpiMode::Nmi,
        5 => IpiMode::Init,
        6 => IpiMode::Startup,
        _reserved => return Command::Nothing,
    };
    let (assert, level) = (icr & 1 << 14 != 0, icr & 1 << 15 != 0);
    if mode == IpiMode::Init && level && !assert {
        return Command::Nothing;
    }
    let carries_vector = matches!(mode, IpiMode::Fixed | IpiMode::LowestPriority);
    if carries_vector && vector < 16 {
        return Command::IllegalVector;
    }
    let address = if wide {
        (icr >> 32) as u32
    } else {
        (icr >> 56) as u32
    };
    let destination = match icr >> 18 & 3 {
        0 if icr & 1 << 11 != 0 => Destination::Logical(address),
        0 if !wide && address == 0xFF => Destination::Physical(BROADCAST),
        0 => Destination::Physical(address),
        // Only fixed interrupts can be sent to oneself (SDM table 11-3); other modes are invalid there.
        1 if mode == IpiMode::Fixed => return Command::ToSelf(vector),
        1 => return Command::Nothing,
        2 => Destination::AllIncludingSelf,
        _three => Destination::AllExcludingSelf,
    };
    Command::Send(Ipi {
        destination,
        mode,
        vector,
    })
}
