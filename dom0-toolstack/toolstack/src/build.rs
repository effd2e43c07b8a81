//! Making a domain: as a whole or not at all.
//!
//! ```text
//!   plan (touches nothing) -> create -> populate -> write -> vCPU state -> unpause
//!                                |         |          |          |            |
//!                                +---------+----------+----------+------------+--> on error: destroy
//! ```

use crate::config::Config;
use crate::host::{COPY_BYTES_MAX, Hypervisor};
use crate::loader::{self, Content, Guest, LoadError, LoadPlan};
use crate::modules::BootModule;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use godwit_abi::{DomainConfig, DomainId, PAGE_SIZE_BYTES, Status, VcpuIndex, field};
use godwit_records::{Record, VcpuState};

/// Pages of 4 KiB in a MiB.
pub const PAGES_PER_MIB: u64 = (1 << 20) / PAGE_SIZE_BYTES;

/// A step of the making, for messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// `domain_create`.
    Create,
    /// `memory_populate`.
    Populate,
    /// `memory_write`.
    Write,
    /// `vcpu_state_set`.
    VcpuState,
    /// `domain_unpause`.
    Unpause,
}

/// Why a domain was not made. Nothing is left of it, except as [`BuildError::LeftOver`] says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BuildError {
    /// The configuration names a boot module that is not there.
    NoModule {
        /// The key that names it.
        key: &'static str,
        /// Its name.
        name: String,
        /// The modules there are.
        known: Vec<String>,
    },
    /// The kernel cannot be loaded.
    Kernel {
        /// Name of the module.
        name: String,
        /// What is wrong with it.
        error: LoadError,
    },
    /// The hypervisor refused a step.
    Refused(Step, Status),
    /// The hypervisor says a step went well, yet nothing was done.
    Stalled(Step),
    /// Making failed, and what had been made could not be destroyed either.
    LeftOver {
        /// The half-made domain.
        domain: DomainId,
        /// Why it could not be destroyed.
        status: Status,
        /// Why it was not made.
        cause: alloc::boxed::Box<BuildError>,
    },
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BuildError::NoModule { key, name, known } => {
                write!(f, "{key}: there is no boot module '{name}'")?;
                match known.as_slice() {
                    [] => f.write_str("; there are none (GRUB: module2 /boot/FILE NAME)"),
                    all => write!(f, "; there are: {}", all.join(" ")),
                }
            }
            BuildError::Kernel { name, error } => {
                write!(f, "the kernel 'module:{name}' cannot be loaded: {error}")
            }
            BuildError::Refused(step, status) => {
                let what = match step {
                    Step::Create => "cannot create the domain",
                    Step::Populate => "cannot give it memory",
                    Step::Write => "cannot write its memory",
                    Step::VcpuState => "cannot set the state of its vCPU",
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
            BuildError::LeftOver {
                domain,
                status,
                cause,
            } => write!(
                f,
                "{cause}; and the half-made domain {domain} could not be destroyed: {status} (xl destroy {domain})"
            ),
        }
    }
}

/// What to make a domain from.
#[derive(Clone, Copy, Debug)]
pub struct Order<'a> {
    /// Its configuration. That the name is free is for the caller to check.
    pub config: &'a Config,
    /// Boot modules.
    pub modules: &'a [BootModule<'a>],
    /// Random bytes, for its identity when the configuration has none.
    pub random: [u8; 16],
    /// Leave it paused.
    pub paused: bool,
}

/// Makes a domain and starts it.
pub fn create_domain(
    hypervisor: &impl Hypervisor,
    order: &Order<'_>,
) -> Result<DomainId, BuildError> {
    let plan = plan(order)?;
    let domain = hypervisor
        .domain_create(&domain_config(order))
        .map_err(|status| BuildError::Refused(Step::Create, status))?;
    let Err(cause) = fill(hypervisor, domain, &plan, order.paused) else {
        return Ok(domain);
    };
    match hypervisor.domain_destroy(domain) {
        Ok(()) | Err(Status::NoDomain) => Err(cause),
        Err(status) => Err(BuildError::LeftOver {
            domain,
            status,
            cause: cause.into(),
        }),
    }
}

fn plan<'a>(order: &Order<'a>) -> Result<LoadPlan<'a>, BuildError> {
    let config = order.config;
    let kernel = module(order, "kernel", &config.kernel)?;
    let ramdisk = match &config.ramdisk {
        Some(name) => Some(module(order, "ramdisk", name)?.bytes),
        None => None,
    };
    let guest = Guest {
        kernel: kernel.bytes,
        ramdisk,
        cmdline: &config.cmdline,
        memory_bytes: config.memory_mib << 20,
        vcpus: config.vcpus,
    };
    loader::plan(&guest).map_err(|error| BuildError::Kernel {
        name: config.kernel.clone(),
        error,
    })
}

fn module<'a>(
    order: &Order<'a>,
    key: &'static str,
    name: &str,
) -> Result<&'a BootModule<'a>, BuildError> {
    BootModule::find(order.modules, name).ok_or_else(|| BuildError::NoModule {
        key,
        name: name.into(),
        known: order.modules.iter().map(|m| m.name.into()).collect(),
    })
}

fn domain_config(order: &Order<'_>) -> DomainConfig {
    let config = order.config;
    DomainConfig {
        name: field(&config.name),
        uuid: config.uuid.unwrap_or_else(|| random_uuid(order.random)),
        memory_pages_max: config.memory_max_mib * PAGES_PER_MIB,
        vcpus: config.vcpus,
        weight: config.weight,
        cap_percent: config.cap_percent,
        flags: 0,
        reserved: [0; 2],
    }
}

/// A version 4 UUID (RFC 9562 section 5.4) of random bytes.
fn random_uuid(mut bytes: [u8; 16]) -> [u8; 16] {
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    bytes
}

fn fill(
    hypervisor: &impl Hypervisor,
    domain: DomainId,
    plan: &LoadPlan<'_>,
    paused: bool,
) -> Result<(), BuildError> {
    let refused = |step| move |status| BuildError::Refused(step, status);
    for range in &plan.memory {
        let (mut page, end) = (range.start / PAGE_SIZE_BYTES, range.end / PAGE_SIZE_BYTES);
        while page < end {
            let done = hypervisor.memory_populate(domain, page, end - page);
            let done = done.map_err(refused(Step::Populate))?;
            if done == 0 || done > end - page {
                return Err(BuildError::Stalled(Step::Populate));
            }
            page += done;
        }
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
        }
    }
    let mut record = alloc::vec![0; VcpuState::MAX_BYTES];
    let length = plan.state.encode(&mut record);
    let length = length.expect("the buffer takes every state");
    hypervisor
        .vcpu_state_set(domain, VcpuIndex(0), &record[..length])
        .map_err(refused(Step::VcpuState))?;
    if paused {
        return Ok(());
    }
    hypervisor
        .domain_unpause(domain)
        .map_err(refused(Step::Unpause))
}

#[cfg(test)]
mod tests;
