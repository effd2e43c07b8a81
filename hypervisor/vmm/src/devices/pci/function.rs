//! One PCI function: configuration space with a type 0 header (PCI 3.0, 6.1).
//!
//! Configuration space is bytes and, for each, the bits a guest can write; so a BAR answers the sizing protocol by itself: its low
//! bits cannot be written. Invariant: bits that cannot be written are as the definition makes them.

use super::definition::{
    BadFunction, Bar, CONFIG_BYTES, FunctionDefinition, HEADER_BYTES, MSIX_CAPABILITY_BYTES,
};
use super::msi;
use super::msix::{Msix, MsixState, PENDING_OFFSET};
use crate::devices::BadState;
use crate::devices::message::Message;
use crate::devices::ports::Width;

const COMMAND: usize = 0x04;
const STATUS: usize = 0x06;
const REVISION: usize = 0x08;
const BARS: usize = 0x10;
const SUBSYSTEM: usize = 0x2C;
const CAPABILITIES: usize = 0x34;
const INTERRUPT_LINE: usize = 0x3C;
const INTERRUPT_PIN: usize = 0x3D;

const COMMAND_IO: u16 = 1 << 0;
const COMMAND_MEMORY: u16 = 1 << 1;
const COMMAND_BUS_MASTER: u16 = 1 << 2;
const COMMAND_PARITY: u16 = 1 << 6;
const COMMAND_SERR: u16 = 1 << 8;
const COMMAND_NO_INTX: u16 = 1 << 10;
const COMMAND_WRITABLE: u16 = COMMAND_IO
    | COMMAND_MEMORY
    | COMMAND_BUS_MASTER
    | COMMAND_PARITY
    | COMMAND_SERR
    | COMMAND_NO_INTX;
/// Status: INTx asserted, capability list.
const STATUS_INTX: u8 = 1 << 3;
const STATUS_CAPABILITIES: u8 = 1 << 4;

const BAR_IO: u32 = 1;
const BAR_64: u32 = 0b100;
const BAR_PREFETCHABLE: u32 = 0b1000;

const CAPABILITY_MSIX: u8 = 0x11;
/// Upper byte of MSI-X message control.
const MSIX_ENABLE: u8 = 1 << 7;
const MSIX_MASK: u8 = 1 << 6;

/// One function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    definition: FunctionDefinition,
    config: [u8; CONFIG_BYTES],
    writable: [u8; CONFIG_BYTES],
    /// MSI-X table and where its capability begins.
    msix: Option<(Msix, usize)>,
    /// Where the MSI capability begins.
    msi_at: Option<usize>,
    intx: bool,
}

/// The vector that stands for the pin in `device_interrupt`.
pub const VECTOR_INTX: u16 = u16::MAX;

/// What a device's request for an interrupt comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// A message, to be sent now.
    Message(Message),
    /// Nothing: masked and so pending, or the guest wrote no interrupt message there.
    Nothing,
    /// The guest uses the interrupt pin: see [`super::super::ports::Platform::set_intx`].
    Pin,
}

/// Saved state of [`Function`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionState {
    /// What it is.
    pub definition: FunctionDefinition,
    /// Configuration space.
    pub config: [u8; CONFIG_BYTES],
    /// MSI-X table.
    pub msix: Option<MsixState>,
    /// Its device asserts the interrupt pin.
    pub intx: bool,
}

impl Function {
    /// The function after power-up.
    pub(super) fn new(definition: FunctionDefinition) -> Result<Function, BadFunction> {
        definition.check()?;
        let mut function = Function {
            config: [0; CONFIG_BYTES],
            writable: [0; CONFIG_BYTES],
            msix: None,
            msi_at: None,
            intx: false,
            definition,
        };
        function.lay_out();
        Ok(function)
    }

    /// The host bridge, whose definition is a constant.
    pub(super) fn bridge(definition: FunctionDefinition) -> Function {
        Function::new(definition).expect("the host bridge is well defined")
    }

    /// Back to power-up; the device may still assert its pin.
    pub(super) fn reset(&mut self) {
        self.lay_out();
    }

    fn set(&mut self, register: usize, bytes: &[u8]) {
        self.config[register..register + bytes.len()].copy_from_slice(bytes);
    }

