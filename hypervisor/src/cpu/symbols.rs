//! Names for addresses in epitaphs: the image's own symbol table, which the boot loader keeps in
//! memory (multiboot2 ELF sections).

use spin::once::Once;

use crate::boot::info::Range;
use crate::memory::tables::map_firmware;

static SYMBOLS: Once<(&'static [Symbol], &'static [u8])> = Once::new();

/// Elf64_Sym (System V gABI, "Symbol Table").
#[repr(C)]
#[derive(Clone, Copy)]
struct Symbol {
    name: u32,
    info: u8,
    other: u8,
    section: u16,
    value: u64,
    size: u64,
}

const STT_FUNC: u8 = 2;

/// Takes the tables over. Their memory is never given to anybody else.
pub(crate) fn init(table: Range, strings: Range) {
    if !table.start.is_multiple_of(8) {
        return;
    }
    let symbols = map_firmware(table.start, table.bytes());
    let names = map_firmware(strings.start, strings.bytes());
    // SAFETY: the boot loader loaded both sections there, `memory::init` keeps the ranges, nothing
    // writes to them; any bytes make valid `Symbol`s.
    let value = unsafe {
        (
            core::slice::from_raw_parts(
                symbols.cast::<Symbol>(),
                table.bytes() as usize / size_of::<Symbol>(),
            ),
            core::slice::from_raw_parts(names.cast_const(), strings.bytes() as usize),
        )
    };
    SYMBOLS.call_once(|| value);
}

/// The function an address lies in, and how far in.
pub(crate) fn find(address: u64) -> Option<(&'static str, u64)> {
    let (symbols, names) = SYMBOLS.get()?;
    let symbol = symbols
        .iter()
        .filter(|symbol| symbol.info & 15 == STT_FUNC && symbol.value <= address)
        .max_by_key(|symbol| symbol.value)?;
    let offset = address - symbol.value;
    if offset > symbol.size {
        return None;
    }
    let name = names.get(symbol.name as usize..)?;
    let end = name.iter().position(|byte| *byte == 0)?;
    Some((core::str::from_utf8(&name[..end]).ok()?, offset))
}
