//! What became of every attempt to bring a domain here, and which boot this is.
//!
//! Kept in blobs of the control domain, which outlive dom0 and end with the boot. An attempt that was
//! refused need not be kept: one that nothing is known of is refused too.

use crate::host::Hypervisor;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::cell::RefCell;
use godwit_abi::{DomainId, Status};
use godwit_migrate::handover::destination::State;
use godwit_migrate::handover::{Attempt, Boot};

/// Key of the control domain's blob with the boot's number.
const BOOT_BLOB: u32 = 2;
/// Key of its blob with the attempts whose domains are this host's, 8 octets each.
const RUNNING_BLOB: u32 = 3;
/// Most attempts that are remembered.
const ATTEMPTS_MAX: usize = 4096;

/// The attempts of this boot, and the boot itself.
#[derive(Default, Debug)]
pub struct Attempts {
    boot: RefCell<Option<Boot>>,
    states: RefCell<BTreeMap<Attempt, State>>,
}

impl Attempts {
    /// This boot. The first time it is drawn: `random`.
    pub(super) fn boot(
        &self,
        hypervisor: &impl Hypervisor,
        random: [u8; 16],
    ) -> Result<Boot, Status> {
        if let Some(boot) = *self.boot.borrow() {
            return Ok(boot);
        }
        let kept = match hypervisor.blob_read(DomainId::CONTROL, BOOT_BLOB) {
            Ok(kept) => kept.try_into().ok().map(u64::from_le_bytes),
            Err(Status::NotFound) => None,
            Err(status) => return Err(status),
        };
        let number = match kept {
            Some(number) => number,
            None => {
                let drawn = u128::from_le_bytes(random) as u64 | 1;
                hypervisor.blob_write(DomainId::CONTROL, BOOT_BLOB, &drawn.to_le_bytes())?;
                drawn
            }
        };
        *self.boot.borrow_mut() = Some(Boot(number));
        Ok(Boot(number))
    }

    /// How far an attempt is.
    pub(super) fn state(&self, attempt: Attempt) -> State {
        self.states
            .borrow()
            .get(&attempt)
            .copied()
            .unwrap_or_default()
    }

    /// Notes how far an attempt is; that its domain is this host's, where a restarted dom0 finds it.
    pub(super) fn set(
        &self,
        hypervisor: &impl Hypervisor,
        attempt: Attempt,
        state: State,
    ) -> Result<(), Status> {
        if state == State::Running {
            let mut running = self.running();
            running.push(attempt);
            keep(hypervisor, &running)?;
        }
        let mut states = self.states.borrow_mut();
        if states.len() >= ATTEMPTS_MAX {
            // One that was refused is refused as well when nothing is known of it.
            states.retain(|_, state| *state != State::Refused);
        }
        states.insert(attempt, state);
        Ok(())
    }

    /// What was noted last of an attempt is not so: it is ready, and nothing more.
    pub(super) fn withdraw(
        &self,
        hypervisor: &impl Hypervisor,
        attempt: Attempt,
    ) -> Result<(), Status> {
        let mut running = self.running();
        running.retain(|other| *other != attempt);
        keep(hypervisor, &running)?;
        self.states.borrow_mut().insert(attempt, State::Ready);
        Ok(())
    }

    /// The attempts whose domains are this host's.
    pub(super) fn running(&self) -> Vec<Attempt> {
        let states = self.states.borrow();
        let running = states.iter().filter(|(_, state)| **state == State::Running);
        running.map(|(attempt, _)| *attempt).collect()
    }

    /// After a restart of dom0: what is kept.
    pub(crate) fn recover(&self, hypervisor: &impl Hypervisor) -> Result<(), Status> {
        let kept = match hypervisor.blob_read(DomainId::CONTROL, RUNNING_BLOB) {
            Ok(kept) => kept,
            Err(Status::NotFound | Status::NotSupported) => return Ok(()),
            Err(status) => return Err(status),
        };
        let mut states = self.states.borrow_mut();
        for number in kept.as_chunks().0 {
            states.insert(Attempt(u64::from_le_bytes(*number)), State::Running);
        }
        Ok(())
    }

    /// Whether the domain of an attempt is this host's.
    pub(crate) fn is_running(&self, attempt: u64) -> bool {
        self.state(Attempt(attempt)) == State::Running
    }
}

fn keep(hypervisor: &impl Hypervisor, running: &[Attempt]) -> Result<(), Status> {
    let bytes: Vec<u8> = running
        .iter()
        .flat_map(|attempt| attempt.0.to_le_bytes())
        .collect();
    hypervisor.blob_write(DomainId::CONTROL, RUNNING_BLOB, &bytes)
}

const _: () = assert!(ATTEMPTS_MAX as u64 * 8 <= godwit_abi::BLOB_BYTES_MAX);
