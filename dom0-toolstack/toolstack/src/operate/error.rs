//! Why an operation failed, and what is left of it.

use crate::build::BuildError;
use crate::config::ConfigError;
use crate::names::NameError;
use alloc::boxed::Box;
use alloc::string::String;
use core::fmt;
use godwit_abi::{DomainId, Status};

/// Why an operation failed. Unless it says otherwise everything is as before.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OperateError {
    /// The configuration is refused.
    Config(ConfigError),
    /// A file cannot be had.
    File {
        /// Its path.
        path: String,
        /// Why.
        why: String,
    },
    /// No such domain.
    Name(NameError),
    /// The toolstack does not know what this domain was made from.
    Foreign(DomainId),
    /// Another operation works on the domain.
    Busy(DomainId),
    /// Making it failed in the hypervisor.
    Build(BuildError),
    /// A device could not be attached, detached, stopped or saved.
    Device {
        /// Which.
        device: String,
        /// Why.
        why: String,
    },
    /// The hypervisor refused.
    Refused(Status),
    /// Something else, in words.
    Other(String),
    /// The operation failed, and what it had made could not be taken back.
    LeftOver(Box<Undone>),
}

/// What could not be taken back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Undone {
    /// The half-made domain.
    pub domain: DomainId,
    /// Why it could not be destroyed.
    pub status: Status,
    /// Why the operation failed.
    pub cause: OperateError,
}

impl fmt::Display for OperateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OperateError::Config(error) => error.fmt(f),
            OperateError::File { path, why } => write!(f, "{path}: {why}"),
            OperateError::Name(error) => error.fmt(f),
            OperateError::Foreign(domain) => write!(
                f,
                "nothing is known of what domain {domain} was made from, so this cannot be done to it"
            ),
            OperateError::Busy(domain) => write!(
                f,
                "another operation works on domain {domain}; try again when it has ended"
            ),
            OperateError::Build(error) => error.fmt(f),
            OperateError::Device { device, why } => write!(f, "{device}: {why}"),
            OperateError::Refused(status) => write!(f, "the hypervisor refuses: {status}"),
            OperateError::Other(why) => f.write_str(why),
            OperateError::LeftOver(undone) => {
                let Undone {
                    domain,
                    status,
                    cause,
                } = &**undone;
                write!(
                    f,
                    "{cause}; and the half-made domain {domain} could not be destroyed: {status} (xl destroy {domain})"
                )
            }
        }
    }
}

impl From<Status> for OperateError {
    fn from(status: Status) -> Self {
        OperateError::Refused(status)
    }
}

impl From<BuildError> for OperateError {
    fn from(error: BuildError) -> Self {
        OperateError::Build(error)
    }
}

impl From<NameError> for OperateError {
    fn from(error: NameError) -> Self {
        OperateError::Name(error)
    }
}
