//! What the toolstack does with keys and hosts.

use super::known::{KnownHost, KnownHosts};
use super::{SiteRandom, key};
use crate::host::Hypervisor;
use crate::operate::{OperateError, Toolstack};
use crate::site::{FileError, Files, Site};
use crate::suggest::nearest;
use crate::table::{Align, Table, pair};
use alloc::format;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cell::Ref;
use godwit_abi::{DomainId, Status};
use godwit_migrate::channel::Identity;

/// This host's key.
pub const KEY_PATH: &str = "keys/host.key";
/// The hosts that are known.
pub const KNOWN_PATH: &str = "hosts.conf";
/// Keys of the control domain's blobs with both on a host without a configuration partition: a dom0 that is started again goes on with
/// them, and domains are not parted from their memory or from who must say whose they are.
const KEY_BLOB: u32 = 5;
const KNOWN_BLOB: u32 = 6;

impl<S: Site> Toolstack<S> {
    /// Loads this host's key, or makes one at its first start, and the known hosts. Returns what the
    /// operator should know.
    pub async fn load_hosts(&self) -> Vec<String> {
        let mut told = Vec::new();
        let (identity, kept) = match self.site.files().read(KEY_PATH).await {
            Ok(bytes) => {
                let damaged = |why| {
                    format!(
                        "{KEY_PATH}: {why}. Restore it, or make a new key with xl host-key --new"
                    )
                };
                (key::decode(&bytes).map_err(damaged), true)
            }
            Err(FileError::NotFound) => self.make_key(&mut told).await,
            Err(FileError::NoPartition) => (self.key_of_this_boot(), false),
            Err(error @ FileError::Failed(_)) => (Err(format!("{KEY_PATH}: {error}")), false),
        };
        if let Err(why) = &identity {
            told.push(format!("this host has no key: {why}"));
        }
        *self.hosts.identity.borrow_mut() = identity.map(Rc::new);
        self.hosts.kept.set(kept);
        // Without a partition, what an earlier dom0 of this boot was told.
        if let Ok(bytes) = self.kept_in_blob(KNOWN_BLOB) {
            self.hosts.known.replace(KnownHosts::parse(&bytes));
        }
        match self.read_known().await {
            Ok(known) => {
                let problems = known.problems().iter();
                told.extend(problems.map(|problem| format!("{KNOWN_PATH}: {problem}")));
                self.hosts.known.replace(known);
            }
            Err(error) => told.push(error.to_string()),
        }
        told
    }

    fn new_key(&self) -> Result<Identity, String> {
        Identity::generate(&mut SiteRandom(&self.site)).map_err(|error| error.to_string())
    }

    fn kept_in_blob(&self, key: u32) -> Result<Vec<u8>, Status> {
        self.site.hypervisor().blob_read(DomainId::CONTROL, key)
    }

    /// Best effort: without it, it is there for as long as this dom0.
    fn keep_in_blob(&self, key: u32, text: &str) {
        let hypervisor = self.site.hypervisor();
        let _kept = hypervisor.blob_write(DomainId::CONTROL, key, text.as_bytes());
    }

    /// The key that an earlier dom0 of this boot made, or a new one.
    fn key_of_this_boot(&self) -> Result<Identity, String> {
        if let Ok(bytes) = self.kept_in_blob(KEY_BLOB)
            && let Ok(identity) = key::decode(&bytes)
        {
            return Ok(identity);
        }
        let identity = self.new_key()?;
        self.keep_in_blob(KEY_BLOB, &key::encode(&identity));
        Ok(identity)
    }

    /// A new key, written to its file. When that fails it is there for this boot only.
    async fn make_key(&self, told: &mut Vec<String>) -> (Result<Identity, String>, bool) {
        let identity = match self.new_key() {
            Ok(identity) => identity,
            Err(why) => return (Err(why), false),
        };
        let text = key::encode(&identity);
        let written = self.site.files().write(KEY_PATH, text.as_bytes()).await;
        if let Err(error) = &written {
            self.keep_in_blob(KEY_BLOB, &text);
            told.push(format!(
                "{KEY_PATH}: {error}: the key is for this boot only"
            ));
        }
        (Ok(identity), written.is_ok())
    }

    /// This host's key pair, for who opens or accepts a link.
    pub fn identity(&self) -> Result<Rc<Identity>, OperateError> {
        let identity = self.hosts.identity.borrow().clone();
        identity.map_err(|why| OperateError::Other(format!("this host has no key: {why}")))
    }

