//! The server against qemu's clients on loopback (package qemu-utils), and against clients that say anything.

use super::{ServeError, Served, TRANSFER_BYTES_MAX};
use crate::fake::{Arena, RamDisk, finish};
use crate::storage::nbd::Stream;
use crate::storage::nbd::wire::*;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::task::{Context, Poll};
use proptest::prelude::*;
use std::net::TcpListener;
use std::process::Command;

const BYTES: usize = 64 << 10;

/// A client that says what it was given, then hangs up; what it hears is kept.
struct Said<'a>(&'a [u8], Vec<u8>);

impl Stream for Said<'_> {
    fn poll_read(&mut self, _: &mut Context<'_>, out: &mut [u8]) -> Poll<Result<usize, String>> {
        let (now, later) = self.0.split_at(out.len().min(self.0.len()));
        out[..now.len()].copy_from_slice(now);
        self.0 = later;
        Poll::Ready(Ok(now.len()))
    }

    fn poll_write(&mut self, _: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize, String>> {
        self.1.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }
}

fn option(option: u32, data: &[u8]) -> Vec<u8> {
    let mut said = OPTION_MAGIC.to_be_bytes().to_vec();
    said.extend(option.to_be_bytes());
    said.extend((data.len() as u32).to_be_bytes());
    said.extend(data);
    said
}

fn go(name: &str) -> Vec<u8> {
    let mut data = (name.len() as u32).to_be_bytes().to_vec();
    data.extend(name.as_bytes());
    data.extend([0, 0]);
    option(OPTION_GO, &data)
}

fn greeting(flags: u32) -> Vec<u8> {
    flags.to_be_bytes().to_vec()
}

/// What a disk of `0x11` is after a client, what the client heard, and how it ended.
fn served(said: &[u8], read_only: bool) -> (Vec<u8>, Vec<u8>, Result<(), ServeError>) {
    let memory = Arena::new(1 << 20);
    let disk = RamDisk::with_contents(memory.clone(), vec![0x11; BYTES], 512);
    let disk = Rc::new(disk);
    let export = Served::new("disk", disk.clone(), memory, read_only);
    let mut client = Said(said, Vec::new());
    let ended = finish(export.serve(&mut client));
    (disk.contents(), client.1, ended)
}

/// The numbers of the errors that a client gets for its requests, none of which gives data.
fn errors(requests: &[Vec<u8>], read_only: bool) -> Vec<u32> {
    let begun = [greeting(3), go("disk")].concat();
    let (_, before, _) = served(&begun, read_only);
    let all = [
        begun,
        requests.concat(),
        request(0, DISCONNECT, 0, 0, 0).into(),
    ]
    .concat();
    let (_, heard, ended) = served(&all, read_only);
    assert_eq!(ended, Ok(()));
    let replies = heard[before.len()..].chunks(16);
    let number = |reply: &[u8]| u32::from_be_bytes(reply[4..8].try_into().unwrap());
    replies.map(number).collect()
}

#[test]
fn wrong_requests_get_their_error_and_touch_nothing() {
    let end = BYTES as u64;
    let bad = |command, offset, bytes| request(0, command, 1, offset, bytes).to_vec();
    let write =
        |offset, bytes: u32| [bad(WRITE, offset, bytes), vec![0x22; bytes as usize]].concat();
    let cases = [
        (bad(READ, 1, 512), EINVAL),
        (bad(READ, 0, 0), EINVAL),
        (bad(READ, end, 512), EINVAL),
        (bad(READ, u64::MAX - 511, 512), EINVAL),
        (bad(READ, 0, TRANSFER_BYTES_MAX + 512), EINVAL),
        (write(end - 512, 1024), ENOSPC),
        (write(512, 100), EINVAL),
        (bad(TRIM, 0, u32::MAX), ENOSPC),
        (bad(WRITE_ZEROES, end, 512), ENOSPC),
        (bad(77, 0, 512), EINVAL),
        (request(1 << 7, FLUSH, 1, 0, 0).to_vec(), EINVAL),
        (request(NO_HOLE, TRIM, 1, 0, 512).to_vec(), EINVAL),
    ];
    let (requests, expected): (Vec<_>, Vec<_>) = cases.into_iter().unzip();
    assert_eq!(errors(&requests, false), expected);
    let all = [greeting(3), go("disk"), requests.concat()].concat();
    let (disk, _, ended) = served(&all, false);
    assert_eq!(ended, Err(ServeError::Closed));
    assert!(disk.iter().all(|byte| *byte == 0x11));
    let changing = [write(0, 512), bad(TRIM, 0, 512), bad(WRITE_ZEROES, 0, 512)];
    assert_eq!(errors(&changing, true), [EPERM; 3]);
    assert_eq!(errors(&changing, false), [0; 3]);
}

