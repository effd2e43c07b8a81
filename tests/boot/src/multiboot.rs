//! A Multiboot 1 guest of a few instructions: a 32-bit ELF image that writes its command line, and what its one module holds, on the debug
//! console, a line each, and halts.

/// Where it is loaded, and where in the file its header and its code are.
const BASE: u32 = 0x10_0000;
const HEADER_AT: usize = 96;
const CODE_AT: usize = 108;
/// The header (section 3.1): modules on page borders, memory information.
const MAGIC: u32 = 0x1bad_b002;
const FLAGS: u32 = 3;

/// Entered with EAX = 0x2BADB002, EBX = the information (section 3.2); it has no stack.
#[rustfmt::skip]
const CODE: &[u8] = &[
    0x3d, 0x02, 0xb0, 0xad, 0x2b, // cmp eax, 0x2badb002
    0x75, 0x2c,                   // jne end
    0xba, 0xe9, 0x00, 0x00, 0x00, // mov edx, 0xe9
    0x8b, 0x73, 0x10,             // mov esi, [ebx + 16]: command line
    0xac,                         // text: lodsb
    0x84, 0xc0,                   // test al, al
    0x74, 0x03,                   // jz past
    0xee,                         // out dx, al
    0xeb, 0xf8,                   // jmp text
    0xb0, 0x0a,                   // past: mov al, 10
    0xee,                         // out dx, al
    0x83, 0x7b, 0x14, 0x01,       // cmp dword [ebx + 20], 1: modules
    0x75, 0x13,                   // jne end
    0x8b, 0x4b, 0x18,             // mov ecx, [ebx + 24]: their list
    0x8b, 0x31,                   // mov esi, [ecx]: start
    0x8b, 0x79, 0x04,             // mov edi, [ecx + 4]: end
    0x39, 0xfe,                   // module: cmp esi, edi
    0x73, 0x04,                   // jae done
    0xac,                         // lodsb
    0xee,                         // out dx, al
    0xeb, 0xf8,                   // jmp module
    0xb0, 0x0a,                   // done: mov al, 10
    0xee,                         // out dx, al
    0xf4,                         // end: hlt
    0xeb, 0xfd,                   // jmp end
];

/// The image.
pub fn image() -> Vec<u8> {
    const HEADER_BYTES: u16 = 52;
    const ROW_BYTES: u16 = 32;
    let length = (CODE_AT + CODE.len()) as u32;
    // ELF header (gABI): 32-bit, little-endian, executable, for the 80386, one program header behind it.
    let mut file = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x03\0".to_vec();
    for word in [1, BASE + CODE_AT as u32, HEADER_BYTES.into(), 0, 0] {
        file.extend(word.to_le_bytes());
    }
    for half in [HEADER_BYTES, ROW_BYTES, 1, 0, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    // The program header: all of the file, to be loaded.
    for word in [1, 0, BASE, BASE, length, length, 7, 4] {
        file.extend(word.to_le_bytes());
    }
    file.resize(HEADER_AT, 0);
    for word in [MAGIC, FLAGS, 0u32.wrapping_sub(MAGIC + FLAGS)] {
        file.extend(word.to_le_bytes());
    }
    file.extend(CODE);
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_and_code_are_where_they_are_said_to_be() {
        let image = image();
        assert_eq!(image[HEADER_AT..][..4], MAGIC.to_le_bytes());
        assert_eq!(&image[CODE_AT..], CODE);
        assert!(image[28..].starts_with(&52u32.to_le_bytes()));
    }
}
