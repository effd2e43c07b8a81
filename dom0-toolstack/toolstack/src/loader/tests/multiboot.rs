//! Multiboot images.

use super::*;

const ENTRY: u32 = 0x10_0040;

/// A Multiboot header.
fn header(flags: u32, addresses: &[u32]) -> Vec<u8> {
    let magic = 0x1bad_b002u32;
    let checksum = 0u32.wrapping_sub(magic.wrapping_add(flags));
    let words = [magic, flags, checksum];
    let words = words.iter().chain(addresses);
    words.flat_map(|word| word.to_le_bytes()).collect()
}

/// A 32-bit ELF image linked for 0xc010_0000, loaded at 1 MiB, with a header in it.
fn elf32(flags: u32) -> Vec<u8> {
    let mut file = std::vec![0x7f, b'E', b'L', b'F', 1, 1, 1, 0];
    file.resize(16, 0);
    file.extend([2, 0, 3, 0, 1, 0, 0, 0]);
    file.extend((ENTRY + 0xc000_0000).to_le_bytes());
    file.extend(52u32.to_le_bytes());
    file.resize(42, 0);
    file.extend([32, 0, 1, 0]);
    file.resize(52, 0);
    for word in [1, 0x1000, 0xc010_0000, 0x10_0000, 0x100, 0x1800, 5, 4096u32] {
        file.extend(word.to_le_bytes());
    }
    file.resize(0x1000, 0);
    file.extend(header(flags, &[]));
    file.resize(0x1100, 0xf4);
    file
}

/// A file with 16 bytes before the header, which lies at 1 MiB.
fn flat(addresses: [u32; 5]) -> Vec<u8> {
    let mut file = std::vec![0x90; 16];
    file.extend(header(1 << 16 | 3, &addresses));
    file.resize(512, 0xf4);
    file
}

fn refused(kernel: &[u8]) -> LoadError {
    let error = plan(&guest(kernel)).unwrap_err();
    assert!(!error.to_string().is_empty());
    error
}

#[test]
fn a_32_bit_elf_image_with_a_module() {
    let (kernel, module) = (elf32(3), [7; 100]);
    let guest = Guest {
        ramdisk: Some(&module),
        ..guest(&kernel)
    };
    let plan = plan(&guest).unwrap();
    check_plan(&plan);
    let state = &plan.state;
    assert_eq!((state.rip, state.gprs[0]), (ENTRY.into(), 0x2bad_b002));
    assert_eq!((state.cr0, state.cs.limit), (0x11, u32::MAX));
    let address = state.gprs[3];
    assert_eq!(address, 0x10_2000);
    let info = at(&plan, address);
    assert_eq!(
        (word(info, 0), word(info, 4), word(info, 8)),
        (0x24d, 640, 7168)
    );
    let text = |at: usize| &info[(u64::from(word(info, at)) - address) as usize..];
    assert_eq!(text(16), b"hello world\0");
    assert!(text(64).starts_with(b"Godwit\0"));
    assert_eq!(word(info, 20), 1);
    let list = text(24);
    assert_eq!((word(list, 0), word(list, 4)), (0x10_3000, 0x10_3064));
    assert_eq!(at(&plan, 0x10_3000), module);
    assert_eq!(info[(u64::from(word(list, 8)) - address) as usize], 0);
    assert_eq!(word(info, 44), 4 * 24);
    let map = text(48);
    for (index, want) in RANGES_OF_8_MIB.iter().enumerate() {
        let entry = &map[index * 24..];
        let kind = u64::from(word(entry, 20));
        assert_eq!(word(entry, 0), 20);
        assert_eq!(&[long(entry, 4), long(entry, 12), kind], want);
    }
}

#[test]
fn addresses_in_the_header_go_first() {
    let kernel = flat([0x10_0010, 0x10_0008, 0x10_0108, 0x10_2000, 0x10_0030]);
    let plan = plan(&guest(&kernel)).unwrap();
    check_plan(&plan);
    assert_eq!(
        (plan.pieces[0].address, plan.pieces[0].bytes()),
        (0x10_0008, 0x100)
    );
    assert_eq!(at(&plan, 0x10_0010)[..4], 0x1bad_b002u32.to_le_bytes());
    assert_eq!((plan.state.rip, plan.state.gprs[3]), (0x10_0030, 0x10_2000));
    let whole = flat([0x10_0010, 0x10_0010, 0, 0, 0x10_0030]);
    let plan = super::plan(&guest(&whole)).unwrap();
    assert_eq!(plan.pieces[0].bytes(), 512 - 16);
}

#[test]
fn each_refusal_is_named() {
    assert_eq!(refused(&elf32(4)), MultibootError::Requires(4).into());
    assert_eq!(
        refused(&elf32(3)[..0x1000]),
        ElfError::SegmentOutsideFile(0).into()
    );
    let mut kernel = elf32(3);
    kernel[0x1000] = 0;
    assert_eq!(refused(&kernel), LoadError::NoEntry);
    let mut kernel = elf32(3);
    kernel[27] = 0;
    assert_eq!(
        refused(&kernel),
        ElfError::EntryOutside(ENTRY.into()).into()
    );
    assert_eq!(refused(&header(3, &[])), LoadError::NotElf);
    for addresses in [
        [0x10_0000, 0x10_0010, 0, 0, 0x10_0000], // Header below the load address.
        [0x10_0020, 0x10_0000, 0, 0, 0x10_0000], // From before the file.
        [0x10_0000, 0x10_0000, 0x10_0400, 0, 0x10_0000], // Behind the file.
        [0x10_0000, 0x10_0000, 0x0f_0000, 0, 0x10_0000], // Ends before it begins.
        [0x10_0000, 0x10_0000, 0, 0x10_0010, 0x10_0000], // BSS in the image.
        [0x10_0000, 0x10_0000, 0, 0, 0x10_1000], // Entry outside.
    ] {
        assert_eq!(refused(&flat(addresses)), MultibootError::Addresses.into());
    }
    let want = MultibootError::OutsideMemory {
        start: 0x10_0000,
        bytes: 0x70_0001,
    };
    let big = flat([0x10_0000, 0x10_0000, 0, 0x80_0001, 0x10_0000]);
    assert_eq!(refused(&big), want.into());
    let truncated = header(1 << 16, &[0x10_0000, 0x10_0000]);
    assert_eq!(refused(&truncated), MultibootError::Addresses.into());
}

proptest! {
    #[test]
    fn any_addresses_keep_the_plan_sound(
        addresses in prop::array::uniform5(
            prop_oneof![Just(0u32), 0xf_fff0u32..0x10_0300, 0x7f_ff00u32..0x80_0100, any::<u32>()]
        ),
    ) {
        if let Ok(plan) = plan(&guest(&flat(addresses))) {
            check_plan(&plan);
        }
    }

    #[test]
    fn damaged_images_keep_the_plan_sound(
        damage in prop::collection::vec((0usize..84, any::<u8>()), 1..5),
    ) {
        let mut kernel = elf32(3);
        for (at, byte) in damage {
            kernel[at] = byte;
        }
        if let Ok(plan) = plan(&guest(&kernel)) {
            check_plan(&plan);
        }
    }
}
