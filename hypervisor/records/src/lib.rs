#![no_std]
#![forbid(unsafe_code)]
//! Guest-visible state as versioned records, declared once, in the architecture's terms and in no
//! vendor's: so a guest saved on one host runs on another, whatever either is made of.
//!
//! [`record!`] takes fields, reset values and version blocks and makes the struct, the encoding,
//! the total decoding, the schema and what the laws of `laws` need. There is one encoding for each value;
//! decoding what a peer sent never panics and names the record, field and byte that is wrong.
//! Whether a decoded value makes *sense* is the next question, answered by `check` functions such
//! as [`VcpuState::check`].
//!
//! # Declaring a device
//!
//! A device model of the hypervisor has a saved-state struct; here it gets a record with the same
//! fields (times as guest TSC values or counts, never host time), a `Kind`, a row in [`SCHEMAS`],
//! and in `tests/laws.rs` a line with its fingerprint and golden bytes. The model's `save` makes
//! the record and its `restore` checks it. Until a device has a record it is not migratable.
//!
//! Reading order: [`vcpu`](VcpuState), `declare`, `field`, `wire`, `check`.

#[cfg(any(test, feature = "laws"))]
extern crate std;

mod check;
mod cpu_policy;
mod declare;
mod field;
mod kind;
#[cfg(any(test, feature = "laws"))]
pub mod laws;
mod platform;
mod schema;
mod segment;
mod vcpu;
mod virtio;
mod wire;
mod xsave;

pub use check::Invalid;
pub use cpu_policy::{CPUID_ENTRIES_MAX, CpuPolicyState, CpuidEntry, IMMUNITIES, Lack, WARNINGS};
pub use declare::Record;
pub use field::{Bits, Bytes, Field};
pub use kind::Kind;
pub use platform::{
    AcpiFixed, ApicCountdown, IntervalTimer, IoApic, LocalApic, LocalApicMode, MSIX_VECTORS_MAX,
    ParavirtualClock, PciBus, PciFunction, PicChip, PicPair, PicPhase, PitAccess, PitChannel,
    PitCounting, PlatformTime, RealTimeClock, ResetControl, SERIAL_INPUT_BYTES_MAX, SerialPort,
    VCPUS_MAX, VcpuLocal,
};
pub use schema::{FieldSchema, Schema, Shape, VersionSchema};
pub use segment::Segment;
pub use vcpu::{Activity, EventKind, PendingEvent, Shadow, VcpuState};
pub use virtio::{
    VIRTIO_NO_VECTOR, VIRTIO_QUEUES_MAX, VirtioBalloonState, VirtioBlockState, VirtioNetState,
    VirtioQueueState, VirtioState,
};
pub use wire::{DecodeError, EncodeError, Fault, HEADER_BYTES, Header, Reader, Writer};
pub use xsave::{XSAVE_AREA_BYTES_MAX, XsaveState};

/// Every record, for the documentation and the tests.
pub const SCHEMAS: &[&Schema] = &[
    VcpuState::SCHEMA,
    XsaveState::SCHEMA,
    CpuPolicyState::SCHEMA,
    PlatformTime::SCHEMA,
    VcpuLocal::SCHEMA,
    LocalApic::SCHEMA,
    PicPair::SCHEMA,
    AcpiFixed::SCHEMA,
    ResetControl::SCHEMA,
    IoApic::SCHEMA,
    IntervalTimer::SCHEMA,
    RealTimeClock::SCHEMA,
    SerialPort::SCHEMA,
    PciBus::SCHEMA,
    PciFunction::SCHEMA,
    ParavirtualClock::SCHEMA,
    VirtioState::SCHEMA,
    VirtioBlockState::SCHEMA,
    VirtioNetState::SCHEMA,
    VirtioBalloonState::SCHEMA,
];
