//! Everything that speaks against a move, looked at before anything is touched: what the source knows
//! of the domain, and what the destination knows of itself.

use super::arrive::tried;
use super::hello::{Hello, Purpose};
use super::objection::{Cause, Objection};
use super::timeline::number;
use crate::build;
use crate::config::{self, Disk, DiskTarget};
use crate::host::Hypervisor;
use crate::operate::{OperateError, Toolstack};
use crate::registry::Entry;
use crate::site::{Device, Link, Site};
use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;
use godwit_abi::DomainId;

/// Times of day of two hosts may differ by this. Less than any time zone: a clock that is set to local
/// time is found.
const SKEW_S_MAX: u64 = 45 * 60;

/// What a destination says of itself when it takes a domain.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Readiness {
    /// What it took to make a domain without memory and to read its CPU, microseconds: about what setting states
    /// takes.
    pub(super) make_us: u64,
}

impl Readiness {
    pub(super) fn encode(self) -> alloc::string::String {
        alloc::format!("make_us {}\n", self.make_us)
    }

    /// From the text behind a reply. What is not there or no number is 0.
    pub(super) fn decode(text: &str) -> Self {
        Self {
            make_us: number(text, "make_us").unwrap_or(0),
        }
    }
}

impl<S: Site> Toolstack<S> {
    /// Everything that speaks against taking a domain in, if there is one as the copy of an `original` here; nothing is
    /// touched.
    pub(super) async fn object_to_arrival(
        &self,
        hello: &Hello,
        entry: &Entry,
        cpu: &[u8],
        original: Option<DomainId>,
    ) -> Result<(Vec<Objection>, Readiness), OperateError> {
        let mut all = Vec::new();
        let config = &entry.config;
        if let Err(error) = config::read("its configuration", &config.render(), &[]) {
            all.push(Objection::new(Cause::Config, error.to_string()));
            return Ok((all, Readiness::default()));
        }
        all.extend(self.object_to_clock(hello));
        let begun = usize::from(hello.purpose == Purpose::Move);
        if let Err(what) = self.jobs.room_for_arrival(begun) {
            all.push(Objection::new(Cause::Jobs, what));
        }
        let mut problems = self.check_beside(config, original)?;
        // Those of a copy are there, and in use.
        if original.is_none() {
            self.check_devices(config, &mut problems).await;
        }
        let problems = problems.into_iter();
        all.extend(problems.map(|(spot, what)| Objection::of(spot, what)));
        let begun_us = self.site.now_us();
        all.extend(self.object_to_cpu(entry, cpu, original.is_some())?);
        let make_us = self.site.now_us() - begun_us;
        Ok((all, Readiness { make_us }))
    }

    /// What this host lacks of a domain's CPU. To know what the domain would get here, one without
    /// memory is made and destroyed at once; nobody can see it in between.
    fn object_to_cpu(
        &self,
        entry: &Entry,
        cpu: &[u8],
        is_copy: bool,
    ) -> Result<Option<Objection>, OperateError> {
        let hypervisor = self.site.hypervisor();
        let config = self.made_from(&entry.config, is_copy);
        let made = hypervisor.domain_create(&build::domain_config(&config));
        let domain = match made {
            Ok(domain) => domain,
            Err(status) => {
                let what = format!("the hypervisor makes no further domain: {status}");
                return Ok(Some(Objection::new(Cause::Host, what)));
            }
        };
        let compared = self.compare_cpu(domain, cpu);
        tried(|| hypervisor.domain_destroy(domain))?;
        let objection = |error: OperateError| Objection::new(Cause::Cpu, error.to_string());
        Ok(compared.err().map(objection))
    }

    /// Whether the other host's time of day can be believed. A host that does not know its own says
    /// nothing.
    fn object_to_clock(&self, hello: &Hello) -> Option<Objection> {
        let (here_s, there_s) = (self.wall_s()?, hello.wall_s?);
        let apart_s = here_s.abs_diff(there_s);
        (apart_s > SKEW_S_MAX).then(|| {
            let what = format!(
                "the times of day of the two hosts are {apart_s} s apart (at most {SKEW_S_MAX}): set \
                 their clocks to UTC, or the domain's time would jump when it is started again"
            );
            Objection::new(Cause::Clock, what)
        })
    }

    /// Seconds since 1970, if the host knows.
    pub(super) fn wall_s(&self) -> Option<u64> {
        let wall_ns = self.site.hypervisor().wall_clock().ok()?;
        Some(wall_ns / 1_000_000_000)
    }
}

/// What keeps a domain from leaving; a copy of it here has what it has.
pub(super) fn object_to_departure(entry: &Entry, is_local: bool) -> Vec<Objection> {
    let objection = |link: &Link| match &link.device {
        Device::Disk(disk) => disk_objection(disk).filter(|_| !is_local),
        Device::Vif(_) | Device::Console | Device::Rng | Device::Balloon => None,
    };
    entry.links.iter().filter_map(objection).collect()
}

/// A disk that only this host has.
pub(super) fn disk_objection(disk: &Disk) -> Option<Objection> {
    match &disk.target {
        DiskTarget::Volume { .. } => {
            let what = format!(
                "{} is on {}, a volume of this host: not implemented: moving disks (use nbd://)",
                disk.vdev(),
                disk.target
            );
            Some(Objection::new(Cause::Disk, what))
        }
        DiskTarget::Nbd { .. } => None,
    }
}