    /// Writes configuration space and its writable bits from the definition, which has been checked.
    fn lay_out(&mut self) {
        let definition = self.definition.clone();
        self.config = [0; CONFIG_BYTES];
        self.writable = [0; CONFIG_BYTES];
        self.set(0, &definition.vendor.to_le_bytes());
        self.set(2, &definition.device.to_le_bytes());
        self.set(
            REVISION,
            &(definition.class << 8 | u32::from(definition.revision)).to_le_bytes(),
        );
        self.set(SUBSYSTEM, &definition.subsystem_vendor.to_le_bytes());
        self.set(SUBSYSTEM + 2, &definition.subsystem.to_le_bytes());
        self.config[INTERRUPT_PIN] = definition.interrupt_pin;
        self.writable[COMMAND..COMMAND + 2].copy_from_slice(&COMMAND_WRITABLE.to_le_bytes());
        self.writable[INTERRUPT_LINE] = 0xFF;
        for (index, bar) in definition.bars.into_iter().enumerate() {
            self.lay_out_bar(BARS + 4 * index, bar);
        }
        let (mut at, mut link) = (HEADER_BYTES, CAPABILITIES);
        for capability in &definition.capabilities {
            self.link(&mut link, at, capability.id);
            self.set(at + 2, &capability.body);
            at = (at + 2 + capability.body.len()).next_multiple_of(4);
        }
        self.msix = definition.msix.map(|(bar, vectors)| {
            self.link(&mut link, at, CAPABILITY_MSIX);
            self.set(at + 2, &(vectors - 1).to_le_bytes());
            self.set(at + 4, &u32::from(bar).to_le_bytes());
            self.set(
                at + 8,
                &(PENDING_OFFSET as u32 | u32::from(bar)).to_le_bytes(),
            );
            self.writable[at + 3] = MSIX_ENABLE | MSIX_MASK;
            (Msix::new(vectors), at)
        });
        if self.msix.is_some() {
            at += MSIX_CAPABILITY_BYTES + 2;
        }
        // Last: functions that were saved before there was MSI have the same without it.
        self.msi_at = (definition.msi_messages != 0).then(|| {
            self.link(&mut link, at, msi::CAPABILITY_MSI);
            let bytes = msi::lay_out(definition.msi_messages);
            for (byte, (value, writable)) in (at + 2..).zip(bytes) {
                self.config[byte] = value;
                self.writable[byte] = writable;
            }
            at
        });
    }

    /// Chains a capability at `at` behind the last one, whose link is at `link`.
    fn link(&mut self, link: &mut usize, at: usize, id: u8) {
        self.config[STATUS] |= STATUS_CAPABILITIES;
        // Within the 256 bytes.
        self.config[*link] = at as u8;
        self.config[at] = id;
        *link = at + 1;
    }

    fn lay_out_bar(&mut self, register: usize, bar: Bar) {
        let (kind, writable) = match bar {
            Bar::None => return,
            Bar::Io { ports } => (BAR_IO, u64::from(!(u32::from(ports) - 1))),
            Bar::Memory32 { size_bytes } => (0, u64::from(!(size_bytes - 1))),
            Bar::Memory64 { size_bytes } => (BAR_64 | BAR_PREFETCHABLE, !(size_bytes - 1)),
        };
        self.set(register, &kind.to_le_bytes());
        let bytes = if kind & BAR_64 != 0 { 8 } else { 4 };
        self.writable[register..register + bytes].copy_from_slice(&writable.to_le_bytes()[..bytes]);
    }

    /// What it is.
    pub fn definition(&self) -> &FunctionDefinition {
        &self.definition
    }

    fn word(&self, register: usize) -> u16 {
        u16::from_le_bytes([self.config[register], self.config[register + 1]])
    }

    fn dword(&self, register: usize) -> u32 {
        u32::from(self.word(register)) | u32::from(self.word(register + 2)) << 16
    }

    /// May the function read and write guest memory?
    pub fn is_bus_master(&self) -> bool {
        self.word(COMMAND) & COMMAND_BUS_MASTER != 0
    }

    pub(super) fn read_config(&self, register: usize, width: Width) -> u32 {
        let mut value = 0;
        for offset in 0..width as usize {
            let at = register + offset;
            let byte = match self.config.get(at) {
                Some(&byte) if at == STATUS && self.intx => byte | STATUS_INTX,
                Some(&byte) => byte,
                // No extended space.
                None => 0xFF,
            };
            value |= u32::from(byte) << (8 * offset);
        }
        value
    }

    pub(super) fn write_config(&mut self, register: usize, width: Width, value: u32) {
        for (at, byte) in (register..register + width as usize).zip(value.to_le_bytes()) {
            if at < CONFIG_BYTES {
                let writable = self.writable[at];
                self.config[at] = self.config[at] & !writable | byte & writable;
            }
        }
        self.mirror_msix();
    }

    /// Tells the MSI-X table of its control bits.
    fn mirror_msix(&mut self) {
        if let Some((msix, at)) = &mut self.msix {
            let control = self.config[*at + 3];
            msix.control(control & MSIX_ENABLE != 0, control & MSIX_MASK != 0);
        }
    }

