//! What is under way, in files of the configuration partition, for the dom0 that comes after this one.
//!
//! A note is there from before the first block is copied until the old volume is seen to. What the next
//! dom0 does: is the new volume in use, or named by the configuration file, the move had come to its
//! end; else the domain is on its old disk, and a new volume that had just been entered is deleted.

use crate::config::{self, DiskTarget};
use crate::operate::Toolstack;
use crate::site::{FileError, Files, Site, Stores};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// What the names of notes begin and end with.
const PREFIX: &str = "block-migrate-";
const SUFFIX: &str = ".note";

/// A move of a disk that is under way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Note {
    /// Tells notes apart.
    pub key: String,
    /// The domain's name.
    pub domain: String,
    /// The disk's name in the guest.
    pub vdev: String,
    /// What is behind it.
    pub source: DiskTarget,
    /// What is to be.
    pub target: DiskTarget,
    /// The domain's configuration file.
    pub file: Option<String>,
}

impl Note {
    fn path(&self) -> String {
        format!("{PREFIX}{}-{}{SUFFIX}", self.key, self.vdev)
    }

    fn text(&self) -> String {
        let Note {
            key,
            domain,
            vdev,
            source,
            target,
            file,
        } = self;
        let file = file.as_deref().unwrap_or("");
        format!("{key}\n{domain}\n{vdev}\n{source}\n{target}\n{file}\n")
    }

    fn parse(bytes: &[u8]) -> Option<Note> {
        let mut lines = core::str::from_utf8(bytes).ok()?.lines();
        let mut line = || Some(lines.next()?.to_string());
        Some(Note {
            key: line()?,
            domain: line()?,
            vdev: line()?,
            source: DiskTarget::parse(&line()?).ok()?,
            target: DiskTarget::parse(&line()?).ok()?,
            file: Some(line()?).filter(|file| !file.is_empty()),
        })
    }
}

impl<S: Site> Toolstack<S> {
    /// Notes a move. Without a configuration partition there is nothing to note it in.
    pub(super) async fn note_disk_move(&self, note: &Note) -> Result<(), String> {
        let (path, text) = (note.path(), note.text());
        match self.site.files().write(&path, text.as_bytes()).await {
            Ok(()) | Err(FileError::NoPartition) => Ok(()),
            Err(error) => Err(format!("the move cannot be noted: {error}")),
        }
    }

    /// Takes a note back.
    pub(super) async fn forget_disk_move(&self, note: &Note) {
        // One that stays is looked at again, and found to be over.
        let _ = self.site.files().remove(&note.path()).await;
    }

    /// Ends the moves of disks that the dom0 before had begun. What there is to tell, a sentence each.
    pub(crate) async fn recover_disk_moves(&self) -> Vec<String> {
        let mut told = Vec::new();
        let files = self.site.files();
        for entry in files.list("").await.unwrap_or_default() {
            if !entry.name.starts_with(PREFIX) || !entry.name.ends_with(SUFFIX) {
                continue;
            }
            let read = files.read(&entry.name).await;
            match read.ok().as_deref().and_then(Note::parse) {
                Some(note) => told.push(self.end_disk_move(&note).await),
                None => told.push(format!("{}: not understood, removed", entry.name)),
            }
            let _ = files.remove(&entry.name).await;
        }
        told
    }

    async fn end_disk_move(&self, note: &Note) -> String {
        let Note {
            domain,
            vdev,
            source,
            target,
            ..
        } = note;
        if self.is_wanted(note).await {
            return format!(
                "domain '{domain}': {vdev} had been moved to {target}; {source} is as it was before, and not needed"
            );
        }
        let failed = format!(
            "domain '{domain}': moving {vdev} to {target} was interrupted; its disk is {source} as before"
        );
        let DiskTarget::Volume { store, volume } = target else {
            return failed;
        };
        let stores = self.site.stores();
        let volumes = stores.volumes(Some(store)).await.unwrap_or_default();
        if volumes.iter().all(|one| one.name != *volume) {
            return failed;
        }
        match stores.delete_volume(store, volume).await {
            Ok(()) => format!("{failed}; {target} is deleted"),
            Err(why) => format!("{failed}; {target} is left over: {why} (xl volume-delete)"),
        }
    }

    /// Whether somebody has the new volume, or would have it at the next start.
    async fn is_wanted(&self, note: &Note) -> bool {
        if self.user_of(&note.target).is_some() {
            return true;
        }
        let Some(file) = &note.file else {
            return false;
        };
        let read = self.site.files().read(file).await;
        let text = read.ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let config = text.and_then(|text| config::parse(file, &text, &[]).ok());
        config.is_some_and(|config| config.disks.iter().any(|disk| disk.target == note.target))
    }
}
