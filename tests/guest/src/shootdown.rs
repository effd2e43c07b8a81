//! Translations that one CPU changes while the others use them: a missed TLB shoot-down is seen.
//!
//! `seconds=5`, `threads=` all CPUs. A window of one page shows the pages of a file in turn;
//! after each change all threads must see the new page, never the old one: a thread that says it
//! saw the change must have read the new contents.

use crate::arguments::Arguments;
use crate::clock::monotonic;
use crate::wake;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

const PAGE_BYTES: usize = 4096;
/// Pages the window can show; page `n` holds the number `n`. More than two, so that an old page is
/// not mistaken for the next one.
const PAGES: u64 = 4;

/// A mapping of one page that can be pointed elsewhere.
struct Window {
    start: *mut libc::c_void,
    file: std::fs::File,
}

// SAFETY: the address is only read, by volatile loads, and only `show` changes what it maps; the
// kernel keeps it mapped all the time.
unsafe impl Sync for Window {}

impl Window {
    fn new() -> Result<Window, String> {
        let path = format!("/tmp/shootdown-{}", std::process::id());
        let file = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)
            .map_err(|error| format!("{path}: {error}"))?;
        let contents: Vec<u8> = (0..PAGES)
            .flat_map(|number| {
                let mut page = vec![0; PAGE_BYTES];
                page[..8].copy_from_slice(&number.to_le_bytes());
                page
            })
            .collect();
        std::io::Write::write_all(&mut &file, &contents).map_err(|error| error.to_string())?;
        // Nobody else needs its name.
        let _ = std::fs::remove_file(&path);
        let mut window = Window {
            start: std::ptr::null_mut(),
            file,
        };
        window.start = window.map(0, 0)?;
        Ok(window)
    }

    fn map(&self, page: u64, flags: libc::c_int) -> Result<*mut libc::c_void, String> {
        // SAFETY: a new mapping where the kernel chooses, or (MAP_FIXED) exactly over our own
        // page, which is read by volatile loads only.
        let at = unsafe {
            libc::mmap(
                self.start,
                PAGE_BYTES,
                libc::PROT_READ,
                libc::MAP_SHARED | libc::MAP_POPULATE | flags,
                self.file.as_raw_fd(),
                (page as usize * PAGE_BYTES) as libc::off_t,
            )
        };
        if at == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error().to_string());
        }
        Ok(at)
    }

    fn show(&self, page: u64) -> Result<(), String> {
        self.map(page, libc::MAP_FIXED).map(drop)
    }

    fn look(&self) -> u64 {
        // SAFETY: the page is mapped readable as long as the window lives, and aligned.
        unsafe { self.start.cast::<u64>().read_volatile() }
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        // SAFETY: our own page; no thread uses it any more.
        unsafe { libc::munmap(self.start, PAGE_BYTES) };
    }
}

/// What the threads share.
struct Shared {
    window: Window,
    /// Changes so far; the page shown is this modulo [`PAGES`].
    changes: AtomicU64,
    stale: AtomicU64,
    end: AtomicBool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), String> {
    let seconds = Duration::from_secs(arguments.number("seconds", 5)?);
    let threads: usize = arguments.number("threads", wake::cpus())?;
    let shared = Shared {
        window: Window::new()?,
        changes: AtomicU64::new(0),
        stale: AtomicU64::new(0),
        end: AtomicBool::new(false),
    };
    let seen = (0..threads).map(|_| AtomicU64::new(0)).collect::<Vec<_>>();
    let changes = std::thread::scope(|scope| {
        for seen in &seen {
            scope.spawn(|| watch(&shared, seen));
        }
        let result = change(&shared, &seen, seconds);
        shared.end.store(true, Ordering::Release);
        result
    })?;
    println!("SHOOTDOWN threads={threads} changes={changes}");
    match shared.stale.load(Ordering::Acquire) {
        0 => Ok(()),
        stale => Err(format!("{stale} reads of a page that was no longer there")),
    }
}

/// Changes the window, and waits until every watcher has looked after the change.
fn change(shared: &Shared, seen: &[AtomicU64], seconds: Duration) -> Result<u64, String> {
    let end = monotonic() + seconds;
    let mut changes = 0;
    while monotonic() < end {
        shared.window.show((changes + 1) % PAGES)?;
        changes += 1;
        // Whoever reads this number afterwards must see the page of this change.
        shared.changes.store(changes, Ordering::SeqCst);
        while seen
            .iter()
            .any(|seen| seen.load(Ordering::Acquire) < changes)
        {
            std::thread::yield_now();
        }
    }
    Ok(changes)
}

/// Looks at the window as fast as it goes, so that its translation stays cached.
fn watch(shared: &Shared, seen: &AtomicU64) {
    while !shared.end.load(Ordering::Acquire) {
        let before = shared.changes.load(Ordering::SeqCst);
        let page = shared.window.look();
        // The next change may have come in between, but not before everyone has seen this one.
        if page != before % PAGES && page != (before + 1) % PAGES {
            shared.stale.fetch_add(1, Ordering::AcqRel);
        }
        seen.store(before, Ordering::Release);
    }
}
