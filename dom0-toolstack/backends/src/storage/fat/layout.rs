//! The boot sector of FAT16 and FAT32: where everything lies (Microsoft's FAT specification 1.03).

use super::FatError;
use alloc::vec;
use alloc::vec::Vec;

/// Clusters of a file system we take on; its table is kept in memory.
pub const CLUSTERS_MAX: u32 = 1 << 20;
/// Fewest clusters of FAT16 and of FAT32: the count alone tells the kinds apart.
const FAT16_CLUSTERS_MIN: u64 = 4085;
const FAT32_CLUSTERS_MIN: u64 = 65525;
/// From this size on a new file system is FAT32.
const FAT32_BYTES_MIN: u64 = 512 << 20;
/// What a new file system strives for.
const CLUSTER_BYTES: u64 = 4096;
const ROOT_ENTRIES: u64 = 512;
pub(in crate::storage) const SLOT_BYTES: u64 = 32;

/// How wide an entry of the table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::storage) enum Width {
    Fat16,
    Fat32,
}

/// Where everything lies, in bytes of the partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::storage) struct Layout {
    pub(in crate::storage) width: Width,
    pub(in crate::storage) sector_bytes: u64,
    pub(in crate::storage) cluster_bytes: u64,
    /// First copy of the table; the others follow.
    pub(in crate::storage) fat: u64,
    pub(in crate::storage) fat_bytes: u64,
    pub(in crate::storage) fats: u64,
    /// The root directory of FAT16.
    pub(in crate::storage) root: u64,
    pub(in crate::storage) root_bytes: u64,
    /// The root directory's first cluster on FAT32.
    pub(in crate::storage) root_cluster: u32,
    /// Cluster 2.
    pub(in crate::storage) data: u64,
    /// Clusters, not counting the two numbers no cluster has.
    pub(in crate::storage) clusters: u32,
    /// The sector with the count of free clusters, on FAT32.
    pub(in crate::storage) info: Option<u64>,
}

fn u16_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]))
}

fn u32_at(bytes: &[u8], at: usize) -> u64 {
    u16_at(bytes, at) | u16_at(bytes, at + 2) << 16
}

impl Layout {
    /// From the first 512 bytes of a partition of `bytes`.
    pub(in crate::storage) fn parse(boot: &[u8; 512], bytes: u64) -> Result<Layout, FatError> {
        let jump = boot[0] == 0xeb || boot[0] == 0xe9;
        if !jump || boot[510..] != [0x55, 0xaa] {
            return Err(FatError::NotFat);
        }
        let sector = u16_at(boot, 11);
        let per_cluster = u64::from(boot[13]);
        let (reserved, fats) = (u16_at(boot, 14), u64::from(boot[16]));
        let root_bytes = u16_at(boot, 17) * SLOT_BYTES;
        let either = |short: u64, long: u64| if short != 0 { short } else { long };
        let sectors = either(u16_at(boot, 19), u32_at(boot, 32));
        let fat_sectors = either(u16_at(boot, 22), u32_at(boot, 36));
        let fits = matches!(sector, 512 | 1024 | 2048 | 4096)
            && per_cluster.is_power_of_two()
            && reserved > 0
            && (1..=2).contains(&fats)
            && root_bytes.is_multiple_of(sector)
            && sectors.checked_mul(sector).is_some_and(|all| all <= bytes);
        let data = (reserved + fats * fat_sectors) * sector + root_bytes;
        let cluster_bytes = per_cluster * sector;
        let clusters = (sectors * sector).saturating_sub(data) / cluster_bytes.max(1);
        if !fits || clusters == 0 || clusters > u64::from(CLUSTERS_MAX) {
            return Err(FatError::BootSector);
        }
        let width = match clusters {
            0..FAT16_CLUSTERS_MIN => return Err(FatError::Fat12),
            FAT16_CLUSTERS_MIN..FAT32_CLUSTERS_MIN => Width::Fat16,
            _ => Width::Fat32,
        };
        let layout = Layout {
            width,
            sector_bytes: sector,
            cluster_bytes,
            fat: reserved * sector,
            fat_bytes: fat_sectors * sector,
            fats,
            root: data - root_bytes,
            root_bytes,
            root_cluster: u32_at(boot, 44) as u32,
            data,
            clusters: clusters as u32,
            info: match (width, u16_at(boot, 48)) {
                // There need not be one.
                (Width::Fat16, _) | (Width::Fat32, 0 | 0xffff) => None,
                (Width::Fat32, number) => Some(number * sector),
            },
        };
        let root_fits = match width {
            Width::Fat16 => root_bytes > 0,
            Width::Fat32 => {
                // Mirroring switched off is legal, and nobody does it.
                let mirrored = u16_at(boot, 40) & 0x80 == 0;
                root_bytes == 0 && layout.has(layout.root_cluster) && mirrored
            }
        };
        let info_fits = layout.info.is_none_or(|at| at < layout.fat);
        if !root_fits || !info_fits || layout.fat_bytes < (clusters + 2) * layout.entry_bytes() {
            return Err(FatError::BootSector);
        }
        Ok(layout)
    }

