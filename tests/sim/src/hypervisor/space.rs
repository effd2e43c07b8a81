//! A domain's guest-physical space: `vmm`'s nested tables, and a processor that walks them as hardware does: it sets dirty bits
//! behind the tables' back, logs the pages if it has a log for that, and faults.

use super::machine::Machine;
use godwit_abi::DomainId;
use godwit_vmm::frames::{FRAME_SIZE_BYTES, Frame};
use godwit_vmm::nested::{
    Access, Bitmap, Cursor, Entry, Flush, Format, GuestPhysical, Leaf, MemoryType, Method,
    NestedError, NestedTables, PageSize, TableMemory, Wanted,
};

/// Leaves that one step of arming or disarming looks at, and entries that a harvest does: few, so that there are many steps.
const SWEEP_BUDGET: usize = 200;
const HARVEST_BUDGET: usize = 300;
/// Bytes of guest-physical space that have memory: beyond what any guest of the simulation has.
const SPACE_BYTES: u64 = 64 << 20;
const LEVELS: u8 = 4;
/// Entries of the processor's log.
const LOG_ENTRIES: usize = 512;

/// Whether writes are noted.
#[derive(Clone, Copy)]
enum Tracking {
    Off,
    Arming(Cursor),
    Armed,
    Disarming(Cursor),
}

/// What a write by a virtual CPU comes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wrote {
    /// It is done.
    Done,
    /// The page has not come: the CPU stands before its instruction.
    Waits,
}

/// What the simulation does with a space, whatever the format of its entries.
pub(super) trait Space {
    /// Maps a page of memory.
    fn map(&mut self, machine: &mut Machine, page: u64, frame: Frame);
    /// Unmaps a page. Its frame, if it had one.
    fn unmap(&mut self, machine: &mut Machine, page: u64) -> Option<Frame>;
    /// A virtual CPU writes to a page.
    fn write(&mut self, machine: &mut Machine, page: u64) -> Result<Wrote, String>;
    /// dom0 writes to a page.
    fn touched(&mut self, machine: &mut Machine, page: u64);
    /// The frame of a page that can be read.
    fn frame(&self, machine: &Machine, page: u64) -> Result<Frame, NestedError>;
    /// A step of arming or disarming. Returns the pages left.
    fn sweep(&mut self, machine: &mut Machine, arm: bool) -> u64;
    /// Harvests; before, what the processor has logged is told, or is not. Returns how many pages were looked at.
    fn harvest(&mut self, machine: &mut Machine, first: u64, words: &mut [u64], tells: bool)
    -> u64;
    /// Makes pages dirty again.
    fn put_back(&mut self, machine: &mut Machine, first: u64, words: &mut [u64]);
    /// Nobody will harvest any more.
    fn abandon(&mut self, machine: &mut Machine);
    /// Withholds a page.
    fn make_absent(&mut self, machine: &mut Machine, page: u64);
    /// A page's contents are there. Whether it was absent.
    fn make_present(&mut self, machine: &mut Machine, page: u64) -> bool;
    /// Whether a page is absent.
    fn is_absent(&self, machine: &Machine, page: u64) -> bool;
    /// Ends it; everything was unmapped.
    fn destroy(self: Box<Self>, machine: &mut Machine);
}

/// The size of a leaf in a table of this level.
fn size_of(level: u8) -> PageSize {
    let size = PageSize::ALL.into_iter().find(|size| *size as u8 == level);
    size.expect("a leaf is there")
}

/// Tables of one format.
pub(super) struct Tables<F> {
    domain: DomainId,
    tables: NestedTables<F>,
    method: Method,
    tracking: Tracking,
    log: Vec<u64>,
}

impl<F: Format> Tables<F> {
    /// An empty space.
    pub(super) fn new(machine: &mut Machine, domain: DomainId, method: Method) -> Self {
        let tables = NestedTables::new(machine, PageSize::Large2M, method);
        Self {
            domain,
            tables: tables.expect("there is memory"),
            method,
            tracking: Tracking::Off,
            log: Vec::new(),
        }
    }

