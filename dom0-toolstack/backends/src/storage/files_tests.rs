use super::blocks::Blocks;
use super::cached::CachedDisk;
use super::fat::FatError;
use super::files::Files;
use crate::fake::{Arena, RamDisk, finish};
use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use std::process::Command;

const MIB: usize = 1 << 20;
const MOST: u64 = 1 << 30;

fn blocks(bytes: Vec<u8>, block_bytes: u32) -> (Rc<RamDisk>, Blocks) {
    let arena = Arena::new(2 * MIB);
    let disk = Rc::new(RamDisk::with_contents(arena.clone(), bytes, block_bytes));
    (disk.clone(), Blocks::new(disk, arena))
}

fn formatted(bytes: usize, block_bytes: u32) -> (Rc<RamDisk>, Files) {
    let (disk, blocks) = blocks(vec![0xa5; bytes], block_bytes);
    (disk, finish(Files::format(blocks, 0x1234_5678)).unwrap())
}

fn open(bytes: Vec<u8>) -> Files {
    finish(Files::open(blocks(bytes, 512).1)).unwrap()
}

/// `fsck.fat` of the package dosfstools finds nothing to say.
fn fsck(bytes: &[u8]) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    let output = Command::new("/sbin/fsck.fat")
        .arg("-n")
        .arg(file.path())
        .output();
    let output = output.expect("fsck.fat, of the package dosfstools");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}");
}

fn names(files: &Files, path: &str) -> Vec<String> {
    let listed = finish(files.list(path)).unwrap();
    listed.into_iter().map(|file| file.name).collect()
}

