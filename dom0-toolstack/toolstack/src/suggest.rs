//! "Did you mean": the known word nearest to a mistyped one.
//!
//! Distance is the least number of insertions, deletions, replacements and swaps of neighbours
//! (Damerau's restricted edit distance). Work is bounded by [`WORD_CHARS_MAX`] squared a word.

use alloc::vec::Vec;

/// Longer words are not compared: nobody mistypes them by one letter.
pub const WORD_CHARS_MAX: usize = 40;

/// The word of `known` nearest to `given`, if it is near enough to be a slip: at most one edit in
/// three characters. The first of equals wins.
pub fn nearest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = given.chars().count().div_ceil(3);
    let ranked = known
        .into_iter()
        .filter_map(|word| Some((distance(given, word)?, word)));
    ranked
        .filter(|(edits, _)| *edits <= limit)
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, word)| word)
}

/// Edits between two words, `None` if either is too long.
fn distance(left: &str, right: &str) -> Option<usize> {
    let left: Vec<char> = left.chars().take(WORD_CHARS_MAX + 1).collect();
    let right: Vec<char> = right.chars().take(WORD_CHARS_MAX + 1).collect();
    if left.len().max(right.len()) > WORD_CHARS_MAX {
        return None;
    }
    // Three rows of the usual table: the one before the last is needed for swaps.
    let mut older = Vec::new();
    let mut old: Vec<usize> = (0..=right.len()).collect();
    for row in 1..=left.len() {
        let mut new = alloc::vec![row];
        for column in 1..=right.len() {
            let same = left[row - 1] == right[column - 1];
            let mut best = old[column - 1] + usize::from(!same);
            best = best.min(old[column] + 1).min(new[column - 1] + 1);
            let swapped = row > 1
                && column > 1
                && left[row - 1] == right[column - 2]
                && left[row - 2] == right[column - 1];
            if swapped {
                best = best.min(older[column - 2] + 1);
            }
            new.push(best);
        }
        older = core::mem::replace(&mut old, new);
    }
    old.last().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_found_and_strangers_are_not() {
        let known = ["list", "info", "destroy", "pause"];
        assert_eq!(nearest("lst", known), Some("list"));
        assert_eq!(nearest("lsit", known), Some("list"));
        assert_eq!(nearest("destory", known), Some("destroy"));
        assert_eq!(nearest("frobnicate", known), None);
        assert_eq!(nearest("", known), None);
    }

    #[test]
    fn distance_counts_edits() {
        for (left, right, edits) in [("", "", 0), ("abc", "", 3), ("ab", "ba", 1), ("é", "e", 1)] {
            assert_eq!(distance(left, right), Some(edits), "{left} {right}");
        }
        assert_eq!(distance(&"x".repeat(WORD_CHARS_MAX + 1), "x"), None);
    }
}
