//! `xl restore`: a domain from a stream.
//!
//! Memory is written as it comes; everything else waits until the stream has ended and the digest of
//! the memory, read back, is the one it promised. Then devices, platform and vCPUs are set, and the
//! domain runs. Whatever fails, the new domain is taken apart.

use super::save::FRAME_VERSION;
use super::volume_stream::VolumeSource;
use super::{Created, OperateError, Toolstack, scan};
use crate::build::{self, Step, refused};
use crate::config::{self, Config, DiskTarget};
use crate::host::{COPY_BYTES_MAX, Hypervisor};
use crate::loader::memory_of;
use crate::registry::{Entry, LINKS_MAX, Phase};
use crate::site::{DeviceHost, Link, Site};
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::ops::Range;
use godwit_abi::{BLOB_BYTES_MAX, DomainId, PAGE_SIZE_BYTES, PLATFORM_STATE_BYTES_MAX, VcpuIndex};
use godwit_migrate::stream::{Frame, FrameKind, MemoryDigest, Pages, Reader, Source, Zeroes};
use godwit_records::{Record, VcpuState, XsaveState};

/// What has come besides memory.
#[derive(Default)]
pub(super) struct Arrived {
    pub(super) cpu: bool,
    vcpus: BTreeMap<u16, Vec<u8>>,
    xsaves: BTreeMap<u16, Vec<u8>>,
    pub(super) platform: Option<Vec<u8>>,
    devices: BTreeMap<u32, Vec<u8>>,
    pub(super) digest: Option<MemoryDigest>,
}

impl<S: Site> Toolstack<S> {
    /// Makes a domain from what `xl save` wrote. Returns it and the digest of its memory, which is
    /// that of the memory that was saved.
    pub async fn restore(
        &self,
        target: &DiskTarget,
        paused: bool,
    ) -> Result<(Created, MemoryDigest), OperateError> {
        let blocks = self.open(target, false).await?;
        let source = VolumeSource::new(&blocks);
        let mut reader = Reader::begin(source).await.map_err(|e| named(target, &e))?;
        let entry = self.first(&mut reader).await?;
        self.check_saved(&entry).await?;
        let hypervisor = self.site.hypervisor();
        let domain = hypervisor
            .domain_create(&build::domain_config(&entry.config))
            .map_err(refused(Step::Create))?;
        let busy = self.registry.reserve(domain);
        assert!(busy.is_some(), "the id of a new domain is new");
        let name = entry.config.name.clone();
        match self.fill_from(domain, &mut reader, entry, paused).await {
            Ok(digest) => Ok((Created { domain, name }, digest)),
            Err(cause) => Err(self.undo(domain, cause).await),
        }
    }

    /// The configuration, which comes first.
    async fn first(&self, reader: &mut Reader<impl Source>) -> Result<Entry, OperateError> {
        while let Some(frame) = next(reader).await? {
            if frame.kind == FrameKind::CONFIGURATION {
                let entry = Entry::decode(&frame.body);
                return entry.map_err(|error| OperateError::Other(error.to_string()));
            }
            if !frame.kind.is_optional() {
                return Err(bad(&frame, "before the configuration"));
            }
        }
        Err(OperateError::Other(
            "the stream has no configuration".into(),
        ))
    }

    pub(super) async fn check_saved(&self, entry: &Entry) -> Result<(), OperateError> {
        let rendered = entry.config.render();
        let document = config::read("saved configuration", &rendered, &[]);
        let document = document.map_err(OperateError::Config)?;
        let mut problems = self.check_now(&entry.config, None)?;
        self.check_devices(&entry.config, &mut problems).await;
        match problems.is_empty() {
            true => Ok(()),
            false => Err(OperateError::Config(document.refuse(problems))),
        }
    }

    async fn fill_from(
        &self,
        domain: DomainId,
        reader: &mut Reader<impl Source>,
        entry: Entry,
        paused: bool,
    ) -> Result<MemoryDigest, OperateError> {
        let hypervisor = self.site.hypervisor();
        let noted = Entry {
            phase: Phase::Building,
            links: Vec::new(),
            arrival: None,
            ..entry.clone()
        };
        let note = |noted: &Entry| {
            let noted = self.registry.set(hypervisor, domain, noted.clone());
            noted.map_err(refused(Step::Register))
        };
        note(&noted)?;
        let mut arrived = Arrived::default();
        while let Some(frame) = next(reader).await? {
            match frame.kind {
                FrameKind::CPU if !arrived.cpu => {
                    self.take_cpu(domain, &frame.body)?;
                    arrived.cpu = true;
                }
                FrameKind::PAGES => self.write_pages(domain, &entry.config, &frame).await?,
                FrameKind::ZEROES => {
                    self.populate_zeroes(domain, &entry.config, &frame).await?;
                }
                _ => arrived.take(frame)?,
            }
        }
        arrived.check(&entry)?;
        let digest = scan::digest(hypervisor, domain, &entry.config).await?;
        if arrived.digest != Some(digest) {
            let what = "the memory is not what was saved: its digest differs";
            return Err(OperateError::Other(what.into()));
        }
        let completed = self.furnish_arrived(domain, &entry, noted, &mut arrived, |_| Ok(()));
        let mut noted = completed.await?;
        noted.phase = Phase::Live;
        note(&noted)?;
        self.site.devices().resume(domain);
        if !paused {
            hypervisor
                .domain_unpause(domain)
                .map_err(refused(Step::Unpause))?;
        }
        Ok(digest)
    }

