//! The third back end: no hardware, and encodings no hardware has. Registers are kept scrambled and
//! in another order, segments are packed, events are strings of bits, so that code that assumes what
//! a VMCS or a VMCB looks like fails on the build machine.
//!
//! [`FakeVcpu`] is the [`VcpuHardware`](crate::hardware::VcpuHardware), [`FakeWorld`] the
//! [`World`](crate::vcpu::World) around it, and [`Machine`] the run loop with a CPU that takes
//! events by the rules of the architecture. Whatever breaks a rule that a CPU would answer with a
//! failed entry panics here.

mod bits;
mod machine;
mod state;
mod vcpu;
mod world;

pub use machine::{Entered, Machine};
pub use vcpu::FakeVcpu;
pub use world::{FakeWorld, everything};
