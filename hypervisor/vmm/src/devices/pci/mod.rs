//! PCI bus 0: configuration mechanism 1 (ports 0xCF8, 0xCFC), memory-mapped configuration, address decoding, MSI, MSI-X and INTx.
//!
//! 32 slots of one function each. Slot 0 holds the host bridge; the others hold what the domain is given, whose registers are served
//! elsewhere: [`Pci::decode_memory`] and [`Pci::decode_io`] say who claims an address. Configuration space and the MSI-X tables
//! are served here. A function that is not there reads as all ones.
//!
//! The host bridge is 1b36:0008, the identity that Red Hat gave QEMU's generic bridge: systems know it, drive it by the class alone, and
//! apply no chipset's errata to it.

mod abi;
mod definition;
mod function;
mod msi;
mod msix;
#[cfg(test)]
mod tests;

pub use definition::{BAR_COUNT, BadFunction, Bar, Capability, Doorbells, FunctionDefinition};
pub use function::{Function, FunctionState, Signal, VECTOR_INTX};
pub use msi::MSI_MESSAGES_MAX;
pub use msix::{MSIX_VECTORS_MAX, MsixEntry, MsixState};

use super::BadState;
use super::message::Message;
use super::ports::Width;
use alloc::boxed::Box;
use alloc::vec::Vec;

/// Configuration address, 32 bits wide.
pub const CONFIG_ADDRESS: u16 = 0xCF8;
/// First port of the configuration data.
pub const CONFIG_DATA_FIRST: u16 = 0xCFC;
/// Last port of the configuration data.
pub const CONFIG_DATA_LAST: u16 = 0xCFF;
/// Guest-physical address of the memory-mapped configuration space; the MCFG table and the memory map tell of it.
pub const ECAM_BASE: u64 = 0xE000_0000;
/// Its size: one bus.
pub const ECAM_BYTES: u64 = 1 << 20;
/// Slots of the bus.
pub const SLOTS: usize = 32;
/// Interrupt lines that slots share: INTA to INTD.
pub const INTX_LINES: usize = 4;

const ADDRESS_ENABLE: u32 = 1 << 31;
/// Enable, bus, device, function, register.
const ADDRESS_WRITABLE: u32 = 0x80FF_FFFC;

/// The host bridge's slot.
const BRIDGE_SLOT: usize = 0;
const BRIDGE: FunctionDefinition = FunctionDefinition {
    vendor: 0x1B36,
    device: 0x0008,
    revision: 0,
    class: 0x06_00_00,
    subsystem_vendor: 0x1B36,
    subsystem: 0x0008,
    bars: [Bar::None; BAR_COUNT],
    interrupt_pin: 0,
    capabilities: Vec::new(),
    msix: None,
    msi_messages: 0,
    doorbells: None,
};

/// Where an address leads: a BAR of the function in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Slot, below [`SLOTS`].
    pub slot: u8,
    /// BAR, of a 64-bit one the lower.
    pub bar: u8,
    /// Bytes from its start.
    pub offset: u64,
}

/// Who serves an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// The function's device answers.
    Device(Target),
    /// It is a doorbell, when written.
    Doorbell {
        /// What it is when read.
        target: Target,
        /// Its number.
        doorbell: u8,
    },
}

impl Route {
    /// Where it leads, doorbell or not.
    pub fn target(self) -> Target {
        match self {
            Route::Device(target) | Route::Doorbell { target, .. } => target,
        }
    }
}

/// A range of addresses that a BAR claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Window {
    start: u64,
    bytes: u64,
    slot: u8,
    bar: u8,
}

/// The bus of one domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pci {
    address: u32,
    functions: [Option<Box<Function>>; SLOTS],
    /// Slots with an MSI-X message that was pending and may be sent. Follows from their tables.
    sendable: u32,
    /// What functions claim of ports and of memory, by slot. Follows from their configuration.
    ports: Vec<Window>,
    memory: Vec<Window>,
}

/// Saved state of [`Pci`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PciState {
    /// Configuration address.
    pub address: u32,
    /// Functions, with their slots.
    pub functions: Vec<(u8, FunctionState)>,
}

impl Default for Pci {
    fn default() -> Pci {
        Pci::new()
    }
}

impl Pci {
    /// A bus with its host bridge.
    pub fn new() -> Pci {
        let mut functions = [const { None }; SLOTS];
        functions[BRIDGE_SLOT] = Some(Box::new(Function::bridge(BRIDGE)));
        Pci {
            address: 0,
            functions,
            sendable: 0,
            ports: Vec::new(),
            memory: Vec::new(),
        }
    }

    /// Puts a function into an empty slot, as before power-up: not for a running guest.
    pub fn insert(&mut self, slot: u8, definition: FunctionDefinition) -> Result<(), BadFunction> {
        let place = self
            .functions
            .get_mut(usize::from(slot))
            .filter(|place| place.is_none())
            .ok_or(BadFunction::SlotTaken)?;
        *place = Some(Box::new(Function::new(definition)?));
        Ok(())
    }

