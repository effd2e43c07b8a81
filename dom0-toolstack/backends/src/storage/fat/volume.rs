//! A mounted FAT file system: what [`crate::storage::files`] promises is kept here.

use super::FatError;
use super::directory::{
    self, ARCHIVE, DELETED, DIRECTORY, Entry, SLOT, entries, free_run, needs_end, new_slots,
    same_name, short_slot,
};
use super::layout::{Layout, Width};
use super::table::Table;
use crate::storage::blocks::Blocks;
use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::future::Future;
use core::pin::Pin;

/// Directories in each other.
const DEPTH_MAX: usize = 16;
/// Bytes of a directory: what FAT allows.
const DIRECTORY_BYTES_MAX: u64 = 65536 * SLOT as u64;

/// The file system; one task at a time uses it.
pub(in crate::storage) struct Volume {
    blocks: Blocks,
    pub(in crate::storage) layout: Layout,
    pub(in crate::storage) table: Table,
    /// Why nothing may be written.
    pub(in crate::storage) damaged: Option<String>,
    /// Clusters that belonged to no file when it was opened.
    pub(in crate::storage) reclaimed: u32,
    /// A write failed: what is on the disk must be read again.
    stale: bool,
}

/// A directory, read whole.
pub(in crate::storage) struct Directory {
    pub(in crate::storage) bytes: Vec<u8>,
    /// Where its pieces of `piece` bytes lie.
    places: Vec<u64>,
    piece: usize,
    /// Its clusters; none of the root of FAT16.
    chain: Vec<u32>,
}

impl Directory {
    fn place(&self, slot: usize) -> u64 {
        let at = slot * SLOT;
        self.places[at / self.piece] + (at % self.piece) as u64
    }
}

pub(in crate::storage) fn parts(path: &str) -> Vec<&str> {
    path.split('/').filter(|part| !part.is_empty()).collect()
}

/// The names of a path's directories, and its own.
fn split(path: &str) -> Result<(Vec<&str>, &str), FatError> {
    let mut parts = parts(path);
    let name = parts.pop().ok_or(FatError::WrongKind(path.to_string()))?;
    directory::check_name(name)?;
    Ok((parts, name))
}

impl Volume {
    pub(in crate::storage) async fn open(blocks: Blocks) -> Result<Volume, FatError> {
        let bytes = blocks.disk().geometry().bytes();
        let mut boot = [0; 512];
        if bytes < 512 {
            return Err(FatError::NotFat);
        }
        blocks.read_at(0, &mut boot).await?;
        let layout = Layout::parse(&boot, bytes)?;
        let table = Table::read(&blocks, layout).await?;
        let mut volume = Volume {
            blocks,
            layout,
            table,
            damaged: None,
            reclaimed: 0,
            stale: false,
        };
        volume.reclaim().await?;
        Ok(volume)
    }

    /// Before a change: reads the disk again after a failure, refuses when it is damaged.
    pub(in crate::storage) async fn ready(&mut self) -> Result<(), FatError> {
        if self.stale {
            *self = Volume::open(self.blocks.clone()).await?;
        }
        match &self.damaged {
            Some(why) => Err(FatError::Damaged(why.clone())),
            None => {
                // Until it is settled: a change may also be dropped in the middle.
                self.stale = true;
                Ok(())
            }
        }
    }

    /// After a change: a disk that failed in the middle of it is read again before the next.
    pub(in crate::storage) fn settle(
        &mut self,
        done: Result<(), FatError>,
    ) -> Result<(), FatError> {
        self.stale = matches!(done, Err(FatError::Disk(_)));
        done
    }

    /// Finds every cluster that belongs to something, and frees the others.
    async fn reclaim(&mut self) -> Result<(), FatError> {
        let mut reached = vec![false; self.layout.clusters as usize + 2];
        match self.reach(0, 0, &mut reached).await {
            Ok(()) => {}
            Err(FatError::Disk(error)) => return Err(error.into()),
            Err(other) => {
                self.damaged = Some(other.to_string());
                return Ok(());
            }
        }
        if self.blocks.disk().geometry().read_only {
            return Ok(());
        }
        self.reclaimed = self.table.release_lost(&reached);
        if self.table.is_dirty() {
            self.table.write(&self.blocks).await?;
            self.blocks.flush().await?;
        }
        Ok(())
    }

