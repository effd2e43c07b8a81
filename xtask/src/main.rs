//! Godwit tasks.
fn main() {}
