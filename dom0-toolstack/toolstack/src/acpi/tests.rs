//! The tables as an operating system would read them.

use super::*;
use proptest::prelude::*;

/// Guest memory with the tables in it.
struct Guest(Tables);

impl Guest {
    fn new(vcpus: u32) -> Self {
        Self(tables(vcpus).unwrap())
    }

    fn at(&self, address: u64) -> &[u8] {
        &self.0.bytes[(address - TABLES_START) as usize..]
    }

    /// A table, by its header.
    fn table(&self, address: u64) -> &[u8] {
        let bytes = self.at(address);
        &bytes[..word(bytes, 4) as usize]
    }

    /// The table with a signature, through the XSDT.
    fn find(&self, signature: &[u8; 4]) -> &[u8] {
        let xsdt = self.table(long(self.at(self.0.rsdp), 24));
        assert_eq!(&xsdt[..4], b"XSDT");
        let entries = xsdt[HEADER_BYTES..].chunks_exact(8);
        let mut tables = entries.map(|entry| self.table(long(entry, 0)));
        tables.find(|table| &table[..4] == signature).unwrap()
    }
}

fn half(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap())
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

/// The entries of the MADT: kind and contents.
fn madt_entries(madt: &[u8]) -> Vec<(u8, &[u8])> {
    let mut rest = &madt[44..];
    let mut entries = Vec::new();
    while let [kind, length, ..] = *rest {
        let (entry, behind) = rest.split_at(length.into());
        entries.push((kind, entry));
        rest = behind;
    }
    assert!(rest.is_empty());
    entries
}

#[test]
fn the_rsdp_is_found_by_a_scan_and_adds_up() {
    let guest = Guest::new(1);
    let lines = guest.0.bytes.chunks(16);
    let found = lines
        .enumerate()
        .find(|(_, line)| line.starts_with(b"RSD PTR "));
    let address = TABLES_START + found.unwrap().0 as u64 * 16;
    assert_eq!(address, guest.0.rsdp);
    let rsdp = guest.at(address);
    assert_eq!((rsdp[15], word(rsdp, 16), word(rsdp, 20)), (2, 0, 36));
    assert_eq!((sum(&rsdp[..20]), sum(&rsdp[..36])), (0, 0));
}

#[test]
fn the_fadt_says_what_the_hypervisor_emulates() {
    let guest = Guest::new(2);
    let fadt = guest.find(b"FACP");
    assert_eq!((fadt.len(), fadt[8], fadt[131]), (276, 6, 5));
    assert_eq!((half(fadt, 46), word(fadt, 48)), (9, 0));
    let ports = (word(fadt, 56), word(fadt, 64), word(fadt, 76));
    assert_eq!(ports, (0x600, 0x604, 0x608));
    assert_eq!(fadt[88..92], [4, 2, 0, 4]);
    assert_eq!(half(fadt, 109), 0x15);
    assert_eq!(word(fadt, 112), 0x465);
    assert_eq!(fadt[116..128], [1, 8, 0, 1, 0xf9, 0xc, 0, 0, 0, 0, 0, 0]);
    assert_eq!(fadt[128], 6);
    assert_eq!(fadt[148..156], [1, 32, 0, 2, 0, 6, 0, 0]);
    assert_eq!(fadt[172..180], [1, 16, 0, 2, 4, 6, 0, 0]);
    assert_eq!(fadt[208..216], [1, 32, 0, 3, 8, 6, 0, 0]);
    assert_eq!(u64::from(word(fadt, 40)), long(fadt, 140));
    assert_eq!(&guest.table(long(fadt, 140))[..4], b"DSDT");
    let facs = u64::from(word(fadt, 36));
    assert_eq!((facs % 64, &guest.table(facs)[..4]), (0, &b"FACS"[..]));
    assert_eq!(guest.table(facs).len(), 64);
}

#[test]
fn the_madt_has_every_vcpu_and_the_overrides() {
    let guest = Guest::new(3);
    let madt = guest.find(b"APIC");
    assert_eq!((word(madt, 36), word(madt, 40)), (0xfee0_0000, 1));
    let entries = madt_entries(madt);
    let kinds: Vec<u8> = entries.iter().map(|entry| entry.0).collect();
    assert_eq!(kinds, [0, 0, 0, 1, 2, 2, 4]);
    assert_eq!(entries[2].1, [0, 8, 2, 2, 1, 0, 0, 0]);
    assert_eq!(entries[3].1, [1, 12, 0, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0]);
    assert_eq!(entries[4].1, [2, 10, 0, 0, 2, 0, 0, 0, 0, 0]);
    assert_eq!(entries[5].1, [2, 10, 0, 9, 9, 0, 0, 0, 0xd, 0]);
    assert_eq!(entries[6].1, [4, 6, 0xff, 0, 0, 1]);
}

#[test]
fn large_apic_ids_need_the_other_entry() {
    let guest = Guest::new(257);
    let entries = madt_entries(guest.find(b"APIC"));
    let count = |kind| entries.iter().filter(|entry| entry.0 == kind).count();
    assert_eq!((count(0), count(9), count(10)), (255, 2, 1));
    assert_eq!(
        entries[255].1[4..],
        [255, 0, 0, 0, 1, 0, 0, 0, 255, 0, 0, 0]
    );
    let few = Guest::new(255);
    let few = madt_entries(few.find(b"APIC"));
    assert!(few.iter().all(|entry| entry.0 < 9));
}

