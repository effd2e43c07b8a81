//! bzImages.

use super::*;

const KERNEL_AT: usize = 5 * 512;
const KERNEL_BYTES: usize = 4096;

/// A 64-bit relocatable bzImage of protocol 2.15 that wants 3 MiB at 2 MiB.
fn image() -> Vec<u8> {
    let mut file = std::vec![0; KERNEL_AT];
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(0x1ef, &[0xee, 0xee, 4]);
    put(0x1f4, &(KERNEL_BYTES as u32 / 16).to_le_bytes());
    put(0x1fe, &[0x55, 0xaa, 0xeb, 0x66]);
    put(0x202, b"HdrS");
    put(0x206, &0x20fu16.to_le_bytes());
    put(0x211, &[0x81]);
    put(0x214, &0x10_0000u32.to_le_bytes());
    put(0x224, &[1, 2]);
    put(0x22c, &0x7fff_ffffu32.to_le_bytes());
    put(0x230, &0x20_0000u32.to_le_bytes());
    put(0x234, &[1, 21, 1, 0]);
    put(0x238, &2047u32.to_le_bytes());
    put(0x250, &[9; 8]);
    put(0x258, &0x20_0000u64.to_le_bytes());
    put(0x260, &0x30_0000u32.to_le_bytes());
    put(0x268, &[0xdd; 4]);
    file.extend((0..KERNEL_BYTES).map(|at| (at / 256) as u8));
    file
}

fn with(at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut file = image();
    file[at..at + bytes.len()].copy_from_slice(bytes);
    file
}

fn refused(kernel: &[u8]) -> LoadError {
    let error = plan(&guest(kernel)).unwrap_err();
    assert!(!error.to_string().is_empty());
    error
}

#[test]
fn a_64_bit_kernel_with_ramdisk() {
    let (mut kernel, ramdisk) = (image(), std::vec![7; 5000]);
    kernel.extend([0x55; 700]); // A signature.
    let guest = Guest {
        ramdisk: Some(&ramdisk),
        ..guest(&kernel)
    };
    let plan = plan(&guest).unwrap();
    check_plan(&plan);
    assert_eq!(plan.pieces[0].address, 0x20_0000);
    assert_eq!(plan.pieces[0].bytes(), KERNEL_BYTES as u64);
    assert_eq!(plan.pieces[1].address + plan.pieces[1].bytes(), 0x50_0000);
    let state = &plan.state;
    assert_eq!((state.rip, state.gprs[3], state.gprs[5]), (0x20_0200, 0, 0));
    assert_eq!(at(&plan, state.rip)[0], 2);
    let page = at(&plan, state.gprs[6]);
    assert_eq!((page.len(), long(page, 0x70)), (4096, 0xe_0000));
    // The sentinel before the header stays zero, and nothing behind the header is copied.
    assert_eq!((page[0x1ef], page[0x1f1], word(page, 0x268)), (0, 4, 0));
    assert_eq!((page[0x210], page[0x211]), (0xff, 1));
    assert_eq!((word(page, 0x214), long(page, 0x250)), (0x20_0000, 0));
    assert_eq!(
        (word(page, 0x224) & 0xffff, word(page, 0x230)),
        (0, 0x20_0000)
    );
    let cmdline = at(&plan, word(page, 0x228).into());
    assert_eq!(cmdline, b"hello world\0");
    let (address, bytes) = (word(page, 0x218), word(page, 0x21c));
    assert_eq!((address, bytes), ((8 << 20) - 8192, 5000));
    assert_eq!(at(&plan, address.into()), ramdisk);
    assert_eq!(page[0x1e8], 4);
    for (index, want) in RANGES_OF_8_MIB.iter().enumerate() {
        let entry = &page[0x2d0 + index * 20..];
        let kind = u64::from(word(entry, 16));
        assert_eq!(&[long(entry, 0), long(entry, 8), kind], want);
    }
}

/// Walks the page tables of a plan.
fn translate(plan: &LoadPlan<'_>, linear: u64) -> Option<u64> {
    const FRAME: u64 = 0xf_ffff_ffff_f000;
    let mut table = plan.state.cr3;
    for level in [39, 30, 21] {
        let index = (linear >> level & 511) * 8;
        let entry = long(at(plan, table + index), 0);
        if entry & 3 != 3 {
            return None;
        }
        if entry & 1 << 7 != 0 {
            return Some((entry & FRAME) + linear % (1 << level));
        }
        table = entry & FRAME;
    }
    panic!("pages are large");
}

#[test]
fn long_mode_maps_4_gib_to_themselves() {
    let kernel = image();
    let plan = plan(&guest(&kernel)).unwrap();
    let state = &plan.state;
    assert_eq!(
        (state.cr0, state.cr4, state.efer),
        (0x8000_0011, 0x20, 0x500)
    );
    for linear in [0, 0x1234, 0x20_0200, (3 << 30) + 5, (4 << 30) - 1] {
        assert_eq!(translate(&plan, linear), Some(linear));
    }
    assert_eq!(translate(&plan, 4 << 30), None);
    assert_eq!(translate(&plan, 1 << 39), None);
    let table = &at(&plan, state.gdtr_base)[..usize::from(state.gdtr_limit) + 1];
    for (segment, index) in [(state.cs, 2), (state.ds, 3), (state.ss, 3)] {
        assert_eq!(usize::from(segment.selector), index * 8);
        let descriptor = long(table, index * 8);
        let attributes = (descriptor >> 40 & 0xf0ff) as u16;
        assert_eq!((attributes, segment.base), (segment.attributes, 0));
    }
    assert_eq!(state.cs.attributes >> 13 & 3, 1, "L without D");
}

