//! The note segment of a dom0 image: the search for the interface version is total, and finds the
//! version of a well-formed note put in front of anything.

use godwit_abi::note::{NOTE_ABI_VERSION, NOTE_NAME, NOTE_NAME_BYTES, version_in};

/// One input: the contents of a note segment.
pub(crate) fn judge(input: &[u8]) {
    let found = version_in(input);
    assert!(found.is_none() || input.windows(6).any(|window| window == &NOTE_NAME[..6]));
    let mut notes = Vec::new();
    for word in [NOTE_NAME_BYTES, 4, NOTE_ABI_VERSION] {
        notes.extend(word.to_le_bytes());
    }
    notes.extend(NOTE_NAME);
    notes.extend(7u32.to_le_bytes());
    notes.extend(input);
    assert_eq!(version_in(&notes), Some(7));
}