    /// A slot that [`Pci::insert`] takes.
    pub fn free_slot(&self) -> Option<u8> {
        let free = self.functions.iter().position(Option::is_none)?;
        Some(free as u8)
    }

    /// Takes a function away; not the host bridge. `false`: none is there.
    pub fn remove(&mut self, slot: u8) -> bool {
        let place = self.functions.get_mut(usize::from(slot));
        let removed = usize::from(slot) != BRIDGE_SLOT && place.is_some_and(|f| f.take().is_some());
        if removed {
            self.sendable &= !(1 << slot);
            self.note_windows();
        }
        removed
    }

    /// The function in a slot.
    pub fn function(&self, slot: u8) -> Option<&Function> {
        self.functions.get(usize::from(slot))?.as_deref()
    }

    /// The domain resets: functions stay, their configuration goes back to power-up.
    pub fn reset(&mut self) {
        self.address = 0;
        self.sendable = 0;
        for function in self.functions.iter_mut().flatten() {
            function.reset();
        }
        self.note_windows();
    }

    /// Reads the configuration address; it answers 32-bit accesses only.
    pub fn config_address(&self) -> u32 {
        self.address
    }

    /// Writes the configuration address.
    pub fn set_config_address(&mut self, value: u32) {
        self.address = value & ADDRESS_WRITABLE;
    }

    /// Bus address and register of the byte at `port`, a configuration data port, if mechanism 1 is enabled.
    fn selected(&self, port: u16) -> Option<u64> {
        (self.address & ADDRESS_ENABLE != 0).then(|| {
            let (function, register) = (self.address >> 8 & 0xFFFF, self.address & 0xFC);
            u64::from(function) << 12 | u64::from(register) | u64::from(port & 3)
        })
    }

    /// Reads the byte at `port`, a configuration data port.
    pub fn read_config_port(&self, port: u16) -> u8 {
        self.selected(port)
            .map_or(0xFF, |address| self.read_config(address, Width::Byte) as u8)
    }

    /// Writes the byte at `port`, a configuration data port.
    pub fn write_config_port(&mut self, port: u16, value: u8) {
        if let Some(address) = self.selected(port) {
            self.write_config(address, Width::Byte, value.into());
        }
    }

    /// Slot and register of a configuration address: bus, device, function and register in bits 27:20, 19:15, 14:12 and 11:0.
    fn locate(address: u64) -> Option<(usize, usize)> {
        let on_bus_0_function_0 = address >> 20 == 0 && address >> 12 & 7 == 0;
        on_bus_0_function_0.then_some(((address >> 15) as usize, (address & 0xFFF) as usize))
    }

    /// Reads configuration space at an offset from [`ECAM_BASE`]. An access must not cross a multiple of 4; what does reads ones there.
    pub fn read_config(&self, address: u64, width: Width) -> u32 {
        let found = Pci::locate(address).and_then(|(slot, register)| {
            let function = self.functions.get(slot)?.as_deref()?;
            Some(function.read_config(register, width))
        });
        found.unwrap_or(width.all_ones())
    }

    /// Writes configuration space at an offset from [`ECAM_BASE`].
    pub fn write_config(&mut self, address: u64, width: Width, value: u32) {
        let Some((slot, register)) = Pci::locate(address) else {
            return;
        };
        if let Some(function) = self.functions.get_mut(slot).and_then(Option::as_deref_mut) {
            function.write_config(register, width, value);
            let bit = u32::from(function.has_message()) << slot;
            self.sendable = self.sendable & !(1 << slot) | bit;
            self.note_windows();
        }
    }

    fn note_windows(&mut self) {
        let Pci {
            functions,
            ports,
            memory,
            ..
        } = self;
        ports.clear();
        memory.clear();
        for (slot, function) in functions.iter().enumerate() {
            let Some(function) = function else { continue };
            function.windows(|bar, is_io, start, bytes| {
                let window = Window {
                    start,
                    bytes,
                    slot: slot as u8,
                    bar,
                };
                if is_io { &mut *ports } else { &mut *memory }.push(window);
            });
        }
    }

    #[inline]
    fn decode(windows: &[Window], address: u64) -> Option<Target> {
        windows.iter().find_map(|window| {
            let offset = address.checked_sub(window.start)?;
            (offset < window.bytes).then_some(Target {
                slot: window.slot,
                bar: window.bar,
                offset,
            })
        })
    }

