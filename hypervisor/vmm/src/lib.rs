//! Every decision the hypervisor makes, without a line of unsafe code.
//!
//! What touches the machine is in the `hypervisor` binary, behind the traits of [`hardware`];
//! this crate runs on the build machine over a fake of the same traits.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod calibration;
pub mod code;
pub mod console_row;
pub mod cpuid;
pub mod devices;
pub mod emulate;
pub mod exit;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
pub mod firmware;
pub mod frames;
pub mod hardware;
pub mod image;
pub mod lifecycle;
pub mod nested;
pub mod passed_ports;
pub mod restarts;
pub mod s5;
pub mod sched;
pub mod time_scale;
pub mod vcpu;
pub mod walk;
