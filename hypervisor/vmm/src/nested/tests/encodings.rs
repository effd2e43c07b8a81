//! Entries bit by bit, from the manuals: SDM 3C tables 28-1 to 28-7, APM 2 figures 5-17 to 5-26 and 15.25.

use super::*;

fn leaf(address: u64, access: Access, memory_type: MemoryType) -> Leaf {
    Leaf {
        address: HostPhysical(address),
        access,
        memory_type,
        accessed: true,
        dirty: true,
        withheld: false,
        absent: false,
    }
}

const WRITE: Access = Access {
    write: true,
    execute: false,
};

#[test]
fn ept_entries_are_the_manuals() {
    let ram = leaf(0x1_2345_6000, Access::ALL, MemoryType::WriteBack);
    // R W X, type 6 at 5:3, ignore PAT, accessed 8, dirty 9.
    assert_eq!(Ept::leaf(ram, PageSize::Small4K), 0x1_2345_6377);
    let large = leaf(0x1_2340_0000, Access::READ, MemoryType::WriteBack);
    assert_eq!(Ept::leaf(large, PageSize::Large2M), 0x1_2340_03f1);
    let device = leaf(0xfee0_0000, WRITE, MemoryType::Uncacheable);
    assert_eq!(Ept::leaf(device, PageSize::Small4K), 0xfee0_0303);
    let screen = leaf(0xc000_0000, WRITE, MemoryType::WriteCombining);
    assert_eq!(Ept::leaf(screen, PageSize::Huge1G), 0xc000_038b);
    // A pointer may have none of bits 7:3.
    assert_eq!(Ept::table(HostPhysical(0xabc_d000), false), 0xabc_d107);
    assert_eq!(
        Ept::decode(0xabc_d007, 2),
        Entry::Table {
            address: HostPhysical(0xabc_d000),
            dirty_below: false
        }
    );
    // Without read, write and execute an entry is not present to the processor, whatever else it says.
    assert_eq!(Ept::decode(0xffbf_ffff_ffff_fff8, 1), Entry::Empty);
    // Not an absent page's either, whose rights and mark are where the processor does not look.
    let absent = Leaf {
        absent: true,
        ..ram
    };
    assert_eq!(Ept::leaf(absent, PageSize::Small4K), 0x03c0_0001_2345_6370);
    assert_eq!(Ept::decode(0x03c0_0001_2345_6370, 1), Entry::Leaf(absent));
    // Write and not read would be a misconfiguration.
    assert!(Ept::leaf(device, PageSize::Small4K) & 1 == 1);
}

#[test]
fn npt_entries_are_the_manuals() {
    let ram = leaf(0x1_2345_6000, Access::ALL, MemoryType::WriteBack);
    // P W U, accessed 5, dirty 6.
    assert_eq!(Npt::leaf(ram, PageSize::Small4K), 0x1_2345_6067);
    let large = leaf(0x1_2340_0000, Access::READ, MemoryType::WriteBack);
    // No-execute 63, page size 7, no write.
    assert_eq!(Npt::leaf(large, PageSize::Large2M), 0x8000_0001_2340_00e5);
    let device = leaf(0xfee0_0000, WRITE, MemoryType::Uncacheable);
    // PCD 4 and PWT 3: PAT entry 3.
    assert_eq!(Npt::leaf(device, PageSize::Small4K), 0x8000_0000_fee0_007f);
    let screen = leaf(0xc000_0000, WRITE, MemoryType::WriteCombining);
    // PAT entry 5: PWT 3 and the PAT bit, which is bit 7 of a small leaf and bit 12 of a large one.
    assert_eq!(Npt::leaf(screen, PageSize::Small4K), 0x8000_0000_c000_00ef);
    assert_eq!(Npt::leaf(screen, PageSize::Huge1G), 0x8000_0000_c000_10ef);
    assert_eq!(HOST_PAT.to_le_bytes(), [6, 4, 7, 0, 6, 1, 7, 0]);
    assert_eq!(Npt::table(HostPhysical(0xabc_d000), false), 0xabc_d027);
    assert_eq!(Npt::decode(0xffbf_ffff_ffff_fffe, 1), Entry::Empty);
    let absent = Leaf {
        absent: true,
        ..ram
    };
    assert_eq!(Npt::leaf(absent, PageSize::Small4K), 0x0040_0001_2345_6066);
    assert_eq!(Npt::decode(0x0040_0001_2345_6066, 1), Entry::Leaf(absent));
}

fn round_trip<F: Format>() {
    assert_eq!(F::decode(0, 1), Entry::Empty);
    assert_eq!(F::decode(0, 4), Entry::Empty);
    for link in [None, Some(Frame(1)), Some(Frame(0xf_ffff_ffff))] {
        assert_eq!(F::decode(F::park(link), 1), Entry::Empty);
        assert_eq!(F::unpark(F::park(link)), link);
    }
    for dirty_below in [false, true] {
        let entry = Entry::Table {
            address: HostPhysical(0x7_7777_7000),
            dirty_below,
        };
        assert_eq!(
            F::decode(F::table(HostPhysical(0x7_7777_7000), dirty_below), 3),
            entry
        );
    }
    let types = [
        MemoryType::WriteBack,
        MemoryType::Uncacheable,
        MemoryType::WriteCombining,
    ];
    for (n, size) in (0..96).flat_map(|n| PageSize::ALL.map(|size| (n, size))) {
        let leaf = Leaf {
            address: HostPhysical(5 << 30),
            access: Access {
                write: n & 1 != 0,
                execute: n & 2 != 0,
            },
            memory_type: types[n / 32],
            accessed: n & 4 != 0,
            dirty: n & 8 != 0,
            withheld: n & 16 != 0,
            absent: false,
        };
        for absent in [false, true] {
            let leaf = Leaf { absent, ..leaf };
            assert_eq!(
                F::decode(F::leaf(leaf, size), size as u8),
                Entry::Leaf(leaf)
            );
        }
    }
}

#[test]
fn every_format_says_back_what_it_was_told() {
    round_trip::<Ept>();
    round_trip::<Npt>();
    round_trip::<Fake>();
}
