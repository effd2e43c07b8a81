//! Inputs that say how a good image is spoiled: pieces of `offset u32, length u8, bytes`,
//! little-endian; an offset wraps around at the image's end.

/// Applies the pieces; a last one that is too short is cut.
pub(crate) fn apply(image: &mut [u8], mut input: &[u8]) {
    while let Some((head, rest)) = input.split_first_chunk::<5>() {
        let [a, b, c, d, length] = *head;
        let offset = u32::from_le_bytes([a, b, c, d]) as usize % image.len();
        let (bytes, rest) = rest.split_at(rest.len().min(usize::from(length)));
        for (place, byte) in image[offset..].iter_mut().zip(bytes) {
            *place = *byte;
        }
        input = rest;
    }
}