    /// Gives a domain whose memory is there its devices and states, as they have `arrived`; `adjust`
    /// changes the records of the platform at the last moment. Returns what is to be noted of it.
    pub(super) async fn furnish_arrived(
        &self,
        domain: DomainId,
        entry: &Entry,
        mut noted: Entry,
        arrived: &mut Arrived,
        adjust: impl FnOnce(&mut Vec<u8>) -> Result<(), OperateError>,
    ) -> Result<Entry, OperateError> {
        for Link { slot, device } in &entry.links {
            let state = arrived.devices.get(slot).expect("it was checked");
            let slot = self
                .attach_to(domain, device, Some(*slot), Some(state))
                .await?;
            let device = device.clone();
            noted.links.push(Link { slot, device });
        }
        adjust(arrived.platform.as_mut().expect("it was checked"))?;
        self.set_states(domain, arrived)?;
        build::place(self.site.hypervisor(), domain, &entry.config)?;
        if entry.config.balloon {
            self.set_balloon(domain, entry.target_mib)?;
        }
        Ok(noted)
    }

    async fn write_pages(
        &self,
        domain: DomainId,
        config: &Config,
        frame: &Frame,
    ) -> Result<(), OperateError> {
        let pages = Pages::decode(&frame.body).map_err(|_| bad(frame, "with wrong numbers"))?;
        let start = pages.first * PAGE_SIZE_BYTES;
        let range = start..start + pages.bytes.len() as u64;
        let hypervisor = self.site.hypervisor();
        check_range(config, frame, &range)?;
        build::populate(hypervisor, domain, &range).await?;
        let chunks = pages.bytes.chunks(COPY_BYTES_MAX);
        for (address, chunk) in (start..).step_by(COPY_BYTES_MAX).zip(chunks) {
            let written = hypervisor.memory_write(domain, address, chunk);
            written.map_err(refused(Step::Write))?;
        }
        Ok(())
    }

    async fn populate_zeroes(
        &self,
        domain: DomainId,
        config: &Config,
        frame: &Frame,
    ) -> Result<(), OperateError> {
        let runs = Zeroes::decode(&frame.body).map_err(|_| bad(frame, "with wrong numbers"))?;
        for run in runs {
            let range = run.start * PAGE_SIZE_BYTES..run.end * PAGE_SIZE_BYTES;
            check_range(config, frame, &range)?;
            build::populate(self.site.hypervisor(), domain, &range).await?;
        }
        Ok(())
    }

    fn set_states(&self, domain: DomainId, arrived: &Arrived) -> Result<(), OperateError> {
        let hypervisor = self.site.hypervisor();
        let platform = arrived.platform.as_ref().expect("it was checked");
        let what = |what: &str, status| OperateError::Other(format!("the saved {what}: {status}"));
        let set = hypervisor.platform_state_set(domain, platform);
        set.map_err(|status| what("platform", status))?;
        for (vcpu, record) in &arrived.vcpus {
            let set = hypervisor.vcpu_state_set(domain, VcpuIndex(*vcpu), record);
            set.map_err(|status| what(&format!("vCPU {vcpu}"), status))?;
        }
        for (vcpu, record) in &arrived.xsaves {
            let set = hypervisor.xsave_state_set(domain, VcpuIndex(*vcpu), record);
            set.map_err(|status| what(&format!("extended state of vCPU {vcpu}"), status))?;
        }
        Ok(())
    }
}

