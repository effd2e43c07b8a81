//! What the loader tells us: command line and memory map, copied out before a test overwrites the source.
//!
//! PVH: `hvm_start_info` (Xen, public/arch-x86/hvm/start_info.h). Multiboot2: its tagged information.

use core::ptr::read_unaligned;

/// `hvm_start_info.magic`.
const PVH_MAGIC: u32 = 0x336e_c578;
/// EAX at a multiboot2 entry.
const MULTIBOOT2_MAGIC: u32 = 0x36d7_6289;
/// Longest command line kept, in bytes.
const COMMAND_LINE_BYTES_MAX: usize = 512;
/// Most memory map entries kept.
const REGIONS_MAX: usize = 32;
/// Memory map type of usable RAM, in both protocols.
const TYPE_RAM: u32 = 1;

/// A range of guest-physical RAM, bytes.
#[derive(Clone, Copy)]
pub(crate) struct Region {
    pub(crate) start: u64,
    pub(crate) end: u64,
}

/// The loader's information, in our own memory.
pub(crate) struct StartInfo {
    command_line: [u8; COMMAND_LINE_BYTES_MAX],
    command_line_len: usize,
    regions: [Region; REGIONS_MAX],
    region_count: usize,
    /// End of the loader's own structures, which are in RAM too.
    structures_end: u64,
    /// Which protocol started us and its version, for `hello`.
    pub(crate) protocol: &'static str,
    pub(crate) version: u32,
}

/// Reads a plain integer at a guest-physical address.
fn read<T: Copy>(address: u64) -> T {
    // SAFETY: the loader's structures lie in RAM below 4 GiB, which entry.rs mapped to itself, and are read
    // before anything is written outside our image; T is an integer, so every bit pattern is valid.
    unsafe { read_unaligned(address as *const T) }
}

impl StartInfo {
    /// Reads what the loader left: `eax` and `ebx` as they were at the entry.
    pub(crate) fn read(eax: u32, ebx: u32) -> Option<Self> {
        let mut info = Self {
            command_line: [0; COMMAND_LINE_BYTES_MAX],
            command_line_len: 0,
            regions: [Region { start: 0, end: 0 }; REGIONS_MAX],
            region_count: 0,
            structures_end: u64::from(ebx) + 4096,
            protocol: "pvh",
            version: 0,
        };
        let base = u64::from(ebx);
        if read::<u32>(base) == PVH_MAGIC {
            info.read_pvh(base);
            Some(info)
        } else if eax == MULTIBOOT2_MAGIC {
            info.protocol = "multiboot";
            info.version = 2;
            info.read_multiboot2(base);
            Some(info)
        } else {
            None
        }
    }

    /// Offsets: version 4, cmdline_paddr 24; from version 1: memmap_paddr 40, memmap_entries 48. An entry is
    /// address 0, size 8, type 16, reserved 20.
    fn read_pvh(&mut self, base: u64) {
        self.version = read(base + 4);
        let command_line: u64 = read(base + 24);
        if command_line != 0 {
            self.copy_command_line(command_line);
            self.structures_end = self
                .structures_end
                .max(command_line + self.command_line_len as u64 + 1);
        }
        if self.version >= 1 {
            let map: u64 = read(base + 40);
            let entries: u32 = read(base + 48);
            for entry in 0..u64::from(entries) {
                let at = map + entry * 24;
                self.add_region(read(at), read(at + 8), read(at + 16));
            }
            self.structures_end = self.structures_end.max(map + u64::from(entries) * 24);
        }
    }

    /// Tags from offset 8: type, size, contents; each aligned to 8. 1 = command line, 6 = memory map, 0 = end.
    fn read_multiboot2(&mut self, base: u64) {
        let end = base + u64::from(read::<u32>(base));
        let mut tag = base + 8;
        while tag < end {
            let size: u32 = read(tag + 4);
            match read::<u32>(tag) {
                0 => break,
                1 => self.copy_command_line(tag + 8),
                6 => {
                    let entry_size: u32 = read(tag + 8);
                    let mut at = tag + 16;
                    while at < tag + u64::from(size) {
                        self.add_region(read(at), read(at + 8), read(at + 16));
                        at += u64::from(entry_size);
                    }
                }
                _ => {}
            }
            tag += u64::from(size.next_multiple_of(8));
        }
    }

    fn copy_command_line(&mut self, address: u64) {
        for (slot, at) in self.command_line.iter_mut().zip(address..) {
            let byte: u8 = read(at);
            if byte == 0 {
                break;
            }
            *slot = if byte.is_ascii() { byte } else { b'?' };
            self.command_line_len += 1;
        }
    }

    fn add_region(&mut self, start: u64, size_bytes: u64, kind: u32) {
        if kind == TYPE_RAM
            && let Some(slot) = self.regions.get_mut(self.region_count)
        {
            *slot = Region {
                start,
                end: start.saturating_add(size_bytes),
            };
            self.region_count += 1;
        }
    }

    /// The whole command line.
    pub(crate) fn command_line(&self) -> &str {
        core::str::from_utf8(&self.command_line[..self.command_line_len]).unwrap_or("")
    }

    /// RAM as the loader describes it; empty when it does not (PVH version 0).
    pub(crate) fn ram(&self) -> &[Region] {
        &self.regions[..self.region_count]
    }

    /// RAM above our image and the loader's structures and below 4 GiB, in whole pages: what a test may overwrite.
    pub(crate) fn free_ram(&self) -> impl Iterator<Item = Region> + '_ {
        let taken_end = crate::machine::image_end().max(self.structures_end);
        self.ram().iter().filter_map(move |region| {
            let start = region.start.max(taken_end).next_multiple_of(4096);
            let end = region.end.min(1 << 32) & !4095;
            (start < end).then_some(Region { start, end })
        })
    }
}
