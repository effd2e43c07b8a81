//! Making a domain, and taking one apart.

use super::{Checked, OperateError, Toolstack, Undone};
use crate::build::{self, Step, refused};
use crate::config::{self, Document};
use crate::host::Hypervisor;
use crate::registry::{Entry, Phase};
use crate::site::{Device, DeviceHost, FileError, Files, Link, Site};
use alloc::string::{String, ToString};
use godwit_abi::{DomainId, Status};

/// A domain that was made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Created {
    /// Its id.
    pub domain: DomainId,
    /// Its name.
    pub name: String,
}

impl<S: Site> Toolstack<S> {
    /// Reads a configuration: a file of the configuration partition, or `/dev/null`, with settings
    /// over it.
    pub async fn document(
        &self,
        file: &str,
        settings: &[String],
    ) -> Result<Document, OperateError> {
        let text = if file == crate::command::EMPTY_CONFIG {
            String::new()
        } else {
            let bytes = self.site.files().read(file).await;
            let bytes = bytes.map_err(|error: FileError| OperateError::File {
                path: file.into(),
                why: error.to_string(),
            })?;
            String::from_utf8(bytes).map_err(|_| OperateError::File {
                path: file.into(),
                why: "no text in UTF-8".into(),
            })?
        };
        config::read(file, &text, settings).map_err(OperateError::Config)
    }

    /// Makes a domain and, unless `paused`, starts it.
    pub async fn create(
        &self,
        file: &str,
        settings: &[String],
        paused: bool,
    ) -> Result<Created, OperateError> {
        let document = self.document(file, settings).await?;
        let checked = self.check(&document, None).await?;
        // While files and disks were looked at, another task may have made a domain.
        let problems = self.check_now(&checked.config, None)?;
        if !problems.is_empty() {
            return Err(OperateError::Config(document.refuse(problems)));
        }
        let source = (file != crate::command::EMPTY_CONFIG).then(|| file.into());
        let entry = Entry::new(checked.config.clone(), source);
        self.make(&checked, entry, paused).await
    }

    /// Makes a domain from what was checked.
    pub(super) async fn make(
        &self,
        checked: &Checked,
        entry: Entry,
        paused: bool,
    ) -> Result<Created, OperateError> {
        let hypervisor = self.site.hypervisor();
        let name = entry.config.name.clone();
        let domain = hypervisor
            .domain_create(&build::domain_config(&entry.config))
            .map_err(refused(Step::Create))?;
        let busy = self.registry.reserve(domain);
        assert!(busy.is_some(), "the id of a new domain is new");
        match self.furnish(domain, checked, entry, paused).await {
            Ok(()) => Ok(Created { domain, name }),
            Err(cause) => Err(self.undo(domain, cause).await),
        }
    }

    async fn furnish(
        &self,
        domain: DomainId,
        checked: &Checked,
        mut entry: Entry,
        paused: bool,
    ) -> Result<(), OperateError> {
        let hypervisor = self.site.hypervisor();
        let note = |entry: Entry| {
            let noted = self.registry.set(hypervisor, domain, entry);
            noted.map_err(refused(Step::Register))
        };
        note(entry.clone())?;
        let Checked { config, images } = checked;
        let plan = build::plan(config, &images.kernel, images.ramdisk.as_deref());
        let plan = plan.map_err(|error| OperateError::Other(error.to_string()))?;
        build::fill(hypervisor, domain, &plan).await?;
        build::place(hypervisor, domain, config)?;
        for device in Entry::devices(config) {
            let slot = self.attach_to(domain, &device, None, None).await?;
            entry.links.push(Link { slot, device });
        }
        if config.balloon && config.memory_mib < config.memory_max_mib {
            self.set_balloon(domain, config.memory_mib)?;
        }
        entry.phase = Phase::Live;
        entry.made_ns = hypervisor.wall_clock().unwrap_or(0);
        note(entry)?;
        if paused {
            return Ok(());
        }
        let started = hypervisor.domain_unpause(domain);
        Ok(started.map_err(refused(Step::Unpause))?)
    }

    /// Attaches a device; the error names it.
    pub(super) async fn attach_to(
        &self,
        domain: DomainId,
        device: &Device,
        slot: Option<u32>,
        state: Option<&[u8]>,
    ) -> Result<u32, OperateError> {
        let attached = self
            .site
            .devices()
            .attach(domain, device, slot, state)
            .await;
        attached.map_err(|why| OperateError::Device {
            device: device.to_string(),
            why,
        })
    }

    /// Reaches what the devices of a domain that comes need, before it stands still for them.
    pub(super) async fn prepare_all(
        &self,
        domain: DomainId,
        entry: &Entry,
    ) -> Result<(), OperateError> {
        for Link { slot, device } in &entry.links {
            let prepared = self.site.devices().prepare(domain, device, *slot).await;
            prepared.map_err(|why| OperateError::Device {
                device: device.to_string(),
                why,
            })?;
        }
        Ok(())
    }

    /// Takes back what was made of a domain.
    pub(super) async fn undo(&self, domain: DomainId, cause: OperateError) -> OperateError {
        match self.take_apart(domain).await {
            Ok(()) => cause,
            Err(status) => {
                let undone = Undone {
                    domain,
                    status,
                    cause,
                };
                OperateError::LeftOver(undone.into())
            }
        }
    }

    /// Destroys a domain with its devices. The caller has reserved it.
    pub(super) async fn take_apart(&self, domain: DomainId) -> Result<(), Status> {
        let hypervisor = self.site.hypervisor();
        // It must not look for the devices that go; one that has ended or was never started cannot.
        match hypervisor.domain_pause(domain) {
            Ok(()) | Err(Status::BadState | Status::NoDomain) => {}
            Err(status) => return Err(status),
        }
        self.site.devices().detach_all(domain).await;
        match hypervisor.domain_destroy(domain) {
            Ok(()) | Err(Status::NoDomain) => {
                self.registry.forget(domain);
                Ok(())
            }
            Err(status) => Err(status),
        }
    }

    /// `xl destroy`.
    pub async fn destroy(&self, domain: DomainId) -> Result<(), OperateError> {
        if domain == DomainId::CONTROL {
            return Err(OperateError::Refused(Status::Denied));
        }
        if let Some(done) = self.drop_unsure(domain).await {
            return done;
        }
        let _busy = match self.fetches.forget(domain) {
            // Whoever ends it does without the rest of its memory.
            true => self
                .registry
                .reserve(domain)
                .ok_or(OperateError::Busy(domain))?,
            false => self.reserve(domain)?,
        };
        let hypervisor = self.site.hypervisor();
        hypervisor.domain_info(domain)?;
        // A dom0 that dies now goes on with it.
        let noted = self
            .registry
            .change(hypervisor, domain, |entry| entry.phase = Phase::Ending);
        noted?;
        Ok(self.take_apart(domain).await?)
    }

    /// Reserves a domain for an operation.
    pub(super) fn reserve(
        &self,
        domain: DomainId,
    ) -> Result<crate::registry::Busy<'_>, OperateError> {
        if let Some(why) = self.given_up(domain)? {
            return Err(why);
        }
        let free = !self.fetches.has(domain);
        let busy = free.then(|| self.registry.reserve(domain)).flatten();
        busy.ok_or(OperateError::Busy(domain))
    }
}