#[test]
fn files_are_written_read_and_deleted() {
    for (bytes, block_bytes) in [(16 * MIB, 512), (32 * MIB, 4096), (512 * MIB, 512)] {
        let (disk, files) = formatted(bytes, block_bytes);
        assert_eq!(names(&files, "/"), ["guests", "kernels"]);
        let free = finish(files.free_bytes());
        let contents: Vec<u8> = (0..100_000u32).map(|at| (at % 249) as u8).collect();
        finish(files.write("/kernels/vmlinuz-6.1 cloud", &contents)).unwrap();
        finish(files.write("guests/web.cfg", b"one")).unwrap();
        finish(files.write("/guests/WEB.cfg", b"two")).unwrap();
        finish(files.write("/keys", b"")).unwrap();
        assert_eq!(names(&files, "/guests"), ["web.cfg"]);
        assert_eq!(finish(files.read("/guests/web.cfg", MOST)).unwrap(), b"two");
        let path = "/kernels/VMLINUZ-6.1 cloud";
        assert_eq!(finish(files.read(path, MOST)).unwrap(), contents);
        let mut piece = [0; 10];
        finish(files.read_at(path, 50_000, &mut piece)).unwrap();
        assert_eq!(piece, contents[50_000..50_010]);
        let (_, again) = blocks(disk.contents(), block_bytes);
        let again = finish(Files::open(again)).unwrap();
        assert_eq!(
            (finish(again.damage()), finish(again.reclaimed())),
            (None, 0)
        );
        assert_eq!(finish(again.read(path, MOST)).unwrap(), contents);
        if bytes < 512 * MIB {
            fsck(&disk.contents());
        }
        for path in [path, "/guests/web.cfg", "/keys"] {
            finish(files.delete(path)).unwrap();
        }
        assert_eq!(finish(files.free_bytes()), free);
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let (_, files) = formatted(16 * MIB, 512);
    let write = |path| finish(files.write(path, b"x")).unwrap_err();
    assert!(matches!(write("/none/x"), FatError::NotFound(_)));
    assert!(matches!(write("/guests"), FatError::WrongKind(_)));
    for name in [
        "/",
        "/a:b",
        "/a\n",
        "/a.",
        "/..",
        &format!("/{}", "x".repeat(256)),
    ] {
        let error = write(name);
        assert!(
            matches!(error, FatError::Name(_) | FatError::WrongKind(_)),
            "{name}"
        );
    }
    let exists = finish(files.make_directory("/GUESTS"));
    assert!(matches!(exists, Err(FatError::Exists(_))));
    finish(files.write("/guests/a", b"x")).unwrap();
    let refused = finish(files.delete("/guests"));
    assert!(matches!(refused, Err(FatError::NotEmpty(_))));
    let free = finish(files.free_bytes());
    let full = finish(files.write("/big", &vec![0; 17 * MIB]));
    assert_eq!(
        (full, finish(files.free_bytes())),
        (Err(FatError::Full), free)
    );
    let long = finish(files.read("/guests/a", 0));
    assert_eq!(long, Err(FatError::TooLong { bytes: 1, most: 0 }));
    let small = finish(Files::format(blocks(vec![0; MIB], 512).1, 0)).err();
    assert_eq!(small, Some(FatError::TooSmall));
    let none = finish(Files::open(blocks(vec![0; MIB], 512).1)).err();
    assert_eq!(none, Some(FatError::NotFat));
}

/// More names than a cluster has slots, of every length, then half of them deleted.
#[test]
fn directories_grow() {
    let (disk, files) = formatted(16 * MIB, 512);
    let name = |number: usize| format!("/guests/{}-{number}", "n".repeat(number * 4 % 200));
    for number in 0..60 {
        finish(files.write(&name(number), &[number as u8])).unwrap();
    }
    for number in (0..60).step_by(2) {
        finish(files.delete(&name(number))).unwrap();
    }
    finish(files.write("/guests/between \u{1f40e}", b"!")).unwrap();
    let files = open(disk.contents());
    for number in 0..60 {
        let found = finish(files.read(&name(number), MOST)).ok();
        let expected = (number % 2 == 1).then(|| vec![number as u8]);
        assert_eq!(found, expected, "{number}");
    }
    assert_eq!(
        finish(files.read("/guests/BETWEEN \u{1f40e}", MOST)).unwrap(),
        b"!"
    );
    fsck(&disk.contents());
}

/// mtools, the reference, writes what we read and reads what we write.
#[test]
fn mtools_agrees() {
    let work = tempfile::tempdir().unwrap();
    let (image, file) = (work.path().join("image"), work.path().join("file"));
    let contents: Vec<u8> = (0..70_000u32).map(|at| (at % 241) as u8).collect();
    let run = |program: &str, arguments: &[&str]| {
        let output = Command::new(program)
            .arg("-i")
            .arg(&image)
            .args(arguments)
            .output();
        let output = output.expect("the package mtools");
        assert!(output.status.success(), "{program}: {output:?}");
    };
    for wide in [false, true] {
        std::fs::write(&image, vec![0; 40 * MIB]).unwrap();
        std::fs::write(&file, &contents).unwrap();
        let kind: &[&str] = if wide {
            &["-F", "-c", "1"]
        } else {
            &["-c", "4"]
        };
        run(
            "mformat",
            &[kind, &["-h", "16", "-s", "63", "-T", "81920", "::"]].concat(),
        );
        run("mmd", &["::guests"]);
        run(
            "mcopy",
            &[file.to_str().unwrap(), "::guests/A long name.cfg"],
        );
        run("mcopy", &[file.to_str().unwrap(), "::PLAIN.TXT"]);
        let (disk, blocks) = blocks(std::fs::read(&image).unwrap(), 512);
        let files = finish(Files::open(blocks)).unwrap();
        for path in ["/guests/a LONG name.cfg", "/plain.txt"] {
            assert_eq!(finish(files.read(path, MOST)).unwrap(), contents);
        }
        finish(files.write("/guests/new one.cfg", &contents[..5000])).unwrap();
        finish(files.write("/plain.txt", b"short")).unwrap();
        std::fs::write(&image, disk.contents()).unwrap();
        fsck(&disk.contents());
        for (path, expected) in [
            ("::guests/new one.cfg", &contents[..5000]),
            ("::plain.txt", b"short"),
        ] {
            run("mcopy", &["-o", path, file.to_str().unwrap()]);
            assert_eq!(std::fs::read(&file).unwrap(), expected);
        }
    }
}

/// Every cut of making, replacing and deleting, with every kind of loss of what was not flushed.
#[test]
fn a_cut_leaves_the_old_file_or_the_new_one() {
    let (disk, files) = formatted(16 * MIB, 512);
    finish(files.write("/guests/a file.cfg", &[1; 9000])).unwrap();
    let start = disk.contents();
    let path = "/guests/a file.cfg";
    let other = format!("/guests/{}", "x".repeat(200));
    for cut in 0.. {
        let arena = Arena::new(2 * MIB);
        let disk = CachedDisk::new(arena.clone(), start.clone(), 512);
        let files = finish(Files::open(Blocks::new(disk.clone(), arena))).unwrap();
        disk.cut_after(cut);
        let mut steps = 0;
        let all = async {
            files.write(path, &[2; 1500]).await?;
            steps = 1;
            files.write(&other, &[3; 600]).await?;
            steps = 2;
            files.make_directory("/guests/more").await?;
            steps = 3;
            files.delete(path).await?;
            steps = 4;
            Ok::<(), FatError>(())
        };
        let ended = finish(all).is_ok();
        disk.losses(2, |bytes| {
            let files = open(bytes);
            assert_eq!(finish(files.damage()), None, "cut {cut}");
            let length = |path: &str| {
                finish(files.read(path, MOST)).map_or(0, |bytes| {
                    assert!(
                        bytes.iter().all(|byte| *byte == bytes[0]),
                        "cut {cut}: {path}"
                    );
                    bytes.len()
                })
            };
            let made = finish(files.list("/guests/more")).is_ok();
            let found = (length(path), length(&other), made);
            let states = [
                (9000, 0, false),
                (1500, 0, false),
                (1500, 600, false),
                (1500, 600, true),
                (0, 600, true),
            ];
            let possible = &states[steps..states.len().min(steps + 2)];
            assert!(
                possible.contains(&found),
                "cut {cut}, {steps} done: {found:?}"
            );
        });
        if ended {
            assert!(cut > 20, "all of it took {cut} writes");
            fsck(&disk.after_cut(|_| true));
            break;
        }
    }
}
