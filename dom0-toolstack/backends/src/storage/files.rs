//! Files on a store's configuration partition: configurations, kernels, keys.
//!
//! A file is replaced as a whole, and a power cut at any moment leaves the old or the new one:
//!
//! 1. the new contents go to free clusters, with their chain in the table; flush;
//! 2. one slot of the directory, within one block, is turned from the old chain to the new; flush;
//! 3. the old chain is freed.
//!
//! A cut leaves at most clusters that no file has; opening finds and frees them. A new name takes
//! several slots: those with its long name are written before the one that makes it a file.
//! Times are not kept.

use super::blocks::Blocks;
use super::fat::FatError;
use super::fat::directory::{Entry, entries};
use super::fat::layout::{Layout, Width};
use super::fat::table::Table;
use super::fat::volume::{Volume, parts};
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use embassy_sync::blocking_mutex::raw::NoopRawMutex;
use embassy_sync::mutex::Mutex;

/// Memory that must be left when a file has been read: others need some, and nobody survives without.
const SPARE_BYTES: usize = 2 << 20;

/// A file or directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileInfo {
    /// Its name.
    pub name: String,
    /// Length in bytes; 0 of a directory.
    pub bytes: u64,
    /// Whether it is a directory.
    pub is_directory: bool,
}

/// The file system of a store.
pub struct Files {
    volume: Mutex<NoopRawMutex, Volume>,
}

impl Files {
    /// Makes an empty file system with the directories a store has.
    pub async fn format(blocks: Blocks, serial: u32) -> Result<Files, FatError> {
        let geometry = blocks.disk().geometry();
        let sector = u64::from(geometry.block_bytes);
        let (layout, boot) = Layout::new(geometry.bytes(), sector, serial)?;
        // Without a boot sector until everything else is there.
        blocks.write_at(0, &vec![0; sector as usize]).await?;
        let mut table = Table::empty(layout);
        table.touch_all();
        let root = match layout.width {
            Width::Fat16 => (layout.root, layout.root_bytes),
            Width::Fat32 => {
                let root = table.allocate(1)?[0];
                assert_eq!(root, layout.root_cluster, "the first free cluster");
                (layout.place(root), layout.cluster_bytes)
            }
        };
        let mut bytes = vec![0; root.1 as usize];
        bytes[..11].copy_from_slice(b"GODWIT     ");
        bytes[11] = 0x08;
        blocks.write_at(root.0, &bytes).await?;
        let first = sector as usize;
        blocks.write_at(sector, &boot[first..]).await?;
        table.write(&blocks).await?;
        blocks.flush().await?;
        blocks.write_at(0, &boot[..first]).await?;
        blocks.flush().await?;
        let files = Files::open(blocks).await?;
        for directory in ["/guests", "/kernels"] {
            files.make_directory(directory).await?;
        }
        Ok(files)
    }

    /// Opens the file system of a partition, and frees what a power cut has left over.
    pub async fn open(blocks: Blocks) -> Result<Files, FatError> {
        let volume = Volume::open(blocks).await?;
        Ok(Files {
            volume: Mutex::new(volume),
        })
    }

    /// What is wrong with it, if anything; then nothing is written.
    pub async fn damage(&self) -> Option<String> {
        self.volume.lock().await.damaged.clone()
    }

    /// Clusters that opening has freed.
    pub async fn reclaimed(&self) -> u32 {
        self.volume.lock().await.reclaimed
    }

    /// Bytes that are free.
    pub async fn free_bytes(&self) -> u64 {
        let volume = self.volume.lock().await;
        u64::from(volume.table.free_count()) * volume.layout.cluster_bytes
    }

    /// What a directory holds.
    pub async fn list(&self, path: &str) -> Result<Vec<FileInfo>, FatError> {
        let volume = self.volume.lock().await;
        let directory = volume.walk(&parts(path)).await?;
        let entries = entries(&directory.bytes).into_iter();
        let info = |entry: Entry| FileInfo {
            name: entry.name,
            bytes: entry.bytes.into(),
            is_directory: entry.is_directory,
        };
        Ok(entries.map(info).collect())
    }

    /// A file's length in bytes.
    pub async fn size(&self, path: &str) -> Result<u64, FatError> {
        let volume = self.volume.lock().await;
        Ok(volume.find_file(path).await?.bytes.into())
    }

    /// All of a file, which may have `most` bytes.
    pub async fn read(&self, path: &str, most: u64) -> Result<Vec<u8>, FatError> {
        let volume = self.volume.lock().await;
        let entry = volume.find_file(path).await?;
        let bytes = u64::from(entry.bytes);
        if bytes > most {
            return Err(FatError::TooLong { bytes, most });
        }
        let mut out = room(entry.bytes as usize).ok_or(FatError::NoMemory { bytes })?;
        out.resize(entry.bytes as usize, 0);
        volume.read_chain(&entry, 0, &mut out).await?;
        Ok(out)
    }

    /// Bytes of a file from `offset` on, for files that are read piece by piece. Panics beyond
    /// its end: see [`Files::size`].
    pub async fn read_at(&self, path: &str, offset: u64, out: &mut [u8]) -> Result<(), FatError> {
        let volume = self.volume.lock().await;
        let entry = volume.find_file(path).await?;
        assert!(
            offset + out.len() as u64 <= entry.bytes.into(),
            "beyond the end of a file"
        );
        volume.read_chain(&entry, offset, out).await
    }

    /// Makes or replaces a file; its directory must exist.
    pub async fn write(&self, path: &str, contents: &[u8]) -> Result<(), FatError> {
        let mut volume = self.volume.lock().await;
        volume.ready().await?;
        let done = volume.write_file(path, contents).await;
        volume.settle(done)
    }

    /// Deletes a file, or a directory that is empty.
    pub async fn delete(&self, path: &str) -> Result<(), FatError> {
        let mut volume = self.volume.lock().await;
        volume.ready().await?;
        let done = volume.delete(path).await;
        volume.settle(done)
    }

    /// Makes a directory.
    pub async fn make_directory(&self, path: &str) -> Result<(), FatError> {
        let mut volume = self.volume.lock().await;
        volume.ready().await?;
        let done = volume.make_directory(path).await;
        volume.settle(done)
    }
}

/// An empty buffer with room for so many bytes. `None`: there is not so much memory.
fn room(bytes: usize) -> Option<Vec<u8>> {
    let mut all: Vec<u8> = Vec::new();
    all.try_reserve_exact(bytes.checked_add(SPARE_BYTES)?)
        .ok()?;
    drop(all);
    let mut out = Vec::new();
    out.try_reserve_exact(bytes).ok()?;
    Some(out)
}
