//! Configurations: a new one for a domain that lives, and those that are started with the host.

use super::{OperateError, Toolstack};
use crate::site::{FileError, Files, Site};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use godwit_abi::DomainId;

/// What the name of a configuration file ends with.
const CONFIG_SUFFIX: &str = ".cfg";

impl<S: Site> Toolstack<S> {
    /// `xl config-update`: the configuration that a domain has when it is started again. Its uuid
    /// stays.
    pub async fn config_update(
        &self,
        domain: DomainId,
        file: &str,
        settings: &[String],
    ) -> Result<(), OperateError> {
        let _busy = self.reserve(domain)?;
        let entry = self.known(domain)?;
        let mut config = self.document(file, settings).await?.config;
        if config.uuid.is_some() && config.uuid != entry.config.uuid {
            return Err(OperateError::Other("a domain keeps its uuid".into()));
        }
        config.uuid = entry.config.uuid;
        let vifs = config.vifs.iter_mut().zip(&entry.config.vifs);
        for (vif, old) in vifs {
            vif.mac = vif.mac.or(old.mac);
        }
        let hypervisor = self.site.hypervisor();
        // How it ends is decided now, what it is like then.
        let noted = self.registry.change(hypervisor, domain, |entry| {
            entry.config.end = config.end;
            entry.next = Some(config);
        });
        Ok(noted?)
    }

    /// Starts the domains whose configurations, files in the root folder of the configuration
    /// partition, say `autostart=1`; by name. Returns what there is to tell, a sentence each.
    pub async fn autostart(&self) -> Vec<String> {
        let mut told = Vec::new();
        let mut entries = match self.site.files().list("").await {
            Ok(entries) => entries,
            Err(FileError::NoPartition) => return told,
            Err(error @ (FileError::NotFound | FileError::Failed(_))) => {
                told.push(format!("cannot look for configurations: {error}"));
                return told;
            }
        };
        entries.retain(|entry| !entry.is_folder && entry.name.ends_with(CONFIG_SUFFIX));
        entries.sort();
        for entry in entries {
            let path = entry.name;
            let document = self.document(&path, &[]).await;
            match document {
                Ok(document) if !document.config.autostart => continue,
                Ok(_) => {}
                Err(error) => {
                    told.push(format!("{path} is not started: {error}"));
                    continue;
                }
            }
            told.push(match self.create(&path, &[], false).await {
                Ok(made) => format!("started domain '{}' (id {})", made.name, made.domain),
                Err(error) => format!("{path} is not started: {error}"),
            });
        }
        told
    }
}
