//! What the hypervisor and the control domain agree on, declared once.
//!
//! Both sides are generated from the one table in [`calls`]: numbers, argument checks, the typed
//! client that dom0 uses, the dispatcher that the hypervisor uses, and the documentation table.
//! Layouts of shared structures are in [`layouts`], with sizes asserted where they are declared.
//!
//! Reading order: [`status`], [`ids`], [`calls`], [`layouts`], [`ring`].
#![no_std]
#![forbid(unsafe_code)]

pub mod calls;
pub mod devices;
pub mod ids;
pub mod layouts;
pub mod note;
pub mod ring;
pub mod status;

mod declare;

pub use calls::{Call, Client, Handler, TABLE, dispatch};
pub use declare::{Access, Answer, CallDoc, MAX_ARGUMENTS, Refusal, Trap};
pub use devices::*;
pub use ids::{
    Answered, DomainId, EventSource, InterruptKind, PciAddress, Port, PowerAction, VcpuIndex,
};
pub use layouts::*;
pub use status::Status;

/// The version of this interface. A dom0 image carries the version it was built for in an ELF
/// note ([`note`]); the hypervisor refuses an image of another version before it runs it.
pub const ABI_VERSION: u32 = 1;

/// Bytes in a page of guest or host memory.
pub const PAGE_SIZE_BYTES: u64 = 4096;
