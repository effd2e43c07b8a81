//! Plain MSI: registers at each width, numbers of messages, INTx and MSI-X beside it.

use super::*;

const MSI: u64 = 0x64;

fn set(pci: &mut Pci, offset: u64, width: Width, value: u32) {
    pci.write_config(AT | (MSI + offset), width, value);
}

/// A bus whose function sends to APIC 2, vector 0x50, with this lower byte of message control.
fn programmed(control: u32) -> Pci {
    let mut pci = bus();
    set(&mut pci, 4, Width::Dword, 0xFEE0_2000);
    set(&mut pci, 12, Width::Word, 0x4050);
    set(&mut pci, 2, Width::Byte, control);
    pci
}

#[test]
fn registers_are_written_at_each_width() {
    let mut pci = bus();
    assert_eq!(read(&pci, MSI), 0x0084_0005, "64 bits, 4 messages, last");
    write(&mut pci, MSI, u32::MAX);
    assert_eq!(read(&pci, MSI), 0x00F5_0005);
    set(&mut pci, 2, Width::Word, 0);
    assert_eq!(read(&pci, MSI), 0x0084_0005);
    write(&mut pci, MSI + 4, u32::MAX);
    assert_eq!(read(&pci, MSI + 4), 0xFFFF_FFFC);
    set(&mut pci, 6, Width::Word, 0xFEE0);
    set(&mut pci, 5, Width::Byte, 0x30);
    assert_eq!(read(&pci, MSI + 4), 0xFEE0_30FC);
    write(&mut pci, MSI + 8, 0x1234_5678);
    assert_eq!(read(&pci, MSI + 8), 0x1234_5678);
    write(&mut pci, MSI + 12, u32::MAX);
    assert_eq!(read(&pci, MSI + 12), 0xFFFF, "data is 16 bits");
    set(&mut pci, 13, Width::Byte, 0x41);
    assert_eq!(pci.read_config(AT | (MSI + 12), Width::Word), 0x41FF);
    assert_eq!(pci.read_config(AT | (MSI + 13), Width::Byte), 0x41);
    assert_eq!(Pci::restore(&pci.save()), Ok(pci.clone()));
    pci.reset();
    assert_eq!(pci, bus());
}

#[test]
fn vectors_are_in_the_low_bits_that_are_given() {
    // Multiple message enable, and what vectors 0 to 4 and the pin send.
    for (enabled, expected) in [
        (0, [0x50; 6]),
        (1, [0x50, 0x51, 0x50, 0x51, 0x50, 0x50]),
        (2, [0x50, 0x51, 0x52, 0x53, 0x50, 0x50]),
        // More than the function asked for.
        (5, [0x50, 0x51, 0x52, 0x53, 0x50, 0x50]),
    ] {
        let mut pci = programmed(enabled << 4 | 1);
        for (vector, expected) in [0, 1, 2, 3, 4, VECTOR_INTX].into_iter().zip(expected) {
            let message = sent(&mut pci, vector);
            assert_eq!(message.vector, expected, "{enabled}, vector {vector}");
            assert_eq!(message.destination, Destination::Physical(2));
        }
    }
    let mut nowhere = programmed(1);
    set(&mut nowhere, 8, Width::Dword, 1);
    let signal = nowhere.signal(SLOT, 0);
    assert_eq!(
        signal,
        Some(Signal::Nothing),
        "no address of a local APIC's"
    );
}

#[test]
fn it_replaces_the_pin_until_it_is_disabled() {
    let mut pci = programmed(0);
    assert_eq!(pci.signal(SLOT, VECTOR_INTX), Some(Signal::Pin));
    pci.set_intx(SLOT, true);
    assert_ne!(pci.intx_lines(), 0);
    set(&mut pci, 2, Width::Byte, 1);
    assert_eq!(pci.intx_lines(), 0, "enabled");
    pci.set_intx(SLOT, false);
    sent(&mut pci, VECTOR_INTX);
    assert_eq!(pci.intx_lines(), 0);
    assert_eq!(read(&pci, 4) >> 16 & 8, 8, "the device still asks");
    let mut moved = Pci::restore(&pci.save()).unwrap();
    assert_eq!(moved, pci);
    set(&mut moved, 2, Width::Byte, 0);
    assert_ne!(moved.intx_lines(), 0, "disabled");
}

#[test]
fn msix_counts_where_both_are_enabled() {
    let mut pci = programmed(1);
    for (offset, value) in [(0, 0xFEE0_1000), (4, 0), (8, 0x71), (12, 0)] {
        let written = pci.write_msix(table(offset), Width::Dword, value);
        assert_eq!(written, Some(()));
    }
    assert_eq!(sent(&mut pci, 0).vector, 0x50);
    write(&mut pci, 0x58, 0x8000_0000);
    assert_eq!(sent(&mut pci, 0).vector, 0x71);
    write(&mut pci, 0x58, 0);
    assert_eq!(sent(&mut pci, 0).vector, 0x50);
}

#[test]
fn registers_that_cannot_be_are_refused() {
    let good = programmed(1).save();
    for (at, bit) in [(2, 0x02), (3, 0x01), (4, 0x01), (0, 0x01), (14, 0x01)] {
        let mut bad = good.clone();
        bad.functions[1].1.config[MSI as usize + at] ^= bit;
        assert_eq!(Pci::restore(&bad).unwrap_err().field, "pci.config");
    }
    let mut without = good.clone();
    without.functions[1].1.definition.msi_messages = 0;
    assert_eq!(Pci::restore(&without).unwrap_err().field, "pci.config");
}
