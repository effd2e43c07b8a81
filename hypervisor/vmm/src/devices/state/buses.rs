//! The serial port, the reset register and the PCI bus as records and back.

use alloc::vec::Vec;

use arrayvec::ArrayVec;
use godwit_records::{Bytes, MSIX_VECTORS_MAX, PciBus, PciFunction, ResetControl, SerialPort};

use crate::devices::BadState;
use crate::devices::debug_console::DebugConsoleState;
use crate::devices::pci::{FunctionDefinition, FunctionState, MsixEntry, MsixState};
use crate::devices::reset_port::ResetPortState;
use crate::devices::uart::UartState;

pub(super) fn reset_record(state: &ResetPortState) -> ResetControl {
    let &ResetPortState { control } = state;
    ResetControl { control }
}

pub(super) fn reset_state(record: &ResetControl) -> ResetPortState {
    let &ResetControl { control } = record;
    ResetPortState { control }
}

/// What was sent stays where it is: the console's reader has it.
pub(super) fn serial_record(state: &UartState) -> SerialPort {
    let UartState {
        ier,
        fcr,
        lcr,
        mcr,
        overrun,
        deltas,
        scratch,
        divisor,
        transmitted,
        fifo,
        traffic_tsc,
        input,
        output: _,
    } = state;
    SerialPort {
        ier: *ier,
        fcr: *fcr,
        lcr: *lcr,
        mcr: *mcr,
        overrun: *overrun,
        deltas: *deltas,
        scratch: *scratch,
        divisor: *divisor,
        transmitted: *transmitted,
        fifo: Bytes::copy_of(fifo).expect("a FIFO of 16 bytes"),
        traffic_tsc: *traffic_tsc,
        input: Bytes::copy_of(input).expect("the queue is bounded by the record's limit"),
    }
}

pub(super) fn serial_state(record: &SerialPort, output: DebugConsoleState) -> UartState {
    let SerialPort {
        ier,
        fcr,
        lcr,
        mcr,
        overrun,
        deltas,
        scratch,
        divisor,
        transmitted,
        fifo,
        traffic_tsc,
        input,
    } = record;
    UartState {
        ier: *ier,
        fcr: *fcr,
        lcr: *lcr,
        mcr: *mcr,
        overrun: *overrun,
        deltas: *deltas,
        scratch: *scratch,
        divisor: *divisor,
        transmitted: *transmitted,
        fifo: fifo
            .as_slice()
            .iter()
            .copied()
            .collect::<ArrayVec<u8, 16>>(),
        traffic_tsc: *traffic_tsc,
        input: input.as_slice().to_vec(),
        output,
    }
}

pub(super) fn bus_record(address: u32) -> PciBus {
    PciBus { address }
}

/// What the function is, its definition, stands with whoever serves it: a device of the same kind is there already when
/// this is restored, and configuration space shows whether it is. But MSI: a guest that found none has none for good.
pub(super) fn function_record(slot: u8, state: &FunctionState) -> PciFunction {
    let FunctionState {
        definition,
        config,
        msix,
        intx,
    } = state;
    let mut record = PciFunction {
        slot,
        config: *config,
        intx: *intx,
        msi_messages: definition.msi_messages,
        ..PciFunction::reset()
    };
    if let Some(MsixState { entries, pending }) = msix {
        record.msix_vectors = entries.len() as u16;
        record.msix_pending = *pending;
        for (index, entry) in entries.iter().enumerate() {
            let MsixEntry {
                address,
                data,
                masked,
            } = *entry;
            record.msix_address[index] = address;
            record.msix_data[index] = data;
            record.msix_masked |= u64::from(masked) << index;
        }
    }
    record
}

pub(super) fn function_state(
    record: &PciFunction,
    definition: &FunctionDefinition,
) -> Result<FunctionState, BadState> {
    let PciFunction {
        slot: _,
        config,
        intx,
        msix_vectors,
        msix_address,
        msix_data,
        msix_masked,
        msix_pending,
        msi_messages,
    } = record;
    let vectors = usize::from(*msix_vectors);
    BadState::unless(vectors <= MSIX_VECTORS_MAX, "pci.msix_vectors")?;
    let beyond = msix_address[vectors..].iter().all(|&word| word == 0)
        && msix_data[vectors..].iter().all(|&word| word == 0)
        && msix_masked.checked_shr(vectors as u32).unwrap_or(0) == 0
        && (vectors > 0 || *msix_pending == 0);
    BadState::unless(beyond, "pci.msix_entries")?;
    let entries: Vec<MsixEntry> = (0..vectors)
        .map(|index| MsixEntry {
            address: msix_address[index],
            data: msix_data[index],
            masked: msix_masked & 1 << index != 0,
        })
        .collect();
    Ok(FunctionState {
        definition: FunctionDefinition {
            msi_messages: *msi_messages,
            ..definition.clone()
        },
        config: *config,
        msix: (vectors > 0).then_some(MsixState {
            entries,
            pending: *msix_pending,
        }),
        intx: *intx,
    })
}
