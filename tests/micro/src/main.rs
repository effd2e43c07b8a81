//! The micro-VM guest: one small image, one behaviour of the virtual machine a test, and it judges itself.
//!
//! The command line's first word names the test, further words are `name=value`. Facts go to the debug
//! console a line each; the last line is `MICRO <test> PASS`, `FAIL <reason>` or `SKIP <reason>`, and the
//! machine is powered off. Tests whose point is the machine's end say `EXPECT-CRASH` or `EXPECT-REBOOT` first.
//! The same image runs without a hypervisor on an emulated machine, which is how the tests themselves are tested.
#![no_std]
#![no_main]
// A failure is made once and ends the program; there is no heap to box it.
#![allow(clippy::result_large_err)]

mod apic;
mod command_line;
mod console;
mod cpu;
mod entry;
mod exec;
mod machine;
mod report;
mod start_info;
mod tests;
mod trap;
mod window;
