//! Copying volumes and exports, and who uses them.

use super::{OperateError, Toolstack};
use crate::command::Volume;
use crate::config::DiskTarget;
use crate::site::{Site, Stores};
use alloc::format;
use alloc::string::String;
use core::cell::Cell;
use godwit_backends::storage::blocks::Blocks;
use godwit_backends::storage::copy::copy;

impl<S: Site> Toolstack<S> {
    /// The domain that has a disk of this target.
    pub fn user_of(&self, target: &DiskTarget) -> Option<String> {
        let all = self.registry.all();
        let mut users = all.iter().filter(|(_, entry)| {
            let mut disks = entry.config.disks.iter();
            disks.any(|disk| disk.target == *target)
        });
        users.next().map(|(_, entry)| entry.config.name.clone())
    }

    /// Opens a volume or an export that no domain has.
    pub(super) async fn open(
        &self,
        target: &DiskTarget,
        writable: bool,
    ) -> Result<Blocks, OperateError> {
        if let Some(name) = self.user_of(target) {
            let what = format!("'{target}' is in use by domain '{name}'");
            return Err(OperateError::Other(what));
        }
        let stores = self.site.stores();
        let disk = stores.open(target, writable).await;
        let disk = disk.map_err(OperateError::Other)?;
        Ok(Blocks::new(disk, stores.memory()))
    }

    /// `xl volume-import`: makes a volume with the contents of something else. Returns the bytes.
    pub async fn import(&self, volume: &Volume, from: &DiskTarget) -> Result<u64, OperateError> {
        let source = self.open(from, false).await?;
        let bytes = source.disk().geometry().bytes();
        let stores = self.site.stores();
        let created = stores
            .create_volume(&volume.store, &volume.name, bytes)
            .await;
        created.map_err(OperateError::Other)?;
        let copied = self.copy_to(source, &volume.target()).await;
        if let Err(error) = copied {
            // A volume with half of the contents is of use to nobody.
            let deleted = stores.delete_volume(&volume.store, &volume.name).await;
            let left = deleted
                .err()
                .map_or_else(String::new, |why| format!("; and it stays: {why}"));
            return Err(OperateError::Other(format!("{error}{left}")));
        }
        copied
    }

    /// `xl volume-export`: writes a volume over something else. Returns the bytes.
    pub async fn export(&self, volume: &Volume, to: &DiskTarget) -> Result<u64, OperateError> {
        let source = self.open(&volume.target(), false).await?;
        self.copy_to(source, to).await
    }

    async fn copy_to(&self, source: Blocks, to: &DiskTarget) -> Result<u64, OperateError> {
        let target = self.open(to, true).await?;
        let done = Cell::new(0);
        let copied = copy(&source, &target, &done).await;
        copied.map_err(|error| {
            let at = done.get();
            OperateError::Other(format!("after {at} bytes: {error}"))
        })?;
        Ok(done.get())
    }
}