    /// No processor remembers anything here: what is owed is done at once.
    fn settle(&mut self, machine: &mut Machine, flush: Flush) {
        if !flush.is_none() {
            self.tables.release_retired(machine);
        }
    }

    /// The processor's walk for a write. `Ok`: whether the page became dirty by it. `Err`: it faults.
    fn walk(&self, machine: &mut Machine, page: u64) -> Result<bool, ()> {
        let (mut table, address) = (self.tables.root(), page * FRAME_SIZE_BYTES);
        for level in (1..=LEVELS).rev() {
            let index = (address >> (12 + 9 * (level - 1)) & 511) as usize;
            let raw = machine.read(table, index);
            let leaf = match F::decode(raw, level) {
                Entry::Empty => return Err(()),
                Entry::Table { address, .. } => {
                    table = address.frame();
                    continue;
                }
                Entry::Leaf(leaf) => leaf,
            };
            if leaf.absent || !leaf.access.write {
                return Err(());
            }
            let used = Leaf {
                accessed: true,
                dirty: true,
                ..leaf
            };
            let size = size_of(level);
            machine.write(table, index, F::leaf(used, size));
            return Ok(!leaf.dirty);
        }
        Err(())
    }

    /// Tells what the processor has logged.
    fn drain_log(&mut self, machine: &mut Machine) {
        for page in std::mem::take(&mut self.log) {
            let address = GuestPhysical(page * FRAME_SIZE_BYTES);
            self.tables.logged(machine, address);
        }
    }

    fn at(page: u64) -> GuestPhysical {
        GuestPhysical(page * FRAME_SIZE_BYTES)
    }

    fn over(first: u64, pages: u64) -> Cursor {
        Cursor::over(Self::at(first), pages * FRAME_SIZE_BYTES).expect("whole pages, few")
    }
}

impl<F: Format> Space for Tables<F> {
    fn map(&mut self, machine: &mut Machine, page: u64, frame: Frame) {
        let mapped = self.tables.map(
            machine,
            Self::at(page),
            frame.address(),
            FRAME_SIZE_BYTES,
            Access::ALL,
            MemoryType::WriteBack,
        );
        let flush = mapped.expect("nothing was there");
        self.settle(machine, flush);
    }

    fn unmap(&mut self, machine: &mut Machine, page: u64) -> Option<Frame> {
        let (mut cursor, mut frame) = (Self::over(page, 1), None);
        while !cursor.is_done() {
            let unmapped = self.tables.unmap(machine, &mut cursor, 1, |mapping| {
                assert_eq!(mapping.guest, Self::at(page), "only that was to go");
                frame = Some(mapping.leaf.address.frame());
            });
            let flush = unmapped.expect("there is memory for tables");
            self.settle(machine, flush);
        }
        frame
    }

    fn write(&mut self, machine: &mut Machine, page: u64) -> Result<Wrote, String> {
        // A fault, perhaps one more for the leaf that was split, and the write.
        for _ in 0..3 {
            if let Ok(is_new) = self.walk(machine, page) {
                if is_new && self.method == Method::DirtyLog {
                    self.log.push(page);
                    if self.log.len() == LOG_ENTRIES {
                        self.drain_log(machine);
                    }
                }
                let frame = self.frame(machine, page);
                let frame = frame.map_err(|error| format!("page {page:#x}: {error:?}"))?;
                let whose = machine.holds(frame);
                return match whose == Some((self.domain, page)) {
                    true => Ok(Wrote::Done),
                    false => Err(format!("page {page:#x} is in a frame of {whose:?}")),
                };
            }
            let at = Self::at(page);
            match self.tables.translate(machine, at, Wanted::Write) {
                Ok(_) => {}
                Err(NestedError::Withheld) => {
                    let marked = self.tables.mark_dirty(machine, at);
                    let flush = marked.expect("it is mapped");
                    self.settle(machine, flush);
                }
                Err(NestedError::Absent) => return Ok(Wrote::Waits),
                Err(error) => return Err(format!("a write to page {page:#x}: {error:?}")),
            }
        }
        Err(format!("a write to page {page:#x} faults without end"))
    }

