//! A configuration partition with anything on it: opening and reading are total, and so is
//! writing where it is allowed.

use super::patches;
use godwit_backends::fake::{Arena, RamDisk, finish};
use godwit_backends::storage::blocks::Blocks;
use godwit_backends::storage::files::Files;
use std::rc::Rc;
use std::sync::OnceLock;

const BYTES: usize = 17 << 20;
const FILE_BYTES_MAX: u64 = 64 << 10;

fn blocks(bytes: Vec<u8>) -> (Rc<RamDisk>, Blocks) {
    let arena = Arena::new(1 << 20);
    let disk = Rc::new(RamDisk::with_contents(arena.clone(), bytes, 512));
    (disk.clone(), Blocks::new(disk, arena))
}

/// A file system with a few files.
fn good() -> Vec<u8> {
    static GOOD: OnceLock<Vec<u8>> = OnceLock::new();
    let make = || {
        let (disk, blocks) = blocks(vec![0; BYTES]);
        let files = finish(Files::format(blocks, 7)).expect("a file system");
        for (path, bytes) in [
            ("/guests/a long name.cfg", 9000),
            ("/keys", 10),
            ("/empty", 0),
        ] {
            finish(files.write(path, &vec![7; bytes])).expect("a file");
        }
        disk.contents()
    };
    GOOD.get_or_init(make).clone()
}

/// One input: patches to a good file system. Returns whether it can still be written to.
pub(crate) fn judge(input: &[u8]) -> bool {
    let mut bytes = good();
    patches::apply(&mut bytes, input);
    let Ok(files) = finish(Files::open(blocks(bytes).1)) else {
        return false;
    };
    for directory in ["/", "/guests"] {
        for file in finish(files.list(directory)).unwrap_or_default() {
            let path = format!("{directory}/{}", file.name);
            let _ = finish(files.read(&path, FILE_BYTES_MAX));
            let _ = finish(files.list(&path));
        }
    }
    let contents = [3; 5000];
    let written = finish(files.write("/guests/a long name.cfg", &contents));
    let _ = finish(files.make_directory("/new"));
    let _ = finish(files.delete("/keys"));
    match (finish(files.damage()), written) {
        (Some(_), written) => assert!(written.is_err(), "a damaged file system was written to"),
        (None, Ok(())) => {
            let found = finish(files.read("/guests/a long name.cfg", FILE_BYTES_MAX));
            assert_eq!(found.as_deref(), Ok(&contents[..]));
            return true;
        }
        (None, Err(_)) => {}
    }
    false
}
