//! Commands about the host's own disks.

use super::{Shell, interrupts};
use crate::console;
use crate::disk::HostDisk;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use embassy_futures::select::{Either, select};
use godwit_backends::disk::DiskError;
use godwit_backends::memory::{Buffer, Memory};
use godwit_toolstack::show::{self, DiskRow};

impl Shell {
    /// What `xl disk-list` shows.
    pub(super) fn disk_list(&self) -> String {
        let row = |disk: &HostDisk| {
            let geometry = disk.disk.geometry();
            DiskRow {
                name: disk.name.clone(),
                bytes: geometry.bytes(),
                block_bytes: geometry.block_bytes,
                read_only: geometry.read_only,
                model: disk.model.clone(),
                serial: disk.serial.clone(),
                place: disk.place.clone(),
            }
        };
        let rows: Vec<_> = self.disks.all.iter().map(row).collect();
        show::disk_list(&rows)
    }

    /// Shows blocks of a disk. False: it failed or was interrupted.
    pub(super) async fn disk_read(&mut self, name: &str, block: u64, blocks: u32) -> bool {
        let Some(disk) = self.disks.find(name).cloned() else {
            let text = format!("there is no disk '{name}' (xl disk-list lists them)\n");
            console::write(text.as_bytes());
            return false;
        };
        let read = read_blocks(&self.disks.memory, &disk, block, blocks);
        let text = match select(read, self.typed.until(interrupts)).await {
            Either::First(Ok(bytes)) => {
                let block_bytes = u64::from(disk.disk.geometry().block_bytes);
                let text = show::disk_dump(block * block_bytes, &bytes);
                console::write(text.as_bytes());
                return true;
            }
            Either::First(Err(error)) => error.to_string(),
            Either::Second(()) => "interrupted".into(),
        };
        console::write(format!("{name}: {text}\n").as_bytes());
        false
    }
}

/// Blocks as bytes, piece by piece.
async fn read_blocks(
    memory: &Rc<dyn Memory>,
    disk: &HostDisk,
    mut block: u64,
    blocks: u32,
) -> Result<Vec<u8>, DiskError> {
    let geometry = disk.disk.geometry();
    let end = block.checked_add(blocks.into());
    if end.is_none_or(|end| end > geometry.blocks) {
        return Err(DiskError::OutOfRange);
    }
    let no_memory = || DiskError::Failed("dom0 has no memory for so much".into());
    let bytes = blocks as usize * geometry.block_bytes as usize;
    let mut all = Vec::new();
    all.try_reserve_exact(bytes).map_err(|_| no_memory())?;
    let piece = geometry.transfer_bytes_max as usize;
    let buffer = Buffer::new(memory, piece.min(bytes)).ok_or_else(no_memory)?;
    while all.len() < bytes {
        let mut span = buffer.span();
        span.bytes = piece.min(bytes - all.len()) as u32;
        disk.disk.read(block, &[span]).await?;
        let mut out = vec![0; span.bytes as usize];
        buffer.read(0, &mut out);
        all.extend_from_slice(&out);
        block += u64::from(span.bytes / geometry.block_bytes);
    }
    Ok(all)
}
