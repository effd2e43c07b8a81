//! Real boots of the real image in real emulators; the tests are in `tests/`, one file a subject.
//!
//! They need `out/*.elf`, so start them with `./x test boot`, which builds first; or
//! `cargo test -p godwit-boot-tests -- --test-threads=2` after `./x build`.

#![forbid(unsafe_code)]
