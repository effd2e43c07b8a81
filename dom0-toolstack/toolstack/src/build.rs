//! The hypervisor's part of making a domain: memory, image, boot vCPU, pinning.
//!
//! Nothing is undone here: whoever made the domain destroys it when a step fails.

use crate::config::Config;
use crate::host::{COPY_BYTES_MAX, Hypervisor};
use crate::loader::{self, Content, Guest, LoadError, LoadPlan};
use crate::site::yield_now;
use core::fmt;
use core::ops::Range;
use godwit_abi::{DomainConfig, DomainId, PAGE_SIZE_BYTES, Status, VcpuIndex, field};
use godwit_records::{Record, VcpuState};

/// Pages of 4 KiB in a MiB.
pub const PAGES_PER_MIB: u64 = (1 << 20) / PAGE_SIZE_BYTES;

/// A step of the making, for messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// `domain_create`.
    Create,
    /// `blob_write`.
    Register,
    /// `memory_populate`.
    Populate,
    /// `memory_write`.
    Write,
    /// `vcpu_state_set`.
    VcpuState,
    /// `vcpu_affinity_set`.
    Pin,
    /// `domain_clock_set`.
    Clock,
    /// `domain_unpause`.
    Unpause,
}

/// Why a domain was not made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BuildError {
    /// The hypervisor refused a step.
    Refused(Step, Status),
    /// The hypervisor says a step went well, yet nothing was done.
    Stalled(Step),
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BuildError::Refused(step, status) => {
                let what = match step {
                    Step::Create => "cannot create the domain",
                    Step::Register => "cannot note down what it is",
                    Step::Populate => "cannot give it memory",
                    Step::Write => "cannot write its memory",
                    Step::VcpuState => "cannot set the state of its vCPU",
                    Step::Pin => "cannot pin its vCPUs",
                    Step::Clock => "cannot set its clock",
                    Step::Unpause => "cannot start it",
                };
                write!(f, "{what}: {status}")
            }
            BuildError::Stalled(step) => {
                write!(
                    f,
                    "the hypervisor made no progress ({step:?}); this is a bug in it"
                )
            }
        }
    }
}

/// What becomes an error of `step`.
pub(crate) fn refused(step: Step) -> impl Fn(Status) -> BuildError {
    move |status| BuildError::Refused(step, status)
}

/// How to load a guest. Touches nothing.
pub fn plan<'a>(
    config: &'a Config,
    kernel: &'a [u8],
    ramdisk: Option<&'a [u8]>,
) -> Result<LoadPlan<'a>, LoadError> {
    loader::plan(&Guest {
        kernel,
        ramdisk,
        cmdline: &config.cmdline,
        memory_bytes: config.memory_max_mib << 20,
        vcpus: config.vcpus,
    })
}

/// What the hypervisor is told of a new domain. The configuration has a uuid.
pub fn domain_config(config: &Config) -> DomainConfig {
    DomainConfig {
        name: field(&config.name),
        uuid: config.uuid.expect("a uuid was chosen before"),
        memory_pages_max: config.memory_max_mib * PAGES_PER_MIB,
        vcpus: config.vcpus,
        weight: config.weight,
        cap_percent: config.cap_percent,
        flags: 0,
        cpu_policy: config.cpu_policy.number(),
        reserved_word: 0,
        reserved: 0,
    }
}

/// Gives a domain memory at guest-physical addresses, whole pages.
pub async fn populate(
    hypervisor: &impl Hypervisor,
    domain: DomainId,
    range: &Range<u64>,
) -> Result<(), BuildError> {
    let (mut page, end) = (range.start / PAGE_SIZE_BYTES, range.end / PAGE_SIZE_BYTES);
    while page < end {
        let done = hypervisor.memory_populate(domain, page, end - page);
        let done = done.map_err(refused(Step::Populate))?;
        if done == 0 || done > end - page {
            return Err(BuildError::Stalled(Step::Populate));
        }
        page += done;
        yield_now().await;
    }
    Ok(())
}

/// Loads a new domain's memory and boot vCPU.
pub async fn fill(
    hypervisor: &impl Hypervisor,
    domain: DomainId,
    plan: &LoadPlan<'_>,
) -> Result<(), BuildError> {
    for range in &plan.memory {
        populate(hypervisor, domain, range).await?;
    }
    for piece in &plan.pieces {
        let bytes = match &piece.content {
            Content::Image(bytes) => bytes,
            Content::Made(bytes) => bytes.as_slice(),
            Content::Zero(_) => continue,
        };
        let mut address = piece.address;
        for chunk in bytes.chunks(COPY_BYTES_MAX) {
            let written = hypervisor.memory_write(domain, address, chunk);
            written.map_err(refused(Step::Write))?;
            address += chunk.len() as u64;
            yield_now().await;
        }
    }
    let mut record = alloc::vec![0; VcpuState::MAX_BYTES];
    let length = plan.state.encode(&mut record);
    let length = length.expect("the buffer takes every state");
    hypervisor
        .vcpu_state_set(domain, VcpuIndex(0), &record[..length])
        .map_err(refused(Step::VcpuState))
}

/// Pins vCPUs as configured, and sets the clock if the host has one.
pub fn place(
    hypervisor: &impl Hypervisor,
    domain: DomainId,
    config: &Config,
) -> Result<(), BuildError> {
    for vcpu in 0..config.vcpus {
        let set = config.cpus.get(vcpu as usize).or(config.cpus.first());
        if let Some(cpus) = set {
            let pinned = hypervisor.vcpu_affinity_set(domain, VcpuIndex(vcpu as u16), *cpus);
            pinned.map_err(refused(Step::Pin))?;
        }
    }
    match hypervisor.wall_clock() {
        Ok(unix_ns) => hypervisor
            .domain_clock_set(domain, unix_ns)
            .map_err(refused(Step::Clock)),
        // Without a clock in the host the guest's begins as its hardware's does.
        Err(Status::NotSupported | Status::UnknownCall) => Ok(()),
        Err(status) => Err(BuildError::Refused(Step::Clock, status)),
    }
}