#[test]
fn another_name_gives_nothing_and_other_clients_are_told_apart() {
    let read = request(0, READ, 1, 0, 512).to_vec();
    for name in ["", "dis", "disk2", "DISK"] {
        let (_, heard, ended) = served(&[greeting(3), go(name), read.clone()].concat(), false);
        // The request is taken for an option that it is not.
        assert_eq!(ended, Err(ServeError::NotNbd), "{name}");
        assert!(!heard.contains(&0x11));
        let old = option(OPTION_EXPORT_NAME, name.as_bytes());
        let (_, _, ended) = served(&[greeting(3), old].concat(), false);
        assert_eq!(ended, Err(ServeError::NoExport));
    }
    let (_, _, ended) = served(&greeting(0), false);
    assert_eq!(ended, Err(ServeError::NotNbd));
    let (_, heard, ended) = served(&[greeting(1), option(1, b"disk")].concat(), false);
    assert_eq!(
        (heard.len(), ended),
        (18 + 8 + 2 + 124, Err(ServeError::Closed))
    );
    let long = [
        greeting(3),
        go("disk"),
        request(0, WRITE, 1, 0, 1 << 30).into(),
    ]
    .concat();
    assert_eq!(served(&long, false).2, Err(ServeError::TooLong(1 << 30)));
    let (_, _, ended) = served(&[greeting(3), option(9, b"").repeat(65)].concat(), false);
    assert_eq!(ended, Err(ServeError::TooMany));
}

proptest! {
    #[test]
    fn whatever_a_client_says_ends_and_writes_nothing_to_what_is_read_only(
        begins in 0..3usize,
        said in proptest::collection::vec(any::<u8>(), 0..200),
        commands in proptest::collection::vec((any::<u16>(), 0u16..9, any::<u64>(), 0u32..9000), 0..9),
    ) {
        let requests = commands.iter().flat_map(|(flags, command, offset, bytes)| {
            request(*flags, *command, 5, *offset % (2 * BYTES as u64), *bytes)
        });
        let head: [Vec<u8>; 3] = [vec![], greeting(3), [greeting(3), go("disk")].concat()];
        let all: Vec<u8> = head[begins].iter().copied().chain(requests).chain(said).collect();
        let (disk, heard, ended) = served(&all, true);
        prop_assert!(disk.iter().all(|byte| *byte == 0x11));
        prop_assert!(heard.len() < 18 + 64 * 100 + 9 * 9016);
        if let Err(error) = ended {
            prop_assert!(!error.to_string().is_empty());
        }
        let _ = served(&all, false);
    }
}

fn qemu(program: &str, arguments: &[&str]) {
    let done = Command::new(program).args(arguments).output().unwrap();
    let said = [done.stdout, done.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(
        done.status.success() && !said.contains("failed"),
        "{arguments:?}: {said}"
    );
}

#[test]
fn qemus_clients_write_zero_trim_read_and_compare() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = std::format!("nbd://{}/disk", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let memory = Arena::new(8 << 20);
        let disk = RamDisk::new(memory.clone(), 8192, 512);
        let export = Served::new("disk", disk, memory, false);
        for stream in listener.incoming() {
            // One that hangs up early is as good as one that takes leave.
            let _ = finish(export.serve(&mut stream.unwrap()));
        }
    });
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    let pattern: Vec<u8> = (0..4u32 << 20)
        .map(|at| (at / 512 * 7 + at % 13) as u8)
        .collect();
    std::fs::write(path, &pattern).unwrap();
    qemu(
        "qemu-img",
        &["convert", "-n", "-f", "raw", "-O", "raw", path, &url],
    );
    qemu(
        "qemu-img",
        &["compare", "-f", "raw", "-F", "raw", path, &url],
    );
    let changes = [
        "write -f -P 9 1M 1M",
        "write -z -u 2M 65536",
        "write -z 3M 512",
        "discard 0 4096",
        "flush",
    ];
    let mut arguments = vec!["-f", "raw"];
    changes
        .iter()
        .for_each(|change| arguments.extend(["-c", change]));
    let mut on_both = arguments.clone();
    on_both.push(&url);
    qemu("qemu-io", &on_both);
    let reads = ["read -P 9 1M 1M", "read -P 0 2M 65536", "read -P 0 3M 512"];
    let mut arguments = vec!["-f", "raw", "-r"];
    reads.iter().for_each(|read| arguments.extend(["-c", read]));
    arguments.push(&url);
    qemu("qemu-io", &arguments);
}
