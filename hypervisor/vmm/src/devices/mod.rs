//! Devices of the guest platform, as pure models.
//!
//! A model is a struct with functions: an access goes in, a value comes out. There are no callbacks, no locks and no
//! clock in here; time is an argument, counted in ticks of the domain's TSC ([`TscRate`] says how fast those are), and what
//! the rest of the hypervisor has to do is returned as an effect. So the same code runs in the hypervisor, in host tests and
//! in the simulator.
//!
//! Every model has a saved-state struct of plain fields. `save` destructures the model completely, so that a new field does not
//! compile before its fate is decided; `restore` checks everything, because saved state arrives from a peer.

pub mod acpi_pm;
pub mod debug_console;
pub mod ioapic;
pub mod kvmclock;
pub mod lapic;
pub mod message;
pub mod pci;
pub mod pic;
pub mod pit;
pub mod ports;
pub mod reset_port;
pub mod rtc;
pub mod state;
mod tsc_rate;
pub mod uart;

pub use tsc_rate::TscRate;

/// What a model answers to an access that the architecture forbids; the caller injects it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestFault {
    /// General-protection exception with error code 0.
    Gp,
}

/// Why a saved state was refused. The peer, or whoever stored it, is to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadState {
    /// Device and field, as in the saved-state struct.
    pub field: &'static str,
}

impl BadState {
    /// `Ok` when `valid`, otherwise this field is to blame.
    pub(crate) fn unless(valid: bool, field: &'static str) -> Result<(), BadState> {
        if valid {
            Ok(())
        } else {
            Err(BadState { field })
        }
    }
}

impl core::fmt::Display for BadState {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(
            f,
            "saved device state: {} is not a value the device can have",
            self.field
        )
    }
}