    /// Marks what belongs to a directory (0: the root) and all below it.
    fn reach<'a>(
        &'a self,
        first: u32,
        depth: usize,
        reached: &'a mut [bool],
    ) -> Pin<Box<dyn Future<Output = Result<(), FatError>> + 'a>> {
        Box::pin(async move {
            if depth > DEPTH_MAX {
                return Err(FatError::Directory("/...".to_string()));
            }
            let mut mark = |chain: &[u32]| {
                for cluster in chain {
                    if core::mem::replace(&mut reached[*cluster as usize], true) {
                        return Err(FatError::Chain(*cluster));
                    }
                }
                Ok(())
            };
            let directory = self.read_directory(first).await?;
            mark(&directory.chain)?;
            for entry in entries(&directory.bytes) {
                if entry.is_directory {
                    if entry.first == 0 {
                        return Err(FatError::Chain(0));
                    }
                    self.reach(entry.first, depth + 1, reached).await?;
                    continue;
                }
                let chain = self.table.chain(entry.first)?;
                if (chain.len() as u64) * self.layout.cluster_bytes < entry.bytes.into() {
                    return Err(FatError::Chain(entry.first));
                }
                for cluster in chain {
                    if core::mem::replace(&mut reached[cluster as usize], true) {
                        return Err(FatError::Chain(cluster));
                    }
                }
            }
            Ok(())
        })
    }

    /// A directory by its first cluster; 0 is the root.
    async fn read_directory(&self, first: u32) -> Result<Directory, FatError> {
        let layout = &self.layout;
        let (places, piece, chain) = match (first, layout.width) {
            (0, Width::Fat16) => (vec![layout.root], layout.root_bytes, Vec::new()),
            (first, _) => {
                let first = if first == 0 {
                    layout.root_cluster
                } else {
                    first
                };
                let chain = self.table.chain(first)?;
                let places = chain.iter().map(|cluster| layout.place(*cluster)).collect();
                (places, layout.cluster_bytes, chain)
            }
        };
        if places.len() as u64 * piece > DIRECTORY_BYTES_MAX {
            return Err(FatError::Directory(alloc::format!("cluster {first}")));
        }
        let mut bytes = vec![0; places.len() * piece as usize];
        for (place, piece) in places.iter().zip(bytes.chunks_mut(piece as usize)) {
            self.blocks.read_at(*place, piece).await?;
        }
        Ok(Directory {
            bytes,
            places,
            piece: piece as usize,
            chain,
        })
    }

    pub(in crate::storage) async fn walk(&self, path: &[&str]) -> Result<Directory, FatError> {
        let mut directory = self.read_directory(0).await?;
        for name in path {
            let entry = find(&directory, name);
            let entry = entry.ok_or_else(|| FatError::NotFound(path.join("/")))?;
            if !entry.is_directory {
                return Err(FatError::WrongKind(path.join("/")));
            }
            directory = self.read_directory(entry.first).await?;
        }
        Ok(directory)
    }

    pub(in crate::storage) async fn find_file(&self, path: &str) -> Result<Entry, FatError> {
        let (parents, name) = split(path)?;
        let directory = self.walk(&parents).await?;
        let entry = find(&directory, name);
        let entry = entry.ok_or_else(|| FatError::NotFound(path.to_string()))?;
        match entry.is_directory {
            true => Err(FatError::WrongKind(path.to_string())),
            false => Ok(entry),
        }
    }

    pub(in crate::storage) async fn read_chain(
        &self,
        entry: &Entry,
        offset: u64,
        out: &mut [u8],
    ) -> Result<(), FatError> {
        let chain = self.table.chain(entry.first)?;
        let size = self.layout.cluster_bytes;
        let end = offset + out.len() as u64;
        if end > chain.len() as u64 * size {
            return Err(FatError::Chain(entry.first));
        }
        let mut at = offset;
        while at < end {
            let (run, bytes) = self.run(&chain, at, end);
            let from = (at - offset) as usize;
            let piece = &mut out[from..from + bytes as usize];
            self.blocks.read_at(run, piece).await?;
            at += bytes;
        }
        Ok(())
    }

    /// Where byte `at` of a chain lies, and how many bytes up to `end` follow it on the disk.
    fn run(&self, chain: &[u32], at: u64, end: u64) -> (u64, u64) {
        let size = self.layout.cluster_bytes;
        let first = (at / size) as usize;
        let pairs = chain[first..].windows(2);
        let follows = pairs.take_while(|pair| pair[1] == pair[0] + 1).count() as u64;
        let bytes = (follows + 1) * size - at % size;
        let place = self.layout.place(chain[first]) + at % size;
        (place, bytes.min(end - at))
    }

    /// Puts contents into free clusters, and makes them last.
    async fn store(&mut self, contents: &[u8]) -> Result<Vec<u32>, FatError> {
        let count = (contents.len() as u64).div_ceil(self.layout.cluster_bytes);
        let chain = self.table.allocate(count as usize)?;
        let end = contents.len() as u64;
        let mut at = 0;
        while at < end {
            let (place, bytes) = self.run(&chain, at, end);
            let piece = &contents[at as usize..(at + bytes) as usize];
            self.blocks.write_at(place, piece).await?;
            at += bytes;
        }
        self.table.write(&self.blocks).await?;
        self.blocks.flush().await?;
        Ok(chain)
    }

    async fn free(&mut self, clusters: &[u32]) -> Result<(), FatError> {
        self.table.release(clusters);
        self.table.write(&self.blocks).await?;
        Ok(self.blocks.flush().await?)
    }

    pub(in crate::storage) async fn write_file(
        &mut self,
        path: &str,
        contents: &[u8],
    ) -> Result<(), FatError> {
        let most = u64::from(u32::MAX);
        let bytes = contents.len() as u64;
        if bytes > most {
            return Err(FatError::TooLong { bytes, most });
        }
        let (parents, name) = split(path)?;
        let directory = self.walk(&parents).await?;
        let old = find(&directory, name);
        if old.as_ref().is_some_and(|entry| entry.is_directory) {
            return Err(FatError::WrongKind(path.to_string()));
        }
        let chain = self.store(contents).await?;
        let place = (chain.first().copied().unwrap_or(0), bytes as u32);
        let Some(old) = old else {
            let taken = entries(&directory.bytes);
            let slots = new_slots(name, ARCHIVE, place, &taken);
            let put = self.put(directory, &slots).await;
            if matches!(put, Err(FatError::Full)) {
                self.free(&chain).await?;
            }
            return put;
        };
        let slot = short_slot(&old.short, ARCHIVE, place.0, place.1);
        let at = directory.place(old.slots.end - 1);
        // Bytes 12 to 25 hold times and the case of the short name, which stay.
        let mut kept = [0; SLOT];
        self.blocks.read_at(at, &mut kept).await?;
        kept[20..22].copy_from_slice(&slot[20..22]);
        kept[26..].copy_from_slice(&slot[26..]);
        self.blocks.write_at(at, &kept).await?;
        self.blocks.flush().await?;
        let old = self.table.chain(old.first)?;
        self.free(&old).await
    }

    pub(in crate::storage) async fn make_directory(&mut self, path: &str) -> Result<(), FatError> {
        let (parents, name) = split(path)?;
        let directory = self.walk(&parents).await?;
        if find(&directory, name).is_some() {
            return Err(FatError::Exists(path.to_string()));
        }
        if parents.len() >= DEPTH_MAX {
            return Err(FatError::Directory(path.to_string()));
        }
        let mut contents = vec![0; self.layout.cluster_bytes as usize];
        // To `..` the root is cluster 0, on FAT32 too.
        let is_root = parents.is_empty();
        let up = directory.chain.first().filter(|_| !is_root);
        let chain = self.table.allocate(1)?;
        let dots = [
            (b".          ", chain[0]),
            (b"..         ", up.copied().unwrap_or(0)),
        ];
        for (slot, (name, first)) in contents.chunks_exact_mut(SLOT).zip(dots) {
            slot.copy_from_slice(&short_slot(name, DIRECTORY, first, 0));
        }
        let place = self.layout.place(chain[0]);
        self.blocks.write_at(place, &contents).await?;
        self.table.write(&self.blocks).await?;
        self.blocks.flush().await?;
        let taken = entries(&directory.bytes);
        let slots = new_slots(name, DIRECTORY, (chain[0], 0), &taken);
        let put = self.put(directory, &slots).await;
        if matches!(put, Err(FatError::Full)) {
            self.free(&chain).await?;
        }
        put
    }

    pub(in crate::storage) async fn delete(&mut self, path: &str) -> Result<(), FatError> {
        let (parents, name) = split(path)?;
        let directory = self.walk(&parents).await?;
        let entry = find(&directory, name);
        let entry = entry.ok_or_else(|| FatError::NotFound(path.to_string()))?;
        if entry.is_directory {
            let inside = self.read_directory(entry.first).await?;
            if !entries(&inside.bytes).is_empty() {
                return Err(FatError::NotEmpty(path.to_string()));
            }
        }
        let chain = self.table.chain(entry.first)?;
        // The slot that makes it a file first: what is left of a long name alone means nothing.
        for slot in entry.slots.clone().rev() {
            let at = directory.place(slot);
            self.blocks.write_at(at, &[DELETED]).await?;
            if slot + 1 == entry.slots.end {
                self.blocks.flush().await?;
            }
        }
        self.blocks.flush().await?;
        self.free(&chain).await
    }

    /// Puts a new entry into a directory, the slot that makes it a file last.
    async fn put(&mut self, directory: Directory, slots: &[[u8; SLOT]]) -> Result<(), FatError> {
        let mut directory = directory;
        let start = loop {
            if let Some(start) = free_run(&directory.bytes, slots.len()) {
                break start;
            }
            self.extend(&mut directory).await?;
        };
        let behind = start + slots.len();
        if needs_end(&directory.bytes, behind) {
            self.blocks.write_at(directory.place(behind), &[0]).await?;
            self.blocks.flush().await?;
        }
        let (last, long) = slots.split_last().expect("an entry has a slot");
        for (index, slot) in long.iter().enumerate() {
            let at = directory.place(start + index);
            self.blocks.write_at(at, slot).await?;
        }
        self.blocks.flush().await?;
        let at = directory.place(behind - 1);
        self.blocks.write_at(at, last).await?;
        Ok(self.blocks.flush().await?)
    }

    /// Gives a directory one more cluster, of zeroes before it belongs to it.
    async fn extend(&mut self, directory: &mut Directory) -> Result<(), FatError> {
        let bytes = directory.bytes.len() as u64 + self.layout.cluster_bytes;
        let Some(last) = directory.chain.last().copied() else {
            return Err(FatError::Full);
        };
        if bytes > DIRECTORY_BYTES_MAX {
            return Err(FatError::Full);
        }
        let new = self.table.allocate(1)?[0];
        let place = self.layout.place(new);
        let zeroes = vec![0; self.layout.cluster_bytes as usize];
        self.blocks.write_at(place, &zeroes).await?;
        self.table.write(&self.blocks).await?;
        self.blocks.flush().await?;
        self.table.link(last, new);
        self.table.write(&self.blocks).await?;
        self.blocks.flush().await?;
        directory.chain.push(new);
        directory.places.push(place);
        directory.bytes.resize(bytes as usize, 0);
        Ok(())
    }
}

fn find(directory: &Directory, name: &str) -> Option<Entry> {
    let mut entries = entries(&directory.bytes).into_iter();
    entries.find(|entry| same_name(&entry.name, name))
}
