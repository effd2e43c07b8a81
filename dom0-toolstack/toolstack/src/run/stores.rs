//! Commands about disks of the host, stores, volumes and files.

use super::{Answer, print};
use crate::command::{StoreCommand, Volume};
use crate::config::DiskTarget;
use crate::hosts::KEY_PATH;
use crate::operate::{OperateError, Toolstack};
use crate::show::Printable;
use crate::site::{FileError, Files, Site, StoreInfo, Stores};
use crate::table::{Align, Table};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// Most bytes of a file that `cat` shows.
const CAT_BYTES_MAX: usize = 256 << 10;

pub(super) async fn answer<S: Site>(toolstack: &Toolstack<S>, command: StoreCommand) -> Answer {
    let stores = toolstack.site.stores();
    let done = match command {
        StoreCommand::StoreList => {
            return print(store_list(&stores.stores().await.map_err(other)?));
        }
        StoreCommand::StoreCreate { disk, name } => stores.create_store(&disk, &name).await,
        StoreCommand::StoreCheck { store } => {
            let found = stores.check_store(&store).await.map_err(other)?;
            return print(match found.is_empty() {
                true => format!("store '{store}' is in order\n"),
                false => found.iter().map(|what| format!("{what}\n")).collect(),
            });
        }
        StoreCommand::VolumeList { store } => return volume_list(toolstack, store).await,
        StoreCommand::VolumeCreate { volume, bytes } => {
            stores
                .create_volume(&volume.store, &volume.name, bytes)
                .await
        }
        StoreCommand::VolumeDelete { volume } => {
            unused(toolstack, &volume)?;
            stores.delete_volume(&volume.store, &volume.name).await
        }
        StoreCommand::VolumeResize { volume, bytes } => {
            unused(toolstack, &volume)?;
            stores
                .resize_volume(&volume.store, &volume.name, bytes)
                .await
        }
        StoreCommand::VolumeImport { volume, from } => {
            let bytes = toolstack.import(&volume, &from).await?;
            return print(format!("{} KiB copied\n", bytes >> 10));
        }
        StoreCommand::VolumeExport { volume, to } => {
            let bytes = toolstack.export(&volume, &to).await?;
            return print(format!("{} KiB copied\n", bytes >> 10));
        }
        StoreCommand::Ls { path } => return ls(toolstack, &path).await,
        StoreCommand::Cat { path } => return cat(toolstack, &path).await,
        StoreCommand::Rm { path } => {
            let removed = toolstack.site.files().remove(&path).await;
            removed.map_err(|error| file_error(&path, &error))?;
            Ok(())
        }
    };
    done.map_err(other)?;
    print(String::new())
}

fn other(why: String) -> OperateError {
    OperateError::Other(why)
}

fn file_error(path: &str, error: &FileError) -> OperateError {
    OperateError::File {
        path: if path.is_empty() { "/" } else { path }.into(),
        why: error.to_string(),
    }
}

/// Refuses a volume that a domain has.
fn unused<S: Site>(toolstack: &Toolstack<S>, volume: &Volume) -> Result<(), OperateError> {
    match toolstack.user_of(&volume.target()) {
        Some(name) => {
            let target = volume.target();
            Err(other(format!("'{target}' is in use by domain '{name}'")))
        }
        None => Ok(()),
    }
}

impl Volume {
    /// As a disk's target.
    pub fn target(&self) -> DiskTarget {
        DiskTarget::Volume {
            store: self.store.clone(),
            volume: self.name.clone(),
        }
    }
}

fn mib(bytes: u64) -> String {
    format!("{}", bytes >> 20)
}

fn store_list(disks: &[StoreInfo]) -> String {
    let mut table = Table::new(&[
        ("Store", Align::Left, 16),
        ("Disk", Align::Left, 16),
        ("MiB", Align::Right, 10),
        ("Free", Align::Right, 10),
        ("Volumes", Align::Right, 7),
    ]);
    for disk in disks {
        if let Some(name) = &disk.name {
            table.row(alloc::vec![
                name.clone(),
                disk.disk.clone(),
                mib(disk.bytes),
                mib(disk.free_bytes),
                format!("{}", disk.volumes),
            ]);
        }
    }
    table.render()
}

async fn volume_list<S: Site>(toolstack: &Toolstack<S>, store: Option<String>) -> Answer {
    let volumes = toolstack.site.stores().volumes(store.as_deref()).await;
    let mut table = Table::new(&[
        ("Volume", Align::Left, 32),
        ("KiB", Align::Right, 12),
        ("Domain", Align::Left, 0),
    ]);
    for info in volumes.map_err(other)? {
        let volume = Volume {
            store: info.store,
            name: info.name,
        };
        let user = toolstack.user_of(&volume.target());
        table.row(alloc::vec![
            volume.target().to_string(),
            format!("{}", info.bytes >> 10),
            user.unwrap_or_else(|| "-".into()),
        ]);
    }
    print(table.render())
}

async fn ls<S: Site>(toolstack: &Toolstack<S>, path: &str) -> Answer {
    let entries = toolstack.site.files().list(path).await;
    let mut entries: Vec<_> = entries.map_err(|error| file_error(path, &error))?;
    entries.sort();
    let mut out = String::new();
    for entry in entries {
        out.push_str(&match entry.is_folder {
            true => format!("{:>12} {}/\n", "-", entry.name),
            false => format!("{:>12} {}\n", entry.bytes, entry.name),
        });
    }
    print(out)
}

async fn cat<S: Site>(toolstack: &Toolstack<S>, path: &str) -> Answer {
    // FAT knows no case.
    if path.trim_matches('/').eq_ignore_ascii_case(KEY_PATH) {
        return Err(other(format!(
            "{path}: a secret is not shown (xl host-key shows the fingerprint)"
        )));
    }
    let bytes = toolstack.site.files().read(path).await;
    let bytes = bytes.map_err(|error| file_error(path, &error))?;
    let shown = &bytes[..bytes.len().min(CAT_BYTES_MAX)];
    let (mut printable, mut out) = (Printable::default(), String::new());
    printable.take(shown, &mut out);
    if !out.is_empty() && !out.ends_with('\n') {
        out.push('\n');
    }
    if shown.len() < bytes.len() {
        let left = bytes.len() - shown.len();
        out.push_str(&format!("[{left} bytes more are not shown]\n"));
    }
    print(out)
}
