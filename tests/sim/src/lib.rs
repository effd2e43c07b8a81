//! Two hosts in one process and in virtual time: the real toolstack and migration engine over fakes of
//! the hypervisor and of devices, joined by a cable that can be slow, lossy and cut. One seed decides
//! everything; guests and checkers look on from outside.
//!
//! Reading order: [`world`], [`script`], [`guest`], [`check`].
#![forbid(unsafe_code)]

pub mod check;
pub mod disk;
pub mod executor;
pub mod guest;
pub mod host;
pub mod hypervisor;
pub mod link;
pub mod random;
pub mod script;
pub mod site;
pub mod world;