    /// Bytes of an entry of the table.
    pub(in crate::storage) fn entry_bytes(&self) -> u64 {
        match self.width {
            Width::Fat16 => 2,
            Width::Fat32 => 4,
        }
    }

    /// Whether a cluster of this number exists.
    pub(in crate::storage) fn has(&self, cluster: u32) -> bool {
        (2..self.clusters + 2).contains(&cluster)
    }

    /// Where a cluster lies.
    pub(in crate::storage) fn place(&self, cluster: u32) -> u64 {
        assert!(self.has(cluster), "cluster {cluster} was checked before");
        self.data + u64::from(cluster - 2) * self.cluster_bytes
    }

    /// A layout for a partition of `bytes` with blocks of `sector`, and its reserved sectors.
    pub(in crate::storage) fn new(
        bytes: u64,
        sector: u64,
        serial: u32,
    ) -> Result<(Layout, Vec<u8>), FatError> {
        let wide = bytes >= FAT32_BYTES_MIN;
        let sectors = (bytes / sector).min(u64::from(u32::MAX));
        let (reserved, root) = match wide {
            true => (32, 0),
            false => (1, (ROOT_ENTRIES * SLOT_BYTES).div_ceil(sector)),
        };
        let entry = if wide { 4 } else { 2 };
        let mut per_cluster = (CLUSTER_BYTES / sector).max(1);
        while !wide && sectors / per_cluster >= FAT32_CLUSTERS_MIN
            || sectors / per_cluster > u64::from(CLUSTERS_MAX)
        {
            per_cluster *= 2;
        }
        if per_cluster > 128 {
            return Err(FatError::TooLarge);
        }
        // Enough for every sector but the reserved ones, so a little more than needed.
        let clusters = (sectors - reserved - root) / per_cluster;
        let fat_sectors = ((clusters + 2) * entry).div_ceil(sector);
        let mut boot = vec![0; (reserved * sector) as usize];
        boot[..11].copy_from_slice(b"\xeb\x58\x90GODWIT  ");
        boot[11..13].copy_from_slice(&(sector as u16).to_le_bytes());
        boot[13] = per_cluster as u8;
        boot[14..16].copy_from_slice(&(reserved as u16).to_le_bytes());
        boot[16] = 2;
        let root_entries = (root * sector / SLOT_BYTES) as u16;
        boot[17..19].copy_from_slice(&root_entries.to_le_bytes());
        boot[21] = 0xf8;
        boot[24..28].copy_from_slice(&[63, 0, 16, 0]);
        boot[32..36].copy_from_slice(&(sectors as u32).to_le_bytes());
        let extended = match wide {
            false => {
                boot[22..24].copy_from_slice(&(fat_sectors as u16).to_le_bytes());
                36
            }
            true => {
                boot[36..40].copy_from_slice(&(fat_sectors as u32).to_le_bytes());
                boot[44..48].copy_from_slice(&2u32.to_le_bytes());
                boot[48..52].copy_from_slice(&[1, 0, 6, 0]);
                64
            }
        };
        boot[extended..extended + 3].copy_from_slice(&[0x80, 0, 0x29]);
        boot[extended + 3..extended + 7].copy_from_slice(&serial.to_le_bytes());
        boot[extended + 7..extended + 18].copy_from_slice(b"GODWIT     ");
        let kind = if wide { b"FAT32   " } else { b"FAT16   " };
        boot[extended + 18..extended + 26].copy_from_slice(kind);
        boot[510..512].copy_from_slice(&[0x55, 0xaa]);
        if wide {
            // The backup boot sector, in sector 6.
            let copy = boot[..512].to_vec();
            boot[6 * sector as usize..][..512].copy_from_slice(&copy);
        }
        let head = boot[..512].try_into().expect("512 bytes");
        let layout = Layout::parse(head, bytes).map_err(|_| FatError::TooSmall)?;
        let as_wanted = (layout.width == Width::Fat32) == wide;
        if !as_wanted {
            return Err(FatError::TooSmall);
        }
        Ok((layout, boot))
    }
}
