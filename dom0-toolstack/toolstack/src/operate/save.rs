//! `xl save`: a whole domain, paused, as a stream.

use super::volume_stream::VolumeSink;
use super::{OperateError, Toolstack, scan};
use crate::command::AfterSave;
use crate::config::DiskTarget;
use crate::host::Hypervisor;
use crate::registry::{Entry, Phase};
use crate::site::{DeviceHost, Site};
use alloc::format;
use alloc::string::String;
use godwit_abi::{DomainId, DomainInfo, DomainState, Status, VcpuIndex};
use godwit_migrate::stream::{FrameKind, MemoryDigest, Sink, Writer};
use godwit_records::{Record, VcpuState, XsaveState};

/// Most bytes of the records of a domain's devices in the hypervisor.
pub(super) const PLATFORM_BYTES_MAX: usize = 1 << 20;
/// Version of every kind of frame that is written, and the only one that is read.
pub(super) const FRAME_VERSION: u16 = 1;

impl<S: Site> Toolstack<S> {
    /// Writes a domain to a volume or export. When it fails the domain goes on as before. Returns
    /// what to tell.
    pub async fn save(
        &self,
        domain: DomainId,
        target: &DiskTarget,
        after: AfterSave,
    ) -> Result<String, OperateError> {
        let _busy = self.reserve(domain)?;
        let entry = self.known(domain)?;
        let hypervisor = self.site.hypervisor();
        let info = hypervisor.domain_info(domain)?;
        match DomainState::from_number(info.state) {
            Some(DomainState::Running | DomainState::Paused | DomainState::Building) => {}
            Some(DomainState::Shutdown | DomainState::Crashed | DomainState::Dying) | None => {
                return Err(OperateError::Other("it has ended".into()));
            }
        }
        let blocks = self.open(target, true).await?;
        hypervisor.domain_pause(domain)?;
        let written = match self.site.devices().quiesce(domain).await {
            Ok(()) => {
                let sink = VolumeSink::new(&blocks);
                self.write(domain, &info, &entry, sink).await
            }
            Err(why) => Err(OperateError::Other(why)),
        };
        let ending = |entry: &mut Entry| entry.phase = Phase::Ending;
        let written = match (written, after) {
            (Ok(written), AfterSave::Destroy) => {
                let noted = self.registry.change(hypervisor, domain, ending);
                noted.map(|()| written).map_err(OperateError::Refused)
            }
            (written, _) => written,
        };
        if written.is_ok() && after == AfterSave::Destroy {
            // Its devices are gone: from here on there is no way back.
            self.take_apart(domain).await.map_err(|status| {
                let what = "it is saved and stays paused, because it cannot be destroyed";
                OperateError::Other(format!("{what}: {status} (xl destroy {domain})"))
            })?;
        } else {
            self.site.devices().resume(domain);
            if written.is_err() || after == AfterSave::Run {
                hypervisor.domain_unpause(domain)?;
            }
        }
        let (bytes, digest) = written?;
        let name = &entry.config.name;
        Ok(format!(
            "saved domain '{name}' to '{target}': {} KiB, memory digest {digest}",
            bytes >> 10
        ))
    }

    /// Writes a domain that is paused and quiesced. Returns the stream's length in bytes and the
    /// digest of the domain's memory.
    async fn write(
        &self,
        domain: DomainId,
        info: &DomainInfo,
        entry: &Entry,
        sink: impl Sink,
    ) -> Result<(u64, MemoryDigest), OperateError> {
        // Half of it is chance enough to tell two streams apart.
        let stream_id = u128::from_le_bytes(self.site.random()) as u64;
        let mut writer = Writer::begin(sink, stream_id)
            .await
            .map_err(OperateError::Other)?;
        let saved = Entry {
            phase: Phase::Building,
            ..entry.clone()
        };
        let note = saved.encode();
        frame(&mut writer, FrameKind::CONFIGURATION, &[note.as_bytes()]).await?;
        let cpu = self.cpu_record(domain)?;
        frame(&mut writer, FrameKind::CPU, &[&cpu]).await?;
        let hypervisor = self.site.hypervisor();
        let digest = scan::write(hypervisor, domain, &entry.config, &mut writer).await?;
        self.write_states(domain, info, entry, &mut writer).await?;
        frame(&mut writer, FrameKind::DIGEST, &[&digest.encode()]).await?;
        let bytes = writer.finish().await.map_err(OperateError::Other)?;
        Ok((bytes, digest))
    }

    /// Writes everything of a domain that is paused and quiesced besides its memory. Returns when its
    /// clock was read, by the host's.
    pub(super) async fn write_states(
        &self,
        domain: DomainId,
        info: &DomainInfo,
        entry: &Entry,
        writer: &mut Writer<impl Sink>,
    ) -> Result<u64, OperateError> {
        let hypervisor = self.site.hypervisor();
        let most = VcpuState::MAX_BYTES.max(XsaveState::MAX_BYTES);
        let mut record = alloc::vec![0; most];
        for vcpu in 0..info.vcpus as u16 {
            let number = vcpu.to_le_bytes();
            let length = hypervisor.vcpu_state_read(domain, VcpuIndex(vcpu), &mut record)?;
            let pieces: [&[u8]; 2] = [&number, &record[..length]];
            frame(writer, FrameKind::VCPU, &pieces).await?;
            let length = hypervisor.xsave_state_read(domain, VcpuIndex(vcpu), &mut record)?;
            let pieces: [&[u8]; 2] = [&number, &record[..length]];
            frame(writer, FrameKind::XSAVE, &pieces).await?;
        }
        let mut platform = alloc::vec![0; PLATFORM_BYTES_MAX];
        let length = hypervisor.platform_state_read(domain, &mut platform)?;
        let read_us = self.site.now_us();
        frame(writer, FrameKind::PLATFORM, &[&platform[..length]]).await?;
        for link in &entry.links {
            let state = self.site.devices().save(domain, link.slot);
            let state = state.map_err(|why| OperateError::Device {
                device: format!("{}", link.device),
                why,
            })?;
            let pieces: [&[u8]; 2] = [&link.slot.to_le_bytes(), &state];
            frame(writer, FrameKind::DEVICE, &pieces).await?;
        }
        Ok(read_us)
    }
}

/// Writes a frame.
pub(super) async fn frame(
    writer: &mut Writer<impl Sink>,
    kind: FrameKind,
    pieces: &[&[u8]],
) -> Result<(), OperateError> {
    let written = writer.frame(kind, FRAME_VERSION, pieces).await;
    written.map_err(OperateError::Other)
}

/// A status that means a page is not there.
pub(super) fn is_hole(status: Status) -> bool {
    status == Status::BadAddress
}
