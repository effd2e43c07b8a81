//! The toolstack of the control domain: everything it decides, as code that runs anywhere.
//!
//! No I/O, no clock, no unsafe code: bytes and facts come in as arguments, bytes and calls on
//! [`host::Hypervisor`] go out. Entry points that take input nobody vouches for, and are therefore
//! total, bounded and tested with arbitrary input, are listed in their modules' heads.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod acpi;
pub mod build;
pub mod command;
pub mod config;
pub mod dirty;
pub mod editor;
pub mod host;
pub mod hosts;
pub mod loader;
pub mod modules;
pub mod names;
pub mod net;
pub mod operate;
pub mod registry;
pub mod run;
pub mod show;
pub mod site;
pub mod suggest;
pub mod table;
