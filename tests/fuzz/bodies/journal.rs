//! A region of a journal with anything in it: what is read of it are numbered records that lie
//! within it.

use godwit_backends::storage::journal::{RECORD_BYTES_MAX, scan};

const BLOCK_BYTES: usize = 512;

/// One input: the region, filled up to a block. Returns whether it has records.
pub(crate) fn judge(input: &[u8]) -> bool {
    let mut bytes = input.to_vec();
    bytes.resize(bytes.len().next_multiple_of(BLOCK_BYTES), 0);
    let Some(region) = scan(&bytes, BLOCK_BYTES) else {
        return false;
    };
    assert!(region.end.is_multiple_of(BLOCK_BYTES) && region.end <= bytes.len());
    for (record, number) in region.records.iter().zip(region.first..) {
        assert_eq!(record.sequence, number);
        assert!(record.bytes.len() <= RECORD_BYTES_MAX);
    }
    // Nothing behind the end has a say.
    bytes[region.end..].fill(0xff);
    assert_eq!(scan(&bytes, BLOCK_BYTES).as_ref(), Some(&region));
    !region.records.is_empty()
}
