//! The file allocation table, in memory, and which of its sectors must be written.

use super::FatError;
use super::layout::{Layout, Width};
use crate::disk::DiskError;
use crate::storage::blocks::Blocks;
use alloc::collections::BTreeSet;
use alloc::vec;
use alloc::vec::Vec;

const FREE: u32 = 0;

/// The table.
pub(in crate::storage) struct Table {
    layout: Layout,
    /// As on disk; on FAT32 the upper four bits mean nothing and are kept.
    entries: Vec<u32>,
    /// Sectors of the table that differ from the disk.
    dirty: BTreeSet<u64>,
    /// Where the search for a free cluster begins.
    next: u32,
}

impl Table {
    /// A table in which all clusters are free.
    pub(in crate::storage) fn empty(layout: Layout) -> Table {
        let mut table = Table {
            layout,
            entries: vec![FREE; layout.clusters as usize + 2],
            dirty: BTreeSet::new(),
            next: 2,
        };
        let end = table.end();
        table.entries[0] = end & !0xff | 0xf8;
        table.entries[1] = end;
        table
    }

    /// Reads the first copy. Where the others differ, they are dirty.
    pub(in crate::storage) async fn read(
        blocks: &Blocks,
        layout: Layout,
    ) -> Result<Table, DiskError> {
        let mut table = Table::empty(layout);
        let size = layout.entry_bytes() as usize;
        // What lies behind the last entry means nothing.
        let used = table.entries.len() * size;
        let mut bytes = vec![0; used];
        blocks.read_at(layout.fat, &mut bytes).await?;
        for (entry, bytes) in table.entries.iter_mut().zip(bytes.chunks_exact(size)) {
            *entry = match layout.width {
                Width::Fat16 => u32::from(u16::from_le_bytes([bytes[0], bytes[1]])),
                Width::Fat32 => u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]),
            };
        }
        let mut copy = vec![0; used];
        for number in 1..layout.fats {
            let at = layout.fat + number * layout.fat_bytes;
            blocks.read_at(at, &mut copy).await?;
            let sector = layout.sector_bytes as usize;
            let pairs = bytes.chunks(sector).zip(copy.chunks(sector));
            for (index, (one, other)) in pairs.enumerate() {
                if one != other {
                    table.dirty.insert(index as u64);
                }
            }
        }
        Ok(table)
    }

    fn mask(&self) -> u32 {
        match self.layout.width {
            Width::Fat16 => 0xffff,
            Width::Fat32 => 0x0fff_ffff,
        }
    }

    /// The mark of a chain's last cluster.
    fn end(&self) -> u32 {
        self.mask()
    }

    fn value(&self, cluster: u32) -> u32 {
        self.entries[cluster as usize] & self.mask()
    }

    fn set(&mut self, cluster: u32, value: u32) {
        let mask = self.mask();
        let entry = &mut self.entries[cluster as usize];
        *entry = *entry & !mask | value & mask;
        let at = u64::from(cluster) * self.layout.entry_bytes();
        self.dirty.insert(at / self.layout.sector_bytes);
    }

    /// The clusters of a chain; 0 is the chain of an empty file.
    pub(in crate::storage) fn chain(&self, first: u32) -> Result<Vec<u32>, FatError> {
        let mut clusters = Vec::new();
        let mut at = first;
        while at != 0 {
            // An end mark is any value from 0xfff8 (0x0ffffff8) on.
            if !clusters.is_empty() && at >= self.mask() - 7 {
                return Ok(clusters);
            }
            if !self.layout.has(at) || clusters.len() > self.layout.clusters as usize {
                return Err(FatError::Chain(first));
            }
            clusters.push(at);
            at = self.value(at);
            if at == FREE {
                return Err(FatError::Chain(first));
            }
        }
        Ok(clusters)
    }

    /// How many clusters are free.
    pub(in crate::storage) fn free_count(&self) -> u32 {
        let free = (2..self.layout.clusters + 2).filter(|cluster| self.value(*cluster) == FREE);
        free.count() as u32
    }

    /// Takes `count` free clusters and chains them, `tail` being what they follow, if anything.
    pub(in crate::storage) fn allocate(&mut self, count: usize) -> Result<Vec<u32>, FatError> {
        let all = self.layout.clusters;
        let start = self.next;
        let order = (0..all).map(|step| 2 + (start - 2 + step) % all);
        let free = order.filter(|cluster| self.value(*cluster) == FREE);
        let clusters: Vec<u32> = free.take(count).collect();
        if clusters.len() < count {
            return Err(FatError::Full);
        }
        for pair in clusters.windows(2) {
            self.set(pair[0], pair[1]);
        }
        if let Some(last) = clusters.last() {
            self.set(*last, self.end());
            self.next = 2 + (last - 1) % all;
        }
        Ok(clusters)
    }

    /// Hangs a cluster behind the last of a chain.
    pub(in crate::storage) fn link(&mut self, last: u32, next: u32) {
        self.set(last, next);
    }

    /// Frees clusters.
    pub(in crate::storage) fn release(&mut self, clusters: &[u32]) {
        clusters.iter().for_each(|cluster| self.set(*cluster, FREE));
    }

    /// Frees every cluster that is taken, sound, and not marked in `reached`. Gives how many.
    pub(in crate::storage) fn release_lost(&mut self, reached: &[bool]) -> u32 {
        let bad = self.mask() - 8;
        let mut lost = 0;
        for cluster in 2..self.layout.clusters + 2 {
            let value = self.value(cluster);
            if value != FREE && value != bad && !reached[cluster as usize] {
                self.set(cluster, FREE);
                lost += 1;
            }
        }
        lost
    }

    /// Writes what changed, to all copies, and the count of free clusters.
    pub(in crate::storage) async fn write(&mut self, blocks: &Blocks) -> Result<(), DiskError> {
        let layout = self.layout;
        let sector = layout.sector_bytes;
        let per_sector = (sector / layout.entry_bytes()) as usize;
        while let Some(index) = self.dirty.first().copied() {
            // The table's last sectors may be behind its last entry.
            let from = self.entries.len().min(index as usize * per_sector);
            let to = self.entries.len().min(from + per_sector);
            let mut bytes = Vec::new();
            for entry in &self.entries[from..to] {
                match layout.width {
                    Width::Fat16 => bytes.extend_from_slice(&(*entry as u16).to_le_bytes()),
                    Width::Fat32 => bytes.extend_from_slice(&entry.to_le_bytes()),
                }
            }
            bytes.resize(sector as usize, 0);
            for number in 0..layout.fats {
                let at = layout.fat + number * layout.fat_bytes + index * sector;
                blocks.write_at(at, &bytes).await?;
            }
            self.dirty.remove(&index);
        }
        let Some(info) = layout.info else {
            return Ok(());
        };
        let mut bytes = [0; 512];
        bytes[..4].copy_from_slice(b"RRaA");
        bytes[484..488].copy_from_slice(b"rrAa");
        bytes[488..492].copy_from_slice(&self.free_count().to_le_bytes());
        bytes[492..496].copy_from_slice(&self.next.to_le_bytes());
        bytes[510..].copy_from_slice(&[0x55, 0xaa]);
        blocks.write_at(info, &bytes).await
    }

    /// Whether anything is to be written.
    pub(in crate::storage) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Everything is to be written.
    pub(in crate::storage) fn touch_all(&mut self) {
        self.dirty = (0..self.layout.fat_bytes / self.layout.sector_bytes).collect();
    }
}
