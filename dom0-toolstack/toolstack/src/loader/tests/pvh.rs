//! PVH images that load, and ELF images that do not.

use super::*;
use alloc::string::ToString;

const CODE: &[u8] = &[0xf4; 100];

/// A program header: type, offset, physical address, bytes in file, bytes in memory, alignment.
type Header = [u64; 6];

/// An image of program headers followed by a note and the code.
fn image(headers: &[Header], note: &[u8]) -> Vec<u8> {
    let mut file = std::vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0];
    file.resize(16, 0);
    file.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    file.extend(0xffff_ffff_8000_0000u64.to_le_bytes());
    file.extend(64u64.to_le_bytes());
    file.extend([0; 12]);
    file.extend([64, 0, 56, 0]);
    file.extend((headers.len() as u16).to_le_bytes());
    file.resize(64, 0);
    for [kind, offset, address, in_file, in_memory, align] in headers {
        file.extend((*kind as u32).to_le_bytes());
        file.extend(5u32.to_le_bytes());
        for value in [offset, address, address, in_file, in_memory, align] {
            file.extend(value.to_le_bytes());
        }
    }
    file.resize(NOTE_AT as usize, 0);
    file.extend(note);
    file.resize(CODE_AT as usize, 0);
    file.extend(CODE);
    file
}

const NOTE_AT: u64 = 64 + 4 * 56;
const CODE_AT: u64 = 512;

fn note(kind: u32, descriptor: &[u8]) -> Vec<u8> {
    let mut note = Vec::new();
    for word in [4, descriptor.len() as u32, kind] {
        note.extend(word.to_le_bytes());
    }
    note.extend(b"Xen\0");
    note.extend(descriptor);
    note
}

fn entry_note(entry: u32) -> Vec<u8> {
    note(18, &entry.to_le_bytes())
}

const LOAD: Header = [1, CODE_AT, 0x10_0000, 100, 5000, 4096];
const NOTES: Header = [4, NOTE_AT, 0, 20, 20, 4];

fn good() -> Vec<u8> {
    image(&[LOAD, NOTES], &entry_note(0x10_0010))
}

#[test]
fn kernel_start_information_and_state() {
    let kernel = good();
    let plan = plan(&guest(&kernel)).unwrap();
    check_plan(&plan);
    assert_eq!((plan.memory.len(), plan.memory[0].clone()), (1, 0..8 << 20));
    assert_eq!(plan.pieces[0].content, Content::Image(CODE));
    assert_eq!(
        (plan.pieces[1].address, plan.pieces[1].bytes()),
        (0x10_0064, 4900)
    );
    assert_eq!((plan.state.rip, plan.state.gprs[3]), (0x10_0010, 0x10_2000));
    let Content::Made(block) = &plan.pieces[2].content else {
        panic!("the start information is made");
    };
    assert_eq!(
        block[..12],
        [0x78, 0xc5, 0x6e, 0x33, 1, 0, 0, 0, 0, 0, 0, 0]
    );
    assert_eq!((long(block, 16), long(block, 32)), (0, 0xe_0000));
    assert_eq!(plan.pieces[3].address, 0xe_0000);
    let Content::Made(tables) = &plan.pieces[3].content else {
        panic!("the tables are made");
    };
    assert_eq!(&tables[..8], b"RSD PTR ");
    let text = (long(block, 24) - 0x10_2000) as usize;
    assert_eq!(&block[text..], b"hello world\0");
    let map = (long(block, 40) - 0x10_2000) as usize;
    let ranges: Vec<_> = (0..long(block, 48) as usize)
        .map(|index| [0, 8, 16].map(|at| long(block, map + index * 24 + at)))
        .collect();
    assert_eq!(ranges, RANGES_OF_8_MIB);
}

#[test]
fn ramdisk_and_high_memory() {
    let kernel = good();
    let ramdisk = [7; 5000];
    let mut guest = guest(&kernel);
    guest.ramdisk = Some(&ramdisk);
    guest.memory_bytes = (3 << 30) + (1 << 20);
    let plan = plan(&guest).unwrap();
    assert_eq!(plan.memory, [0..3 << 30, 4 << 30..(4 << 30) + (1 << 20)]);
    let Content::Made(block) = &plan.pieces[2].content else {
        panic!("the start information is made");
    };
    assert_eq!(block[12], 1);
    let list = (long(block, 16) - plan.state.gprs[3]) as usize;
    assert_eq!(
        (long(block, list), long(block, list + 8)),
        (0x10_3000, 5000)
    );
    assert_eq!(plan.pieces[3].address, 0x10_3000);
    let map = (long(block, 40) - plan.state.gprs[3]) as usize;
    assert_eq!(
        (long(block, map + 96), long(block, map + 104)),
        (4 << 30, 1 << 20)
    );
}

#[test]
fn the_entry_state_is_flat_protected_mode() {
    let kernel = good();
    let state = plan(&guest(&kernel)).unwrap().state;
    assert_eq!((state.cr0, state.efer, state.cr4), (0x11, 0, 0));
    assert_eq!((state.cs.limit, state.ss.limit), (!0, !0));
}

#[test]
fn notes_among_others_and_with_wide_padding() {
    let mut notes = note(1, b"GNU");
    notes.resize(notes.len().next_multiple_of(4), 0);
    notes.extend(note(18, &0x10_0010u64.to_le_bytes()));
    let header = [4, NOTE_AT, 0, notes.len() as u64, 0, 4];
    assert!(plan(&guest(&image(&[header, LOAD], &notes))).is_ok());
    let header = [4, NOTE_AT, 0, 20, 20, 8];
    assert!(plan(&guest(&image(&[header, LOAD], &entry_note(0x10_0010)))).is_ok());
}

