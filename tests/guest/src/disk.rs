//! Blocks of a disk with contents that can be computed again.
//!
//! `path=/dev/vda`, `blocks=N` blocks of `bytes=4096`, `first=0`, `seed=1`, `round=0`,
//! `mode=write|check|random|both`. `write` goes through all of them in order and flushes; `check`
//! reads them back past the page cache; `random` reads `count=N` scattered ones and checks them
//! (they must have been written with the same seed and round). The same arguments in a later run,
//! after a crash or in another guest, check what the earlier one wrote. One line
//! `DISK MODE blocks=N bytes=B ticks=T` each.

use crate::arguments::Arguments;
use crate::clock::ticks;
use crate::pattern;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};

/// Direct transfers want memory aligned to a disk sector; a page is.
const ALIGNMENT: usize = 4096;

struct Job {
    file: File,
    blocks: u64,
    first: u64,
    seed: u64,
    round: u64,
    bytes: usize,
    buffer: Vec<u8>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), String> {
    let path = arguments.text("path").ok_or("path= is missing")?;
    let bytes = arguments.number("bytes", 4096usize)?;
    if bytes == 0 || !bytes.is_multiple_of(512) {
        return Err(format!("bytes={bytes} is no multiple of 512"));
    }
    let mode = arguments.text("mode").unwrap_or("both");
    let file = OpenOptions::new()
        .read(true)
        .write(mode != "check" && mode != "random")
        .custom_flags(libc::O_DIRECT)
        .open(path)
        .map_err(|error| format!("{path}: {error}"))?;
    let mut job = Job {
        file,
        blocks: arguments.number("blocks", 256)?,
        first: arguments.number("first", 0)?,
        seed: arguments.number("seed", 1)?,
        round: arguments.number("round", 0)?,
        bytes,
        buffer: vec![0; bytes + ALIGNMENT],
    };
    let count = arguments.number("count", job.blocks)?;
    match mode {
        "write" => job.write(),
        "check" => job.check("check", job.blocks, |index, _| index),
        "random" => job.check("random", count, |index, job| {
            pattern::word(job.seed ^ 0xface, index, 0) % job.blocks
        }),
        "both" => {
            job.write()?;
            job.check("check", job.blocks, |index, _| index)
        }
        other => Err(format!("mode={other}: write, check, random or both")),
    }
}

impl Job {
    /// The aligned part of the buffer.
    fn block(&mut self) -> &mut [u8] {
        let start = self.buffer.as_ptr().align_offset(ALIGNMENT);
        &mut self.buffer[start..start + self.bytes]
    }

    fn write(&mut self) -> Result<(), String> {
        let start = ticks();
        for index in 0..self.blocks {
            let (place, seed, round) = (self.first + index, self.seed, self.round);
            let at = place * self.bytes as u64;
            pattern::fill(self.block(), seed, place, round);
            let start = self.buffer.as_ptr().align_offset(ALIGNMENT);
            self.file
                .write_all_at(&self.buffer[start..start + self.bytes], at)
                .map_err(|error| format!("write of block {place}: {error}"))?;
        }
        self.file
            .sync_all()
            .map_err(|error| format!("flush: {error}"))?;
        self.report("write", self.blocks, ticks() - start);
        Ok(())
    }

    fn check(
        &mut self,
        mode: &str,
        count: u64,
        choose: impl Fn(u64, &Job) -> u64,
    ) -> Result<(), String> {
        let (seed, round) = (self.seed, self.round);
        let mut spent = 0;
        for index in 0..count {
            let place = self.first + choose(index, self);
            let at = place * self.bytes as u64;
            let start = self.buffer.as_ptr().align_offset(ALIGNMENT);
            let before = ticks();
            self.file
                .read_exact_at(&mut self.buffer[start..start + self.bytes], at)
                .map_err(|error| format!("read of block {place}: {error}"))?;
            // What is measured is the disk, not our own checking.
            spent += ticks() - before;
            if let Some(offset) = pattern::difference(self.block(), seed, place, round) {
                return Err(format!("block {place} is wrong from its byte {offset} on"));
            }
        }
        self.report(mode, count, spent);
        Ok(())
    }

    fn report(&self, mode: &str, blocks: u64, ticks: u64) {
        println!(
            "DISK {mode} blocks={blocks} bytes={} ticks={ticks}",
            blocks * self.bytes as u64
        );
    }
}
