//! A page on the wire: zero, a delta to what was sent before, compressed, or as it is, whichever is
//! worth it.

pub mod batch;
pub mod cache;
pub mod choice;
pub mod costs;
pub mod delta;

/// Bytes of a page.
pub const PAGE_BYTES: usize = 4096;
/// The contents of a page, copied out of the guest.
pub type Page = [u8; PAGE_BYTES];

/// Whether a page is all zeroes.
pub fn is_zero(page: &Page) -> bool {
    // By blocks, so that a page that is not is found out early and one that is goes by words.
    page.chunks_exact(64).all(|block| {
        let words = block.chunks_exact(8);
        words.fold(0, |all, word| {
            all | u64::from_le_bytes(word.try_into().expect("8 bytes"))
        }) == 0
    })
}