#[test]
fn other_kernels_are_entered_in_protected_mode() {
    for kernel in [with(0x236, &[0]), with(0x206, &[0x0b])] {
        let plan = plan(&guest(&kernel)).unwrap();
        check_plan(&plan);
        let state = &plan.state;
        assert_eq!((state.rip, state.cr0, state.efer), (0x20_0000, 0x11, 0));
        assert_eq!((state.cs.selector, state.es.selector), (0x10, 0x18));
        let descriptor = long(at(&plan, state.gdtr_base), 16);
        assert_eq!((descriptor >> 40 & 0xf0ff) as u16, state.cs.attributes);
        let page = at(&plan, state.gprs[6]);
        assert_eq!(word(page, 0x202), u32::from_le_bytes(*b"HdrS"));
    }
}

#[test]
fn kernels_go_where_they_can_run() {
    let placed = |kernel: &[u8]| plan(&guest(kernel)).map(|plan| plan.pieces[0].address);
    assert_eq!(
        placed(&with(0x258, &[0, 0, 0x28])),
        Ok(0x40_0000),
        "aligned"
    );
    assert_eq!(placed(&with(0x258, &[0; 8])), Ok(0x20_0000), "above 1 MiB");
    let mut fixed = with(0x234, &[0]);
    assert_eq!(placed(&fixed), Ok(0x20_0000));
    fixed[0x25a] = 0x28;
    let want = LinuxError::NotRelocatable(0x28_0000);
    assert_eq!(placed(&fixed), Err(want.into()));
    let want = LinuxError::KernelOutsideMemory {
        start: 0x60_0000,
        bytes: 0x30_0000,
    };
    assert_eq!(placed(&with(0x258, &[0, 0, 0x60])), Err(want.into()));
    assert!(
        want.to_string()
            .ends_with("give it 9 MiB of memory or more")
    );
    assert!(placed(&with(0x258, &[0xff; 8])).is_err());
    assert!(placed(&with(0x260, &[0xff; 4])).is_err());
}

#[test]
fn each_refusal_is_named() {
    assert_eq!(
        refused(&with(0x206, &[9])),
        LinuxError::Protocol(0x209).into()
    );
    assert_eq!(
        refused(&with(0x201, &[0x60])),
        LinuxError::SetupCutOff.into()
    );
    assert_eq!(refused(&image()[..0x230]), LinuxError::SetupCutOff.into());
    assert_eq!(refused(&with(0x211, &[0])), LinuxError::LoadedLow.into());
    assert_eq!(
        refused(&with(0x230, &[3])),
        LinuxError::Alignment(0x20_0003).into()
    );
    assert_eq!(
        refused(&with(0x230, &[0; 4])),
        LinuxError::Alignment(0).into()
    );
    let cut_off = |expected, present| LinuxError::KernelCutOff { expected, present }.into();
    let short = &image()[..KERNEL_AT + KERNEL_BYTES - 16];
    assert_eq!(refused(short), cut_off(4096, 4080));
    assert_eq!(refused(&with(0x1f4, &[0; 4])), cut_off(0, 4096));
    assert_eq!(refused(&with(0x1f1, &[255])), cut_off(4096, 0));
    let most = with(0x238, &[10, 0]);
    let want = LinuxError::CommandLineTooLong {
        bytes: 11,
        most: 10,
    };
    assert_eq!(refused(&most), want.into());
}

#[test]
fn a_ramdisk_stays_where_the_kernel_reaches() {
    let (kernel, ramdisk) = (with(0x22c, &0x5f_ffffu32.to_le_bytes()), [7; 4096]);
    let ramdisk_at = |kernel, ramdisk| {
        let guest = Guest {
            ramdisk: Some(ramdisk),
            ..guest(kernel)
        };
        plan(&guest).map(|plan| word(at(&plan, plan.state.gprs[6]), 0x218))
    };
    assert_eq!(ramdisk_at(&kernel, &ramdisk), Ok(0x5f_f000));
    let big = std::vec![0; (1 << 20) + 1];
    let want = LoadError::NoRoom {
        what: "ramdisk",
        bytes: (1 << 20) + 1,
    };
    assert_eq!(ramdisk_at(&kernel, &big), Err(want));
    assert!(ramdisk_at(&with(0x22c, &[0; 4]), &ramdisk).is_err());
}

proptest! {
    #[test]
    fn damaged_headers_keep_the_plan_sound(
        damage in prop::collection::vec((0x1f1usize..0x270, any::<u8>()), 1..4),
        cut in 0usize..200,
        ramdisk in 0usize..9000,
    ) {
        let mut kernel = image();
        for (at, byte) in damage {
            kernel[at] = byte;
        }
        kernel.truncate(kernel.len() - cut);
        let ramdisk = std::vec![1; ramdisk];
        let guest = Guest { ramdisk: Some(&ramdisk), ..guest(&kernel) };
        if let Ok(plan) = plan(&guest) {
            check_plan(&plan);
        }
    }
}
