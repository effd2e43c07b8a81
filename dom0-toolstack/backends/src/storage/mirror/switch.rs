//! A guest's disk whose contents may come from another disk from one request to the next.

use super::locks::Gate;
use super::transfer::{Way, transfer};
use super::{Mirror, MirrorError};
use crate::disk::{Disk, DiskError, Geometry, Pending};
use crate::memory::{Memory, Span};
use crate::storage::blocks::Blocks;
use crate::storage::copy::zero;
use crate::storage::nbd::Timer;
use alloc::boxed::Box;
use alloc::rc::Rc;
use core::cell::{Cell, RefCell};

/// The disk. It offers a guest the same whatever is behind it: a disk that cannot discard ignores
/// that, one that cannot zero is written zeroes.
pub struct SwitchDisk {
    memory: Rc<dyn Memory>,
    disk: RefCell<Rc<dyn Disk>>,
    read_only: bool,
    /// Its size once the disk behind it is another, which may be larger.
    blocks: Cell<Option<u64>>,
    mirror: RefCell<Option<Rc<Mirror>>>,
    gate: Rc<Gate>,
}

impl SwitchDisk {
    /// Over a disk; with `read_only` the guest cannot write to it, even if the disk could.
    pub fn new(disk: Rc<dyn Disk>, memory: Rc<dyn Memory>, read_only: bool) -> Rc<SwitchDisk> {
        Rc::new(SwitchDisk {
            memory,
            read_only: read_only || disk.geometry().read_only,
            disk: RefCell::new(disk),
            blocks: Cell::new(None),
            mirror: RefCell::new(None),
            gate: Rc::default(),
        })
    }

    /// What is behind it now.
    pub fn disk(&self) -> Rc<dyn Disk> {
        Rc::clone(&self.disk.borrow())
    }

    fn mirror(&self) -> Option<Rc<Mirror>> {
        self.mirror.borrow().clone()
    }

    fn writable(&self) -> Result<(), DiskError> {
        match self.read_only {
            true => Err(DiskError::ReadOnly),
            false => Ok(()),
        }
    }

    /// Begins to make a second copy, between two requests of the guest.
    pub async fn begin(
        &self,
        target: Rc<dyn Disk>,
        timer: Rc<dyn Timer>,
    ) -> Result<Rc<Mirror>, MirrorError> {
        let (ours, theirs) = (self.geometry(), target.geometry());
        if ours.block_bytes != theirs.block_bytes {
            return Err(MirrorError::Unfit("its blocks have another size"));
        }
        if theirs.blocks < ours.blocks {
            return Err(MirrorError::Unfit("it is smaller"));
        }
        if theirs.read_only {
            return Err(MirrorError::Unfit("it cannot be written"));
        }
        if self.mirror.borrow().is_some() {
            return Err(MirrorError::Unfit("the disk is being moved already"));
        }
        let _closed = self.gate.close().await;
        let gate = Rc::clone(&self.gate);
        let mirror = Rc::new(Mirror::new(
            (self.disk(), ours.blocks),
            target,
            &self.memory,
            timer,
            gate,
        ));
        *self.mirror.borrow_mut() = Some(Rc::clone(&mirror));
        Ok(mirror)
    }

    /// Ends the mirror; the guest goes on at the source, and nothing uses the target any more.
    pub async fn end(&self, why: MirrorError) {
        if let Some(mirror) = self.mirror() {
            mirror.fail(why);
        }
        let _closed = self.gate.close().await;
        *self.mirror.borrow_mut() = None;
    }

    /// Switches to the target between two requests of the guest, when both copies are equal and lasting and
    /// `note` has noted it. On an error the source stays; the mirror is then to be [ended](Self::end).
    pub async fn switch<E: From<MirrorError>>(
        &self,
        note: impl AsyncFnOnce() -> Result<(), E>,
    ) -> Result<(), E> {
        let mirror = self.mirror();
        let mirror = mirror.ok_or(MirrorError::Unfit("there is no copy"))?;
        let _closed = self.gate.close().await;
        mirror.settle().await?;
        note().await?;
        self.blocks.set(Some(self.geometry().blocks));
        *self.disk.borrow_mut() = Rc::clone(mirror.target.disk());
        *self.mirror.borrow_mut() = None;
        Ok(())
    }
}

impl Disk for SwitchDisk {
    fn geometry(&self) -> Geometry {
        let geometry = self.disk.borrow().geometry();
        Geometry {
            blocks: self.blocks.get().unwrap_or(geometry.blocks),
            read_only: self.read_only,
            can_discard: true,
            can_write_zeroes: true,
            ..geometry
        }
    }

    fn read<'a>(&'a self, block: u64, into: &'a [Span]) -> Pending<'a> {
        Box::pin(async move {
            let _inside = self.gate.enter().await;
            transfer(&*self.disk(), Way::Read, block, into).await
        })
    }

    fn write<'a>(&'a self, block: u64, from: &'a [Span]) -> Pending<'a> {
        Box::pin(async move {
            let _inside = self.gate.enter().await;
            self.writable()?;
            match self.mirror() {
                None => transfer(&*self.disk(), Way::Write, block, from).await,
                Some(mirror) => mirror.write(block, from).await,
            }
        })
    }

    fn flush(&self) -> Pending<'_> {
        Box::pin(async move {
            let _inside = self.gate.enter().await;
            match self.mirror() {
                None => self.disk().flush().await,
                Some(mirror) => mirror.flush().await,
            }
        })
    }

    fn discard(&self, block: u64, blocks: u64) -> Pending<'_> {
        Box::pin(async move {
            let _inside = self.gate.enter().await;
            self.writable()?;
            let disk = self.disk();
            match self.mirror() {
                _ if !disk.geometry().can_discard => Ok(()),
                None => disk.discard(block, blocks).await,
                Some(mirror) => mirror.discard(block, blocks).await,
            }
        })
    }

    fn write_zeroes(&self, block: u64, blocks: u64, may_discard: bool) -> Pending<'_> {
        Box::pin(async move {
            let _inside = self.gate.enter().await;
            self.writable()?;
            if let Some(mirror) = self.mirror() {
                return mirror.clear(block, blocks, may_discard).await;
            }
            let disk = Blocks::new(self.disk(), Rc::clone(&self.memory));
            zero(&disk, block, blocks, may_discard).await
        })
    }
}
