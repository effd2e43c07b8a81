//! Saved state of the platform: that of its devices.

use super::{Platform, Unclaimed};
use crate::devices::acpi_pm::{AcpiPm, AcpiPmState};
use crate::devices::debug_console::{DebugConsole, DebugConsoleState};
use crate::devices::ioapic::{Ioapic, IoapicState};
use crate::devices::kvmclock::{Kvmclock, KvmclockState};
use crate::devices::pci::{Pci, PciState};
use crate::devices::pic::{Pic, PicState};
use crate::devices::pit::{Pit, PitState};
use crate::devices::reset_port::{ResetPort, ResetPortState};
use crate::devices::rtc::{Rtc, RtcState};
use crate::devices::uart::{Uart, UartState};
use crate::devices::{BadState, TscRate};

/// Saved state of [`Platform`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlatformState {
    /// Interrupt controllers.
    pub pic: PicState,
    /// ACPI fixed hardware.
    pub pm: AcpiPmState,
    /// Reset ports.
    pub reset: ResetPortState,
    /// Debug console with its history.
    pub console: DebugConsoleState,
    /// I/O APIC.
    pub ioapic: IoapicState,
    /// Interval timer.
    pub pit: PitState,
    /// Clock and CMOS memory.
    pub rtc: RtcState,
    /// Serial port with what was sent and what waits.
    pub serial: UartState,
    /// PCI bus.
    pub pci: PciState,
    /// Paravirtual clock.
    pub kvmclock: KvmclockState,
}

impl Platform {
    /// The state to move. Counters of unclaimed accesses stay: they describe this host's log.
    pub fn save(&self) -> PlatformState {
        let Platform {
            rate: _,
            pic,
            pm,
            reset,
            console,
            ioapic,
            pit,
            rtc,
            serial,
            pci,
            kvmclock,
            timers_due_tsc: _,
            // Whoever restores has vCPUs that look at everything anew.
            watched_tsc: _,
            unclaimed: _,
        } = self;
        PlatformState {
            pic: pic.save(),
            pm: pm.save(),
            reset: reset.save(),
            console: console.save(),
            ioapic: ioapic.save(),
            pit: pit.save(),
            rtc: rtc.save(),
            serial: serial.save(),
            pci: pci.save(),
            kvmclock: kvmclock.save(),
        }
    }

    /// The platform with this state, in a domain whose TSC has this rate.
    pub fn restore(state: &PlatformState, rate: TscRate) -> Result<Platform, BadState> {
        let PlatformState {
            pic,
            pm,
            reset,
            console,
            ioapic,
            pit,
            rtc,
            serial,
            pci,
            kvmclock,
        } = state;
        let mut platform = Platform {
            rate,
            pic: Pic::restore(pic)?,
            pm: AcpiPm::restore(pm, rate)?,
            reset: ResetPort::restore(reset)?,
            console: DebugConsole::restore(console)?,
            ioapic: Ioapic::restore(ioapic)?,
            pit: Pit::restore(pit, rate)?,
            rtc: Rtc::restore(rtc, rate)?,
            serial: Uart::restore(serial, rate)?,
            pci: Pci::restore(pci)?,
            kvmclock: Kvmclock::restore(kvmclock, rate)?,
            timers_due_tsc: u64::MAX,
            watched_tsc: u64::MAX,
            unclaimed: Unclaimed::default(),
        };
        platform.note_deadlines();
        Ok(platform)
    }
}
