//! Plans of synthetic images of every kind.

use super::*;
use alloc::string::ToString;
use proptest::prelude::*;

mod linux;
mod multiboot;
mod pvh;

/// The memory map of 8 MiB: address, length, type.
const RANGES_OF_8_MIB: [[u64; 3]; 4] = [
    [0, 0xa_0000, 1],
    [0xe_0000, 0x2_0000, 2],
    [0x10_0000, 7 << 20, 1],
    [0xe000_0000, 1 << 20, 2],
];

fn guest(kernel: &[u8]) -> Guest<'_> {
    Guest {
        kernel,
        ramdisk: None,
        cmdline: "hello world",
        memory_bytes: 8 << 20,
        vcpus: 1,
    }
}

fn word(block: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(block[at..at + 4].try_into().unwrap())
}

fn long(block: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(block[at..at + 8].try_into().unwrap())
}

/// The guest's memory from `address` on, in one piece.
fn at<'p>(plan: &'p LoadPlan<'_>, address: u64) -> &'p [u8] {
    let covers =
        |piece: &&Piece<'_>| (piece.address..piece.address + piece.bytes()).contains(&address);
    let piece = plan.pieces.iter().find(covers).unwrap();
    let offset = (address - piece.address) as usize;
    match &piece.content {
        Content::Image(bytes) => &bytes[offset..],
        Content::Made(bytes) => &bytes[offset..],
        Content::Zero(_) => panic!("{address:#x} is zero"),
    }
}

/// What is true of every plan.
fn check_plan(plan: &LoadPlan<'_>) {
    let mut pieces: Vec<_> = plan
        .pieces
        .iter()
        .map(|p| p.address..p.address + p.bytes())
        .collect();
    pieces.sort_by_key(|range| range.start);
    assert!(pieces.windows(2).all(|pair| pair[0].end <= pair[1].start));
    let whole = |range: &Range<u64>| !range.is_empty() && range.end <= plan.memory[0].end;
    assert!(pieces.iter().all(whole));
    assert!(!at(plan, plan.state.rip).is_empty());
    let tables = plan
        .pieces
        .iter()
        .filter(|p| (0xa_0000..0x10_0000).contains(&p.address));
    assert_eq!(tables.count(), 1, "only the tables lie in the hole");
    assert_eq!(plan.state.check(36), Ok(()));
}

#[test]
fn images_of_no_kind_are_named() {
    let refused = |bytes: &[u8]| plan(&guest(bytes)).unwrap_err();
    assert_eq!(refused(&[0x1f, 0x8b, 8]), LoadError::Compressed);
    assert_eq!(
        refused(&[0x7f, b'E', b'L', b'F', 2, 2, 1]),
        LoadError::ElfClass
    );
    assert_eq!(refused(b""), LoadError::Unknown);
    assert!(refused(b"MZ").to_string().contains("no kernel"));
}

#[test]
fn the_map_grows_a_range_above_4_gib() {
    let map = MemoryMap::new((3 << 30) + 4096).unwrap();
    assert_eq!(map.low_end(), 3 << 30);
    assert_eq!(
        map.ranges.last().unwrap(),
        &(4 << 30..(4 << 30) + 4096, RangeKind::Ram)
    );
    assert!(map.has_low_ram(0, 0xa_0000) && !map.has_low_ram(0, 0xa_0001));
    assert!(!map.has_low_ram(0xe_0000, 1) && !map.has_low_ram(4 << 30, 1));
    assert!(!map.has_low_ram(u64::MAX, 2));
    assert!(
        map.ranges
            .windows(2)
            .all(|pair| pair[0].0.end <= pair[1].0.start)
    );
}

proptest! {
    #[test]
    fn any_bytes_are_refused_or_planned(
        bytes in prop::collection::vec(any::<u8>(), 0..1200),
        class in 0u8..4,
        linux in any::<bool>(),
    ) {
        let mut kernel = bytes;
        match class {
            0 => {}
            1 | 2 => kernel.splice(0..0, [0x7f, b'E', b'L', b'F', class, 1, 1]).for_each(drop),
            _ => {
                let header = [0x02, 0xb0, 0xad, 0x1b, 0, 0, 1, 0, 0xfe, 0x4f, 0x51, 0xe4];
                kernel.splice(0..0, header).for_each(drop);
            }
        }
        if linux && kernel.len() > 0x300 {
            kernel[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
            kernel[0x202..0x206].copy_from_slice(b"HdrS");
        }
        if let Ok(plan) = plan(&guest(&kernel)) {
            check_plan(&plan);
        }
    }
}