#[test]
fn each_refusal_is_named() {
    let with = |headers: &[Header], note: &[u8]| plan(&guest(&image(headers, note))).unwrap_err();
    let entry = entry_note(0x10_0010);
    let load = |index: usize, value: u64| {
        let mut header = LOAD;
        header[index] = value;
        with(&[header, NOTES], &entry)
    };
    let outside = |start, bytes| ElfError::SegmentOutsideMemory {
        segment: 0,
        start,
        bytes,
    };
    for (error, want) in [
        (with(&[NOTES], &entry), ElfError::NothingToLoad),
        (with(&[LOAD, NOTES, NOTES], &entry), ElfError::EntryTwice),
        (
            with(&[LOAD, NOTES], &entry_note(0x10_0064)),
            ElfError::EntryOutside(0x10_0064),
        ),
        (
            with(&[LOAD, [4, NOTE_AT, 0, 18, 0, 4]], &note(18, &[1, 2])),
            ElfError::EntryNoteSize(2),
        ),
        (
            with(&[LOAD, [4, NOTE_AT, 0, 19, 0, 4]], &entry),
            ElfError::NoteDamaged(1),
        ),
        (
            with(&[LOAD, [4, 9999, 0, 20, 0, 4]], &entry),
            ElfError::SegmentOutsideFile(1),
        ),
        (load(1, u64::MAX), ElfError::SegmentOutsideFile(0)),
        (load(3, 1000), ElfError::SegmentOutsideFile(0)),
        (load(4, 99), ElfError::SegmentShrinks(0)),
        (load(2, (8 << 20) - 4999), outside((8 << 20) - 4999, 5000)),
        (load(2, u64::MAX), outside(u64::MAX, 5000)),
        (
            with(&[LOAD, [1, CODE_AT, 0x10_1387, 1, 1, 0], NOTES], &entry),
            ElfError::SegmentsOverlap(0, 1),
        ),
        (load(2, (8 << 20) - 5000), ElfError::EntryOutside(0x10_0010)),
    ] {
        assert_eq!(error, want.into());
        assert!(!error.to_string().is_empty());
    }
    assert_eq!(with(&[LOAD], &entry), LoadError::NoEntry);
}

#[test]
fn headers_that_are_wrong_are_named() {
    let broken = |at: usize, byte: u8| {
        let mut kernel = good();
        kernel[at] = byte;
        plan(&guest(&kernel)).unwrap_err()
    };
    assert_eq!(broken(0, 0), LoadError::Unknown);
    assert_eq!(broken(5, 2), LoadError::ElfClass);
    assert_eq!(broken(16, 3), ElfError::PositionIndependent.into());
    assert_eq!(broken(16, 1), ElfError::Kind(1).into());
    assert_eq!(broken(18, 3), ElfError::Machine(3).into());
    assert_eq!(broken(54, 57), ElfError::HeaderSize(57).into());
    assert_eq!(broken(56, 65), ElfError::TooManySegments(65).into());
    assert_eq!(broken(39, 0xff), ElfError::HeadersOutsideFile.into());
    assert_eq!(
        plan(&guest(&[0x1f, 0x8b, 8])).unwrap_err(),
        LoadError::Compressed
    );
}

#[test]
fn no_room_is_named() {
    let kernel = good();
    let big = std::vec![0; 8 << 20];
    let mut guest = guest(&kernel);
    guest.ramdisk = Some(&big);
    let want = LoadError::NoRoom {
        what: "ramdisk",
        bytes: 8 << 20,
    };
    assert_eq!(plan(&guest).unwrap_err(), want);
    guest.memory_bytes = 0x10_2000;
    assert!(matches!(plan(&guest), Err(LoadError::NoRoom { .. })));
    for too_small in [0, 0x10_0000] {
        guest.memory_bytes = too_small;
        let want = LoadError::MemoryTooSmall(too_small);
        assert_eq!(plan(&guest).unwrap_err(), want);
    }
    guest.memory_bytes = 8 << 20;
    guest.vcpus = 0;
    assert_eq!(plan(&guest).unwrap_err(), LoadError::Vcpus(0));
}

proptest! {
    #[test]
    fn damaged_images_never_panic(
        damage in prop::collection::vec((0usize..700, any::<u8>()), 1..6),
        cut in 0usize..700,
    ) {
        let mut kernel = good();
        for (at, byte) in damage {
            if let Some(slot) = kernel.get_mut(at) {
                *slot = byte;
            }
        }
        kernel.truncate(kernel.len().max(cut) - cut / 4);
        if let Ok(plan) = plan(&guest(&kernel)) {
            check_plan(&plan);
        }
    }

    #[test]
    fn any_headers_keep_the_plan_sound(
        headers in prop::collection::vec(
            (prop::sample::select(std::vec![0u64, 1, 1, 1, 4, 6]), 500u64..620, 0u64..0x2000, 0u64..120, 0u64..0x3000)
                .prop_map(|(kind, offset, address, file, memory)| [kind, offset, address, file, memory, 4]),
            0..4,
        ),
        entry in 0u32..0x3000,
    ) {
        let mut headers = headers;
        headers.truncate(3);
        headers.push(NOTES);
        if let Ok(plan) = plan(&guest(&image(&headers, &entry_note(entry)))) {
            check_plan(&plan);
        }
    }

    #[test]
    fn any_bytes_are_refused_or_planned(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let mut kernel = std::vec![0x7f, b'E', b'L', b'F', 2, 1, 1];
        kernel.extend(bytes);
        let _ = plan(&guest(&kernel));
    }
}