impl Arrived {
    /// Takes a frame that carries no memory.
    pub(super) fn take(&mut self, frame: Frame) -> Result<(), OperateError> {
        let most = record_bytes_max(frame.kind);
        if most.is_some_and(|most| frame.body.len() > most) {
            return Err(bad(&frame, "that is too long"));
        }
        let again = match frame.kind {
            FrameKind::VCPU | FrameKind::XSAVE => {
                let Some((number, record)) = frame.body.split_first_chunk() else {
                    return Err(bad(&frame, "without a number"));
                };
                let all = match frame.kind == FrameKind::VCPU {
                    true => &mut self.vcpus,
                    false => &mut self.xsaves,
                };
                let number = u16::from_le_bytes(*number);
                if u32::from(number) >= config::VCPUS_MAX {
                    return Err(bad(&frame, "of a vCPU that cannot be"));
                }
                all.insert(number, record.into()).is_some()
            }
            FrameKind::DEVICE => {
                let Some((slot, record)) = frame.body.split_first_chunk() else {
                    return Err(bad(&frame, "without a number"));
                };
                if self.devices.len() == LINKS_MAX {
                    return Err(bad(&frame, "too many"));
                }
                let slot = u32::from_le_bytes(*slot);
                self.devices.insert(slot, record.into()).is_some()
            }
            FrameKind::PLATFORM => self.platform.replace(frame.body.clone()).is_some(),
            FrameKind::DIGEST => {
                let digest = MemoryDigest::decode(&frame.body);
                let digest = digest.ok_or_else(|| bad(&frame, "of a wrong length"))?;
                self.digest.replace(digest).is_some()
            }
            kind if kind.is_optional() => false,
            _ => {
                return Err(bad(
                    &frame,
                    "which this toolstack does not know or expect here",
                ));
            }
        };
        match again {
            true => Err(bad(&frame, "a second time")),
            false => Ok(()),
        }
    }

    /// Whether all has come that the domain is made of, and nothing else.
    pub(super) fn check(&self, entry: &Entry) -> Result<(), OperateError> {
        let missing = |what: String| OperateError::Other(format!("the stream has no {what}"));
        let vcpus = entry.config.vcpus;
        for (what, all) in [("state", &self.vcpus), ("extended state", &self.xsaves)] {
            let wanted = (0..vcpus as u16).all(|vcpu| all.contains_key(&vcpu));
            if !wanted || all.len() != vcpus as usize {
                return Err(missing(format!("{what} of exactly {vcpus} vCPUs")));
            }
        }
        if !self.cpu {
            return Err(missing("CPU".into()));
        }
        if self.platform.is_none() {
            return Err(missing("platform".into()));
        }
        if self.digest.is_none() {
            return Err(missing("digest".into()));
        }
        for link in &entry.links {
            if !self.devices.contains_key(&link.slot) {
                return Err(missing(format!("state of the {}", link.device)));
            }
        }
        match self.devices.len() == entry.links.len() {
            true => Ok(()),
            false => Err(OperateError::Other(
                "the stream has devices without a name".into(),
            )),
        }
    }
}

/// The longest body of a kind that is kept until the stream ends; without a bound a stream could ask
/// for more than dom0 has.
fn record_bytes_max(kind: FrameKind) -> Option<usize> {
    match kind {
        FrameKind::VCPU => Some(size_of::<u16>() + VcpuState::MAX_BYTES),
        FrameKind::XSAVE => Some(size_of::<u16>() + XsaveState::MAX_BYTES),
        FrameKind::PLATFORM => Some(PLATFORM_STATE_BYTES_MAX as usize),
        FrameKind::DEVICE => Some(size_of::<u32>() + BLOB_BYTES_MAX as usize),
        _ => None,
    }
}

/// Refuses memory where the domain has none: it would lie over its devices, and in no digest.
fn check_range(config: &Config, frame: &Frame, range: &Range<u64>) -> Result<(), OperateError> {
    let memory = memory_of(config.memory_max_mib << 20);
    let inside = |part: &Range<u64>| {
        let end = part.end.min(range.end);
        end.saturating_sub(part.start.max(range.start))
    };
    match memory.iter().map(inside).sum::<u64>() == range.end - range.start {
        true => Ok(()),
        false => Err(bad(frame, "where the domain has no memory")),
    }
}

async fn next(reader: &mut Reader<impl Source>) -> Result<Option<Frame>, OperateError> {
    let frame = reader.next().await;
    let frame = frame.map_err(|error| OperateError::Other(error.to_string()))?;
    match frame {
        Some(frame) if frame.version != FRAME_VERSION && !frame.kind.is_optional() => {
            let what = format!(
                "of version {}, which this toolstack cannot read",
                frame.version
            );
            Err(bad(&frame, &what))
        }
        frame => Ok(frame),
    }
}

fn bad(frame: &Frame, how: &str) -> OperateError {
    OperateError::Other(format!("the stream has a {} frame {how}", frame.kind))
}

fn named(target: &DiskTarget, error: &impl ToString) -> OperateError {
    OperateError::Other(format!("{target}: {}", error.to_string()))
}
