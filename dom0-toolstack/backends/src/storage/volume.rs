//! A volume in use: a disk that is a part of a disk, and who uses it.
//!
//! A volume has either any number of readers or one writer. The guard is the [`Volume`] itself:
//! as long as somebody holds one, the store refuses whoever does not go with it.

use crate::disk::{Disk, DiskError, Geometry, Pending};
use crate::memory::Span;
use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::fmt;

/// What a user of a volume does with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Only reads; any number may.
    Read,
    /// Reads and writes, alone.
    Write,
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Access::Read => "reading",
            Access::Write => "writing",
        })
    }
}

/// Who uses a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// In words for the operator: `guest web1`, `import`.
    pub name: String,
    /// For what.
    pub access: Access,
}

/// Where a volume lies and who uses it: shared by the store and all who have opened it.
pub(super) struct Extent {
    disk: Rc<dyn Disk>,
    first: u64,
    count: Cell<u64>,
    users: RefCell<Vec<Rc<User>>>,
}

impl Extent {
    pub(super) fn new(disk: Rc<dyn Disk>, first: u64, count: u64) -> Rc<Extent> {
        Rc::new(Extent {
            disk,
            first,
            count: Cell::new(count),
            users: RefCell::new(Vec::new()),
        })
    }

    pub(super) fn first(&self) -> u64 {
        self.first
    }

    pub(super) fn set_count(&self, count: u64) {
        self.count.set(count);
    }

    pub(super) fn users(&self) -> Vec<User> {
        let users = self.users.borrow();
        users.iter().map(|user| User::clone(user)).collect()
    }

    /// Opens it, or gives the user who is in the way.
    pub(super) fn open(self: &Rc<Self>, access: Access, name: &str) -> Result<Rc<Volume>, User> {
        let mut users = self.users.borrow_mut();
        let excludes = |user: &&Rc<User>| access == Access::Write || user.access == Access::Write;
        if let Some(user) = users.iter().find(excludes) {
            return Err(User::clone(user));
        }
        let user = Rc::new(User {
            name: name.to_string(),
            access,
        });
        users.push(Rc::clone(&user));
        Ok(Rc::new(Volume {
            extent: Rc::clone(self),
            user,
        }))
    }
}

/// A part of a disk, opened by one user until dropped.
pub struct Volume {
    extent: Rc<Extent>,
    user: Rc<User>,
}

impl Drop for Volume {
    fn drop(&mut self) {
        let mut users = self.extent.users.borrow_mut();
        users.retain(|user| !Rc::ptr_eq(user, &self.user));
    }
}

impl Volume {
    /// The block of the disk behind block `block` of `blocks`, all of which must be ours.
    fn place(&self, block: u64, blocks: u64) -> Result<u64, DiskError> {
        match block.checked_add(blocks) {
            Some(end) if end <= self.extent.count.get() => Ok(self.extent.first + block),
            Some(_) | None => Err(DiskError::OutOfRange),
        }
    }

    fn place_of_spans(&self, block: u64, spans: &[Span]) -> Result<u64, DiskError> {
        let bytes: u64 = spans.iter().map(|span| u64::from(span.bytes)).sum();
        let size = u64::from(self.extent.disk.geometry().block_bytes);
        if !bytes.is_multiple_of(size) {
            return Err(DiskError::OutOfRange);
        }
        self.place(block, bytes / size)
    }

    fn writable(&self) -> Result<(), DiskError> {
        match self.user.access {
            Access::Write => Ok(()),
            Access::Read => Err(DiskError::ReadOnly),
        }
    }
}

impl Disk for Volume {
    fn geometry(&self) -> Geometry {
        let geometry = self.extent.disk.geometry();
        Geometry {
            blocks: self.extent.count.get(),
            read_only: geometry.read_only || self.user.access == Access::Read,
            ..geometry
        }
    }

    fn read<'a>(&'a self, block: u64, into: &'a [Span]) -> Pending<'a> {
        Box::pin(async move {
            let place = self.place_of_spans(block, into)?;
            self.extent.disk.read(place, into).await
        })
    }

    fn write<'a>(&'a self, block: u64, from: &'a [Span]) -> Pending<'a> {
        Box::pin(async move {
            self.writable()?;
            let place = self.place_of_spans(block, from)?;
            self.extent.disk.write(place, from).await
        })
    }

    fn flush(&self) -> Pending<'_> {
        self.extent.disk.flush()
    }

    fn discard(&self, block: u64, blocks: u64) -> Pending<'_> {
        Box::pin(async move {
            self.writable()?;
            let place = self.place(block, blocks)?;
            self.extent.disk.discard(place, blocks).await
        })
    }

    fn write_zeroes(&self, block: u64, blocks: u64, may_discard: bool) -> Pending<'_> {
        Box::pin(async move {
            self.writable()?;
            let place = self.place(block, blocks)?;
            let zeroes = self.extent.disk.write_zeroes(place, blocks, may_discard);
            zeroes.await
        })
    }
}
