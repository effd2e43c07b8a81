//! A file that is larger than the memory there is: refused with a reason, and whoever refused it lives on.
//! By itself in a program, because the limit is the whole program's.

use cap::Cap;
use godwit_backends::fake::{Arena, RamDisk, finish};
use godwit_backends::storage::blocks::Blocks;
use godwit_backends::storage::fat::FatError;
use godwit_backends::storage::files::Files;
use std::alloc::System;
use std::rc::Rc;

#[global_allocator]
static HEAP: Cap<System> = Cap::new(System, usize::MAX);

const MIB: usize = 1 << 20;
/// Memory beyond what is in use when the files are there.
const LEFT_BYTES: usize = 8 * MIB;

#[test]
fn a_file_larger_than_the_memory_left_is_refused_and_a_smaller_one_read() {
    let arena = Arena::new(2 * MIB);
    let disk = RamDisk::with_contents(arena.clone(), vec![0; 48 * MIB], 512);
    let files = finish(Files::format(Blocks::new(Rc::new(disk), arena), 1)).unwrap();
    let most = 1 << 30;
    for (path, mib) in [("small", 4), ("near", 7), ("large", 16)] {
        finish(files.write(path, &vec![0x5a; mib * MIB])).unwrap();
    }
    HEAP.set_limit(HEAP.allocated() + LEFT_BYTES).unwrap();
    let large = finish(files.read("large", most));
    assert_eq!(large, Err(FatError::NoMemory { bytes: 16 << 20 }));
    // It would fit and leave nobody enough to go on with.
    let near = finish(files.read("near", most));
    assert_eq!(near, Err(FatError::NoMemory { bytes: 7 << 20 }));
    let said = near.unwrap_err().to_string();
    assert!(said.contains("boot with a larger dom0_mem="), "{said}");
    for _ in 0..3 {
        let small = finish(files.read("small", most)).unwrap();
        assert!(small.len() == 4 * MIB && small.iter().all(|byte| *byte == 0x5a));
    }
    // What was refused is there when there is memory.
    HEAP.set_limit(usize::MAX).unwrap();
    assert_eq!(finish(files.read("large", most)).unwrap().len(), 16 * MIB);
}
