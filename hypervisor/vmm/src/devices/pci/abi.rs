//! A function as dom0 describes it.

use super::definition::{BAR_COUNT, BadFunction, Bar, Capability, Doorbells, FunctionDefinition};
use alloc::vec::Vec;
use godwit_abi::{
    CAPABILITY_BYTES, DEVICE_BAR_MEMORY32, DEVICE_BAR_MEMORY64, DEVICE_BAR_NONE, DEVICE_BAR_PORTS,
    DeviceBar, DeviceDefinition,
};

impl FunctionDefinition {
    /// What dom0 describes; [`super::Pci::insert`] checks the rest.
    pub fn from_abi(device: &DeviceDefinition) -> Result<FunctionDefinition, BadFunction> {
        if device.reserved_end != 0 {
            return Err(BadFunction::Header);
        }
        let mut bars = [Bar::None; BAR_COUNT];
        for (bar, described) in bars.iter_mut().zip(&device.bars) {
            *bar = bar_of(described)?;
        }
        let doorbells = (device.doorbells != 0).then_some(Doorbells {
            bar: device.doorbell_bar,
            offset: device.doorbell_offset,
            stride: device.doorbell_stride,
            count: device.doorbells,
        });
        Ok(FunctionDefinition {
            vendor: device.vendor,
            device: device.device,
            revision: device.revision,
            class: device.class,
            subsystem_vendor: device.subsystem_vendor,
            subsystem: device.subsystem,
            bars,
            interrupt_pin: device.interrupt_pin,
            capabilities: capabilities(&device.capabilities, device.capability_bytes)?,
            msix: (device.msix_vectors != 0).then_some((device.msix_bar, device.msix_vectors)),
            msi_messages: u8::try_from(device.msi_messages).map_err(|_| BadFunction::Msi)?,
            doorbells,
        })
    }
}

fn bar_of(described: &DeviceBar) -> Result<Bar, BadFunction> {
    let DeviceBar {
        kind,
        reserved,
        size,
    } = *described;
    if reserved != 0 {
        return Err(BadFunction::Bar);
    }
    match kind {
        DEVICE_BAR_NONE => Ok(Bar::None),
        DEVICE_BAR_PORTS => {
            let ports = u16::try_from(size).map_err(|_| BadFunction::Bar)?;
            Ok(Bar::Io { ports })
        }
        DEVICE_BAR_MEMORY32 => {
            let size_bytes = u32::try_from(size).map_err(|_| BadFunction::Bar)?;
            Ok(Bar::Memory32 { size_bytes })
        }
        DEVICE_BAR_MEMORY64 => Ok(Bar::Memory64 { size_bytes: size }),
        _unknown => Err(BadFunction::Bar),
    }
}

fn capabilities(bytes: &[u8; CAPABILITY_BYTES], used: u32) -> Result<Vec<Capability>, BadFunction> {
    let mut rest = bytes
        .get(..used as usize)
        .ok_or(BadFunction::Capabilities)?;
    let mut capabilities = Vec::new();
    while let [id, length, behind @ ..] = rest {
        let (body, next) = behind
            .split_at_checked(usize::from(*length))
            .ok_or(BadFunction::Capabilities)?;
        capabilities.push(Capability {
            id: *id,
            body: body.to_vec(),
        });
        rest = next;
    }
    match rest {
        [] => Ok(capabilities),
        [_, ..] => Err(BadFunction::Capabilities),
    }
}
