//! Replays a corpus in an ordinary test. Included by path from the tests named `corpus.rs`.

use std::path::Path;

/// Gives every file of `tests/fuzz/corpus/<target>` to `judge`, which panics when a law is broken.
/// Returns how many there were; none is a mistake in the path.
pub(crate) fn replay(target: &str, judge: impl Fn(&[u8])) -> usize {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .map(|above| above.join("tests/fuzz/corpus"))
        .find(|corpus| corpus.is_dir())
        .expect("tests/fuzz/corpus above this crate")
        .join(target);
    let mut inputs: Vec<_> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("a directory entry").path())
        .collect();
    inputs.sort();
    for input in &inputs {
        let bytes = std::fs::read(input).expect("a readable input");
        println!("{}", input.display());
        judge(&bytes);
    }
    assert!(!inputs.is_empty(), "{} holds no input", folder.display());
    inputs.len()
}
