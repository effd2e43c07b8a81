//! What the boot loader hands over, copied out of its memory before that memory is used again:
//! memory map, modules, command line, the ACPI root pointer, where the symbols are.

use arrayvec::{ArrayString, ArrayVec};
use multiboot2::{BootInformation, BootInformationHeader, MemoryAreaType};

use crate::memory::layout::direct_map;

/// The most memory map entries kept.
pub(crate) const AREAS_MAX: usize = 128;
/// The most modules kept.
pub(crate) const MODULES_MAX: usize = godwit_abi::MODULES_MAX + 1;
/// The longest module string or command line kept, in bytes.
pub(crate) const STRING_MAX: usize = 512;

/// A range of physical memory, `[start, end)` in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) start: u64,
    pub(crate) end: u64,
}

impl Range {
    pub(crate) fn bytes(&self) -> u64 {
        self.end - self.start
    }
}

/// A boot module.
#[derive(Clone)]
pub(crate) struct BootModule {
    pub(crate) range: Range,
    pub(crate) string: ArrayString<STRING_MAX>,
}

impl BootModule {
    /// First word of the string.
    pub(crate) fn name(&self) -> &str {
        self.string.split_whitespace().next().unwrap_or("")
    }
}

/// Everything the hypervisor wants to know from the boot loader.
pub(crate) struct BootInfo {
    pub(crate) usable: ArrayVec<Range, AREAS_MAX>,
    /// End of the highest usable byte.
    pub(crate) memory_end: u64,
    pub(crate) modules: ArrayVec<BootModule, MODULES_MAX>,
    pub(crate) cmdline: ArrayString<STRING_MAX>,
    pub(crate) rsdp: Option<Rsdp>,
    /// `.symtab` and its string table, where the boot loader put them.
    pub(crate) symbols: Option<(Range, Range)>,
    /// The information structure itself.
    pub(crate) information: Range,
    pub(crate) loader: ArrayString<64>,
}

/// A copy of the ACPI root pointer: the boot loader passes a copy, not the address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rsdp {
    pub(crate) revision: u8,
    /// Address of the RSDT (revision 0) or XSDT.
    pub(crate) table: u64,
}

/// Why the boot information cannot be used.
pub(crate) enum BootError {
    NotMultiboot2(u32),
    Malformed,
    NoMemoryMap,
}

impl core::fmt::Display for BootError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            BootError::NotMultiboot2(magic) => {
                write!(f, "not a multiboot2 boot loader (magic {magic:#x})")
            }
            BootError::Malformed => f.write_str("the boot information is malformed"),
            BootError::NoMemoryMap => f.write_str("the boot loader gave no memory map"),
        }
    }
}

const MAGIC: u32 = 0x36d7_6289;

fn cut<const N: usize>(text: &str) -> ArrayString<N> {
    let mut end = text.len().min(N);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    ArrayString::from(&text[..end]).unwrap_or_default()
}

/// Memory beyond this is not used: the frame table numbers frames with 32 bits.
const MEMORY_END_MAX: u64 = 8 << 40;

/// A memory map entry, as far as it can be used.
fn range(start: u64, bytes: u64) -> Range {
    let start = start.min(MEMORY_END_MAX);
    Range {
        start,
        end: start.saturating_add(bytes).min(MEMORY_END_MAX),
    }
}

/// Adds a usable area without what other entries claim of it: firmware whose entries overlap means the
/// more careful one. What finds no place any more is not used.
fn add_without<const N: usize>(
    usable: &mut ArrayVec<Range, N>,
    mut area: Range,
    others: impl Iterator<Item = Range> + Clone,
) {
    while area.start < area.end {
        let here = others.clone().filter(|other| other.start < other.end);
        let next = here
            .filter(|other| other.start < area.end && area.start < other.end)
            .min_by_key(|other| other.start);
        let end = next.map_or(area.end, |other| other.start);
        if area.start < end {
            let free = Range {
                start: area.start,
                end,
            };
            if usable.try_push(free).is_err() {
                return;
            }
        }
        area.start = next.map_or(area.end, |other| other.end);
    }
}

/// Reads the information structure at physical address `address`.
pub(crate) fn parse(magic: u32, address: u32) -> Result<BootInfo, BootError> {
    if magic != MAGIC {
        return Err(BootError::NotMultiboot2(magic));
    }
    let pointer = direct_map(u64::from(address)) as *const BootInformationHeader;
    // SAFETY: the boot loader put the structure at `address`, below 4 GiB, which the first tables
    // map at the direct map; nothing has written to memory outside the image since.
    let information =
        unsafe { BootInformation::load(pointer) }.map_err(|_| BootError::Malformed)?;
    let map = information.memory_map_tag().ok_or(BootError::NoMemoryMap)?;
    let areas = || {
        map.memory_areas()
            .iter()
            .map(|area| (area.typ(), range(area.start_address(), area.size())))
    };
    let mut usable = ArrayVec::new();
    for (_, available) in areas().filter(|(kind, _)| *kind == MemoryAreaType::Available) {
        let others = areas().filter(|(kind, _)| *kind != MemoryAreaType::Available);
        add_without(&mut usable, available, others.map(|(_, other)| other));
    }
    let memory_end = usable.iter().map(|area| area.end).max().unwrap_or(0);
    Ok(BootInfo {
        usable,
        memory_end,
        modules: modules(&information),
        cmdline: cut(information
            .command_line_tag()
            .and_then(|tag| tag.cmdline().ok())
            .unwrap_or("")),
        rsdp: rsdp(&information),
        symbols: symbols(&information),
        information: Range {
            start: address.into(),
            end: u64::from(address) + information.total_size() as u64,
        },
        loader: cut(information
            .boot_loader_name_tag()
            .and_then(|tag| tag.name().ok())
            .unwrap_or("unknown")),
    })
}

fn modules(information: &BootInformation<'_>) -> ArrayVec<BootModule, MODULES_MAX> {
    let mut modules = ArrayVec::new();
    for module in information.module_tags() {
        let range = Range {
            start: module.start_address().into(),
            end: module.end_address().into(),
        };
        let entry = BootModule {
            range,
            string: cut(module.cmdline().unwrap_or("")),
        };
        if range.end < range.start || modules.try_push(entry).is_err() {
            break;
        }
    }
    modules
}

fn rsdp(information: &BootInformation<'_>) -> Option<Rsdp> {
    let second = information.rsdp_v2_tag().map(|tag| Rsdp {
        revision: tag.revision().max(2),
        table: tag.xsdt_address() as u64,
    });
    second.or_else(|| {
        information.rsdp_v1_tag().map(|tag| Rsdp {
            revision: 0,
            table: tag.rsdt_address() as u64,
        })
    })
}

/// The symbol table and the string table that stands behind it in every ELF file lld writes.
fn symbols(information: &BootInformation<'_>) -> Option<(Range, Range)> {
    const SHT_SYMTAB: u32 = 2;
    const SHT_STRTAB: u32 = 3;
    let tag = information.elf_sections_tag()?;
    let names = tag.shndx();
    let mut symtab = None;
    let mut strings = None;
    for (index, section) in tag.sections().enumerate() {
        let range = Range {
            start: section.sh_addr,
            end: section.sh_addr + section.sh_size,
        };
        match section.sh_type {
            SHT_SYMTAB => symtab = Some(range),
            SHT_STRTAB if index as u32 != names => strings = Some(range),
            _ => {}
        }
    }
    Some((symtab?, strings?))
}