    /// Who serves what a target is: `None`, if it is an MSI-X table, [`Pci::read_msix`].
    pub fn route(&self, target: Target) -> Option<Route> {
        let function = self.function(target.slot)?;
        if function.msix(target.bar).is_some() {
            return None;
        }
        let bells = function.definition().doorbells;
        let doorbell = bells
            .filter(|bells| bells.bar == target.bar)
            .and_then(|bells| bells.at(target.offset));
        Some(match doorbell {
            Some(doorbell) => Route::Doorbell { target, doorbell },
            None => Route::Device(target),
        })
    }

    /// Who claims a guest-physical address. Of two, the lower slot.
    pub fn decode_memory(&self, gpa: u64) -> Option<Target> {
        Pci::decode(&self.memory, gpa)
    }

    /// Who claims a port. Of two, the lower slot.
    pub fn decode_io(&self, port: u16) -> Option<Target> {
        Pci::decode(&self.ports, port.into())
    }

    /// Reads an MSI-X table or pending array; `None` if the target is another BAR, which its device serves.
    pub fn read_msix(&self, target: Target, width: Width) -> Option<u32> {
        let msix = self.function(target.slot)?.msix(target.bar)?;
        Some(msix.read(target.offset, width))
    }

    /// Writes an MSI-X table; `None` if the target is another BAR, which its device serves.
    pub fn write_msix(&mut self, target: Target, width: Width, value: u32) -> Option<()> {
        let slot = usize::from(target.slot);
        let function = self.functions.get_mut(slot)?.as_deref_mut()?;
        function
            .msix_mut(target.bar)?
            .write(target.offset, width, value);
        let bit = u32::from(function.has_message()) << slot;
        self.sendable = self.sendable & !(1 << slot) | bit;
        Some(())
    }

    /// A device raises vector `vector` of its function, or its pin ([`VECTOR_INTX`]), in whatever way the guest has enabled. `None`: there
    /// is no function in this slot.
    pub fn signal(&mut self, slot: u8, vector: u16) -> Option<Signal> {
        let function = self.functions.get_mut(usize::from(slot))?.as_deref_mut()?;
        Some(function.signal(vector))
    }

    /// Takes a message that was pending and has been unmasked.
    #[inline]
    pub fn next_message(&mut self) -> Option<Message> {
        while self.sendable != 0 {
            let slot = self.sendable.trailing_zeros() as usize;
            let function = self.functions[slot].as_deref_mut();
            if let Some(message) = function.and_then(Function::next_message) {
                return Some(message);
            }
            self.sendable &= !(1 << slot);
        }
        None
    }

    /// Is there such a message?
    #[inline]
    pub fn has_message(&self) -> bool {
        self.sendable != 0
    }

    /// A device asserts or releases its interrupt pin.
    pub fn set_intx(&mut self, slot: u8, asserted: bool) {
        if let Some(Some(function)) = self.functions.get_mut(usize::from(slot)) {
            function.set_intx(asserted);
        }
    }

    /// Levels of INTA to INTD at the host bridge, bits 3:0. Slots are wired in turn: pin p of slot s is line (p + s) modulo 4.
    pub fn intx_lines(&self) -> u8 {
        let functions = self.functions.iter().enumerate();
        functions
            .filter_map(|(slot, function)| Some((slot, function.as_deref()?.intx()?)))
            .fold(0, |lines, (slot, pin)| {
                lines | 1 << ((usize::from(pin) + slot) % INTX_LINES)
            })
    }

    /// The state to move.
    pub fn save(&self) -> PciState {
        let Pci {
            address,
            functions,
            sendable: _,
            ports: _,
            memory: _,
        } = self;
        PciState {
            address: *address,
            functions: functions
                .iter()
                .enumerate()
                .filter_map(|(slot, function)| Some((slot as u8, function.as_deref()?.save())))
                .collect(),
        }
    }

    /// The bus with this state. Refuses functions that cannot be, and a bus without this host bridge.
    pub fn restore(state: &PciState) -> Result<Pci, BadState> {
        let PciState { address, functions } = state;
        BadState::unless(address & !ADDRESS_WRITABLE == 0, "pci.address")?;
        let mut pci = Pci {
            address: *address,
            functions: [const { None }; SLOTS],
            sendable: 0,
            ports: Vec::new(),
            memory: Vec::new(),
        };
        for (slot, state) in functions {
            let is_bridge = usize::from(*slot) == BRIDGE_SLOT;
            BadState::unless(!is_bridge || state.definition == BRIDGE, "pci.bridge")?;
            let place = pci.functions.get_mut(usize::from(*slot));
            let Some(place) = place.filter(|place| place.is_none()) else {
                return Err(BadState { field: "pci.slot" });
            };
            let function = Function::restore(state)?;
            pci.sendable |= u32::from(function.has_message()) << *slot;
            *place = Some(Box::new(function));
        }
        BadState::unless(pci.functions[BRIDGE_SLOT].is_some(), "pci.bridge")?;
        pci.note_windows();
        Ok(pci)
    }
}
