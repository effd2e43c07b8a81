//! The ELF note by which a dom0 image says which interface version it was built for.
//!
//! Standard note layout (System V gABI, "Note Section"): name size, descriptor size, type, name,
//! descriptor, each a little-endian word or padded to words.

/// Name of the note, with its terminating zero.
pub const NOTE_NAME: [u8; 8] = *b"Godwit\0\0";
/// Size of the name as the note states it (`"Godwit\0"`).
pub const NOTE_NAME_BYTES: u32 = 7;
/// Type of the note: the interface version, one word.
pub const NOTE_ABI_VERSION: u32 = 1;

/// The whole note, to be placed in a section named `.note.godwit`.
#[repr(C, align(4))]
pub struct AbiNote {
    name_bytes: u32,
    descriptor_bytes: u32,
    kind: u32,
    name: [u8; 8],
    version: u32,
}

impl AbiNote {
    /// The note of an image built for `version`.
    pub const fn new(version: u32) -> Self {
        Self {
            name_bytes: NOTE_NAME_BYTES,
            descriptor_bytes: 4,
            kind: NOTE_ABI_VERSION,
            name: NOTE_NAME,
            version,
        }
    }

    /// The version, so that the fields are read by something on every target.
    pub const fn version(&self) -> u32 {
        self.version
    }
}

/// Finds the interface version in the contents of an ELF note segment. `None`: no such note, or
/// the segment is damaged before it.
pub fn version_in(mut notes: &[u8]) -> Option<u32> {
    loop {
        let (name_bytes, rest) = word(notes)?;
        let (descriptor_bytes, rest) = word(rest)?;
        let (kind, rest) = word(rest)?;
        let (name, rest) = padded(rest, name_bytes)?;
        let (descriptor, rest) = padded(rest, descriptor_bytes)?;
        if kind == NOTE_ABI_VERSION && name == &NOTE_NAME[..NOTE_NAME_BYTES as usize] {
            return word(descriptor).map(|(version, _)| version);
        }
        notes = rest;
    }
}

fn word(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (word, rest) = bytes.split_first_chunk::<4>()?;
    Some((u32::from_le_bytes(*word), rest))
}

fn padded(bytes: &[u8], length: u32) -> Option<(&[u8], &[u8])> {
    let length = length as usize;
    let field = bytes.get(..length)?;
    let padded = length.checked_next_multiple_of(4)?;
    Some((field, bytes.get(padded..).unwrap_or(&[])))
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec::Vec;

    fn note(name: &[u8], kind: u32, descriptor: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for word in [name.len() as u32, descriptor.len() as u32, kind] {
            bytes.extend(word.to_le_bytes());
        }
        for part in [name, descriptor] {
            bytes.extend(part);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        bytes
    }

    #[test]
    fn finds_ours_behind_others() {
        let mut bytes = note(b"GNU\0", 3, &[1, 2, 3, 4, 5]);
        bytes.extend(note(b"Godwit\0", 1, &7u32.to_le_bytes()));
        assert_eq!(version_in(&bytes), Some(7));
    }

    #[test]
    fn damage_is_no_version() {
        assert_eq!(version_in(&[]), None);
        let mut bytes = note(b"Godwit\0", 1, &7u32.to_le_bytes());
        bytes[0] = 0xff;
        bytes[3] = 0xff;
        assert_eq!(version_in(&bytes), None);
    }
}