    /// What it claims now, as BAR, "ports", start and length.
    pub(super) fn windows(&self, mut claim: impl FnMut(u8, bool, u64, u64)) {
        let command = self.word(COMMAND);
        for (index, bar) in self.definition.bars.iter().enumerate() {
            let register = BARS + 4 * index;
            let low = self.dword(register);
            let (is_io, base, bytes) = match *bar {
                Bar::None => continue,
                Bar::Io { ports } => (true, u64::from(low & !3), u64::from(ports)),
                Bar::Memory32 { size_bytes } => {
                    (false, u64::from(low & !0xF), u64::from(size_bytes))
                }
                Bar::Memory64 { size_bytes } => {
                    let high = u64::from(self.dword(register + 4));
                    (false, high << 32 | u64::from(low & !0xF), size_bytes)
                }
            };
            let enable = if is_io { COMMAND_IO } else { COMMAND_MEMORY };
            if command & enable != 0 {
                claim(index as u8, is_io, base, bytes);
            }
        }
    }

    /// The MSI-X table, if it lies in this BAR.
    pub(super) fn msix(&self, bar: u8) -> Option<&Msix> {
        let (holder, _) = self.definition.msix?;
        let (msix, _) = self.msix.as_ref()?;
        (holder == bar).then_some(msix)
    }

    pub(super) fn msix_mut(&mut self, bar: u8) -> Option<&mut Msix> {
        let (holder, _) = self.definition.msix?;
        let (msix, _) = self.msix.as_mut()?;
        (holder == bar).then_some(msix)
    }

    fn msix_enabled(&self) -> bool {
        self.msix.as_ref().is_some_and(|(msix, _)| msix.enabled())
    }

    pub(super) fn has_message(&self) -> bool {
        self.msix
            .as_ref()
            .is_some_and(|(msix, _)| msix.has_message())
    }

    pub(super) fn next_message(&mut self) -> Option<Message> {
        self.msix.as_mut()?.0.next_message()
    }

    fn msi_enabled(&self) -> Option<usize> {
        self.msi_at.filter(|&at| msi::enabled(&self.config, at))
    }

    /// The device raises a vector, or its pin. Both MSI and MSI-X enabled is undefined (6.8.1); MSI-X counts then. MSI replaces the pin,
    /// too: message 0 stands for it, and its level shows once the guest disables MSI.
    pub(super) fn signal(&mut self, vector: u16) -> Signal {
        let pin = vector == VECTOR_INTX;
        if let Some((msix, _)) = &mut self.msix
            && msix.enabled()
        {
            return match pin {
                true => Signal::Pin,
                false => msix.signal(vector).map_or(Signal::Nothing, Signal::Message),
            };
        }
        let Some(at) = self.msi_enabled() else {
            return Signal::Pin;
        };
        if pin {
            self.set_intx(true);
        }
        let vector = if pin { 0 } else { vector };
        msi::message(&self.config, at, vector).map_or(Signal::Nothing, Signal::Message)
    }

    pub(super) fn set_intx(&mut self, asserted: bool) {
        self.intx = asserted && self.definition.interrupt_pin != 0;
    }

    /// The pin it drives, 0 for INTA, if it does.
    pub(super) fn intx(&self) -> Option<u8> {
        let replaced = self.msix_enabled() || self.msi_enabled().is_some();
        let drives = self.intx && self.word(COMMAND) & COMMAND_NO_INTX == 0 && !replaced;
        drives.then(|| self.definition.interrupt_pin - 1)
    }

    pub(super) fn save(&self) -> FunctionState {
        let Function {
            definition,
            config,
            writable: _,
            msix,
            msi_at: _,
            intx,
        } = self;
        FunctionState {
            definition: definition.clone(),
            config: *config,
            msix: msix.as_ref().map(|(msix, _)| msix.save()),
            intx: *intx,
        }
    }

    pub(super) fn restore(state: &FunctionState) -> Result<Function, BadState> {
        let FunctionState {
            definition,
            config,
            msix,
            intx,
        } = state;
        let mut function = Function::new(definition.clone()).map_err(|_| BadState {
            field: "pci.definition",
        })?;
        let fixed_bits_hold = function
            .config
            .iter()
            .zip(config)
            .zip(&function.writable)
            .all(|((&fresh, &saved), &writable)| (fresh ^ saved) & !writable == 0);
        BadState::unless(fixed_bits_hold, "pci.config")?;
        function.config = *config;
        match (&mut function.msix, msix) {
            (Some((table, _)), Some(state)) => *table = Msix::restore(state, table.vectors())?,
            (None, None) => {}
            (Some(_), None) | (None, Some(_)) => return Err(BadState { field: "pci.msix" }),
        }
        function.mirror_msix();
        BadState::unless(!*intx || definition.interrupt_pin != 0, "pci.intx")?;
        function.intx = *intx;
        Ok(function)
    }
}
