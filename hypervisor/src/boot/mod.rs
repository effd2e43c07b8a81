//! From the boot loader to a machine that Rust understands.

mod entry;
pub(crate) mod info;
pub(crate) mod options;
