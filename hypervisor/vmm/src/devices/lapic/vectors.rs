//! A set of interrupt vectors: the shape of IRR, ISR and TMR (SDM 3A 11.8.4), 256 bits with "highest first" queries.

/// Vectors 0..=255. Kept as four words, so that finding the highest is at most four tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct VectorSet {
    words: [u64; 4],
}

impl VectorSet {
    /// The set with these words, word 0 holding vectors 0..=63.
    pub const fn from_words(words: [u64; 4]) -> VectorSet {
        VectorSet { words }
    }

    /// The words, as [`VectorSet::from_words`] takes them.
    pub const fn words(&self) -> [u64; 4] {
        self.words
    }

    /// Adds a vector.
    pub fn insert(&mut self, vector: u8) {
        self.words[usize::from(vector >> 6)] |= 1 << (vector & 63);
    }

    /// Takes a vector out.
    pub fn remove(&mut self, vector: u8) {
        self.words[usize::from(vector >> 6)] &= !(1 << (vector & 63));
    }

    /// Is the vector in the set?
    pub fn contains(&self, vector: u8) -> bool {
        self.words[usize::from(vector >> 6)] >> (vector & 63) & 1 != 0
    }

    /// The highest vector in the set, which is the one of highest priority.
    #[inline]
    pub fn highest(&self) -> Option<u8> {
        let [a, b, c, d] = self.words;
        if (a | b | c | d) == 0 {
            return None;
        }
        let (base, word) = if d != 0 {
            (192, d)
        } else if c != 0 {
            (128, c)
        } else if b != 0 {
            (64, b)
        } else {
            (0, a)
        };
        // At most 192 + 63.
        Some(base + (63 - word.leading_zeros()) as u8)
    }

    /// The 32-bit register `index` (0..=7) through which software sees vectors `32 * index` and up.
    pub fn register(&self, index: usize) -> u32 {
        (self.words[(index >> 1) & 3] >> ((index & 1) * 32)) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::VectorSet;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    extern crate std;

    proptest! {
        #[test]
        fn agrees_with_an_ordered_set(ops in proptest::collection::vec((any::<bool>(), any::<u8>()), 0..200)) {
            let (mut set, mut oracle) = (VectorSet::default(), BTreeSet::new());
            for (add, vector) in ops {
                if add { set.insert(vector); oracle.insert(vector); } else { set.remove(vector); oracle.remove(&vector); }
                prop_assert_eq!(set.highest(), oracle.last().copied());
                prop_assert_eq!(set.contains(vector), add);
            }
            for vector in 0..=255u8 {
                let seen = set.register(usize::from(vector) / 32) >> (vector % 32) & 1 != 0;
                prop_assert_eq!(seen, oracle.contains(&vector));
            }
        }
    }
}