    /// The hosts that are known. Not to be held across anything that waits.
    pub fn known_hosts(&self) -> Ref<'_, KnownHosts> {
        self.hosts.known.borrow()
    }

    /// The host of a name.
    pub fn known_host(&self, name: &str) -> Result<KnownHost, OperateError> {
        let known = self.known_hosts();
        if let Some(host) = known.find(name) {
            return Ok(host.clone());
        }
        let hint = match nearest(name, known.iter().map(|host| host.name.as_str())) {
            Some(near) => format!("did you mean '{near}'?"),
            None => "xl host-list shows the hosts, xl host-add adds one".into(),
        };
        Err(OperateError::Other(format!("no host '{name}': {hint}")))
    }

    /// What `xl host-key` shows. `new` makes another key first.
    pub(crate) async fn host_key(&self, name: &str, new: bool) -> Result<String, OperateError> {
        let mut told = Vec::new();
        if new {
            let (identity, kept) = self.make_key(&mut told).await;
            let identity = identity.map_err(OperateError::Other)?;
            *self.hosts.identity.borrow_mut() = Ok(Rc::new(identity));
            self.hosts.kept.set(kept);
        }
        let fingerprint = self.identity()?.public().fingerprint();
        let kept = match self.hosts.kept.get() {
            true => KEY_PATH,
            false => "for this boot only: no disk has a partition GODWIT for files",
        };
        let mut out = String::new();
        for what in told {
            out.push_str(&what);
            out.push('\n');
        }
        pair(&mut out, "name", name);
        pair(&mut out, "fingerprint", &fingerprint.to_string());
        pair(&mut out, "kept", kept);
        let command = format!("xl host-add {name} ADDRESS {fingerprint}");
        pair(&mut out, "on another host", &command);
        Ok(out)
    }

    /// What `xl host-list` shows.
    pub(crate) fn host_list(&self) -> String {
        let known = self.known_hosts();
        let mut table = Table::new(&[
            ("Name", Align::Left, 16),
            ("Address", Align::Left, 21),
            ("Fingerprint", Align::Left, 0),
        ]);
        for host in known.iter() {
            table.row(alloc::vec![
                host.name.clone(),
                host.endpoint.to_string(),
                host.fingerprint.to_string(),
            ]);
        }
        let mut out = table.render();
        for problem in known.problems() {
            out.push_str(&format!("{KNOWN_PATH}: {problem}\n"));
        }
        out
    }

    /// Adds a known host.
    pub(crate) async fn host_add(&self, host: KnownHost) -> Result<String, OperateError> {
        if let Ok(identity) = self.identity()
            && identity.public().fingerprint() == host.fingerprint
        {
            let why = "this is the fingerprint of this host itself";
            return Err(OperateError::Other(why.into()));
        }
        let mut known = self.read_known().await?;
        known.add(host).map_err(OperateError::Other)?;
        self.write_known(known).await
    }

    /// Forgets a known host.
    pub(crate) async fn host_remove(&self, name: &str) -> Result<String, OperateError> {
        let mut known = self.read_known().await?;
        if !known.remove(name) {
            self.known_host(name)?;
        }
        self.write_known(known).await
    }

    /// The file as it is now: it may have been changed by other means.
    async fn read_known(&self) -> Result<KnownHosts, OperateError> {
        match self.site.files().read(KNOWN_PATH).await {
            Ok(bytes) => Ok(KnownHosts::parse(&bytes)),
            Err(FileError::NotFound) => Ok(KnownHosts::default()),
            // Without a partition there is what was typed since the start.
            Err(FileError::NoPartition) => {
                let text = self.known_hosts().render();
                Ok(KnownHosts::parse(text.as_bytes()))
            }
            Err(FileError::Failed(why)) => Err(OperateError::File {
                path: KNOWN_PATH.into(),
                why,
            }),
        }
    }

    async fn write_known(&self, known: KnownHosts) -> Result<String, OperateError> {
        let text = known.render();
        let written = self.site.files().write(KNOWN_PATH, text.as_bytes()).await;
        let said = match written {
            Ok(()) => String::new(),
            Err(FileError::NoPartition) => {
                self.keep_in_blob(KNOWN_BLOB, &text);
                "for this boot only: no disk has a partition GODWIT for files\n".into()
            }
            Err(error @ (FileError::NotFound | FileError::Failed(_))) => {
                return Err(OperateError::File {
                    path: KNOWN_PATH.into(),
                    why: error.to_string(),
                });
            }
        };
        self.hosts.known.replace(known);
        Ok(said)
    }
}