#[test]
fn configuration_space_is_one_bus() {
    let guest = Guest::new(1);
    let mcfg = guest.find(b"MCFG");
    assert_eq!((mcfg.len(), long(mcfg, 44)), (60, 0xe000_0000));
    assert_eq!(mcfg[52..60], [0; 8]);
}

/// Splits a package length off. Returns the contents and what follows them.
fn measured(aml: &[u8]) -> (&[u8], &[u8]) {
    let follow = usize::from(aml[0] >> 6);
    let length = match follow {
        0 => usize::from(aml[0]),
        _ => {
            let high = aml[1..=follow].iter().rev();
            let high = high.fold(0, |value, byte| value << 8 | usize::from(*byte));
            high << 4 | usize::from(aml[0] & 0xf)
        }
    };
    (&aml[1 + follow..length], &aml[length..])
}

/// Devices of a scope's contents, by name; names and values before them are skipped to the first.
fn devices(mut aml: &[u8]) -> Vec<(&[u8], &[u8])> {
    let mut devices = Vec::new();
    while let [0x5b, 0x82, rest @ ..] = aml {
        let (contents, behind) = measured(rest);
        devices.push(contents.split_at(4));
        aml = behind;
    }
    assert!(aml.is_empty());
    devices
}

#[test]
fn the_dsdt_decodes_to_the_last_byte() {
    let guest = Guest::new(2);
    let fadt = guest.find(b"FACP");
    let dsdt = &guest.table(long(fadt, 140))[HEADER_BYTES..];
    let (s5, scope) = dsdt.split_at(11);
    assert_eq!(s5, b"\x08_S5_\x12\x06\x04\0\0\0\0".split_at(11).0);
    let scope = &scope[1..];
    assert_eq!(scope[0], 0x10);
    let (system, behind) = measured(&scope[1..]);
    assert!(behind.is_empty());
    let devices = devices(system.strip_prefix(b"\\_SB_").unwrap());
    let names: Vec<&[u8]> = devices.iter().map(|device| device.0).collect();
    let want: [&[u8]; 6] = [b"C000", b"C001", b"PCI0", b"BORD", b"COM1", b"RTC_"];
    assert_eq!(names, want);
    let com1 = devices[4].1;
    let ports = [0x47, 1, 0xf8, 3, 0xf8, 3, 1, 8, 0x22, 0x10, 0, 0x79, 0];
    assert!(com1.ends_with(&ports));
}

#[test]
fn every_pin_is_routed_once() {
    let guest = Guest::new(1);
    let fadt = guest.find(b"FACP");
    let dsdt = guest.table(long(fadt, 140));
    let at = dsdt.windows(5).position(|window| window == b"_PRT\x12");
    let (mut routes, _) = measured(&dsdt[at.unwrap() + 5..]);
    assert_eq!(routes[0], 124);
    routes = &routes[1..];
    let mut seen = std::collections::BTreeSet::new();
    while let [0x12, rest @ ..] = routes {
        let (route, behind) = measured(rest);
        assert_eq!(route[..2], [4, 0x0c]);
        let (slot, pin_at) = (word(route, 2) >> 16, 6);
        let (pin, source_at) = match route[pin_at] {
            0x0a => (u32::from(route[7]), 8),
            constant => (constant.into(), 7),
        };
        assert_eq!((word(route, 2) & 0xffff, route[source_at]), (0xffff, 0));
        assert_eq!(route[source_at + 1], 0x0a);
        assert_eq!(u32::from(route[source_at + 2]), pci_gsi(slot, pin));
        assert!(seen.insert((slot, pin)));
        routes = behind;
    }
    assert_eq!(seen.len(), 31 * 4);
    assert_eq!((pci_gsi(0, 0), pci_gsi(1, 3), pci_gsi(31, 3)), (16, 16, 18));
}

#[test]
fn none_and_too_many_are_refused() {
    assert_eq!(tables(0), None);
    assert_eq!(tables(VCPUS_MAX + 1), None);
    assert!(tables(VCPUS_MAX).is_some());
}

proptest! {
    #[test]
    fn all_tables_add_up(vcpus in 1..=VCPUS_MAX) {
        let guest = Guest::new(vcpus);
        prop_assert!(guest.0.bytes.len() as u64 <= TABLES_END - TABLES_START);
        let fadt = guest.find(b"FACP");
        let dsdt = guest.table(long(fadt, 140));
        let xsdt = guest.table(long(guest.at(guest.0.rsdp), 24));
        for table in [fadt, dsdt, xsdt, guest.find(b"APIC"), guest.find(b"MCFG")] {
            prop_assert_eq!(sum(table), 0);
        }
        let entries = madt_entries(guest.find(b"APIC"));
        let cpus = entries.iter().filter(|entry| [0, 9].contains(&entry.0)).count();
        prop_assert_eq!(cpus as u32, vcpus);
    }
}