    fn touched(&mut self, machine: &mut Machine, page: u64) {
        let marked = self.tables.mark_dirty(machine, Self::at(page));
        let flush = marked.expect("it is mapped");
        self.settle(machine, flush);
    }

    fn frame(&self, machine: &Machine, page: u64) -> Result<Frame, NestedError> {
        let found = self
            .tables
            .translate(machine, Self::at(page), Wanted::Read)?;
        Ok(found.address.frame())
    }

    fn sweep(&mut self, machine: &mut Machine, arm: bool) -> u64 {
        let mut cursor = match (arm, self.tracking) {
            (true, Tracking::Armed) | (false, Tracking::Off) => return 0,
            (true, Tracking::Arming(cursor)) | (false, Tracking::Disarming(cursor)) => cursor,
            (true, Tracking::Off | Tracking::Disarming(_))
            | (false, Tracking::Armed | Tracking::Arming(_)) => {
                Self::over(0, SPACE_BYTES / FRAME_SIZE_BYTES)
            }
        };
        let swept = match arm {
            true => self.tables.arm(machine, &mut cursor, SWEEP_BUDGET),
            false => self.tables.disarm(machine, &mut cursor, SWEEP_BUDGET),
        };
        let flush = swept.expect("there is memory for tables");
        self.settle(machine, flush);
        self.tracking = match (cursor.is_done(), arm) {
            (true, true) => Tracking::Armed,
            (true, false) => Tracking::Off,
            (false, true) => Tracking::Arming(cursor),
            (false, false) => Tracking::Disarming(cursor),
        };
        (cursor.end().0 - cursor.position().0) / FRAME_SIZE_BYTES
    }

    fn harvest(
        &mut self,
        machine: &mut Machine,
        first: u64,
        words: &mut [u64],
        tells: bool,
    ) -> u64 {
        // The processors are made to leave the guest, and so tell their logs.
        match tells {
            true => self.drain_log(machine),
            false => self.log.clear(),
        }
        words.fill(0);
        let mut cursor = Self::over(first, words.len() as u64 * 64);
        let mut bitmap = Bitmap::new(Self::at(first), words).expect("a whole page");
        let harvested = self
            .tables
            .harvest(machine, &mut cursor, &mut bitmap, HARVEST_BUDGET);
        let flush = harvested.expect("it is armed");
        self.settle(machine, flush);
        cursor.position().0 / FRAME_SIZE_BYTES - first
    }

    fn put_back(&mut self, machine: &mut Machine, first: u64, words: &mut [u64]) {
        let mut cursor = Self::over(first, words.len() as u64 * 64);
        let bitmap = Bitmap::new(Self::at(first), words).expect("a whole page");
        while !cursor.is_done() {
            let put = self
                .tables
                .put_back(machine, &mut cursor, &bitmap, HARVEST_BUDGET);
            assert_eq!(put, Ok(Flush::None));
        }
    }

    fn abandon(&mut self, machine: &mut Machine) {
        if let Tracking::Arming(_) | Tracking::Armed = self.tracking {
            let ended = self.tables.disarm(machine, &mut Cursor::none(), 1);
            assert_eq!(ended, Ok(Flush::None), "nothing was to be done");
            self.tracking = Tracking::Disarming(Self::over(0, SPACE_BYTES / FRAME_SIZE_BYTES));
        }
    }

    fn make_absent(&mut self, machine: &mut Machine, page: u64) {
        let made = self.tables.make_absent(machine, Self::at(page));
        let flush = made.expect("it is mapped");
        self.settle(machine, flush);
    }

    fn make_present(&mut self, machine: &mut Machine, page: u64) -> bool {
        match self.tables.make_present(machine, Self::at(page)) {
            Ok(flush) => {
                self.settle(machine, flush);
                true
            }
            Err(NestedError::NotMapped) => false,
            Err(error) => panic!("page {page:#x}: {error:?}"),
        }
    }

    fn is_absent(&self, machine: &Machine, page: u64) -> bool {
        let frame = self.tables.absent_frame(machine, Self::at(page));
        frame.is_some()
    }

    fn destroy(mut self: Box<Self>, machine: &mut Machine) {
        self.tables.release_retired(machine);
        self.tables.destroy(machine);
    }
}
