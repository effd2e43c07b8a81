//! Emptying a host and filling it again: `xl host-evacuate` moves every domain away and remembers where to,
//! `xl host-return` asks that host to send them back.
//!
//! What is asked for by a host is sent only if it came from there: that is noted with each domain that
//! arrives. What is remembered is in `evacuated.conf`, `HOST UUID NAME` a line, if there is a partition
//! for files, and in memory. Entry point for bytes nobody vouches for: a RECALL frame.

use super::hello::Purpose;
use super::source::hear_hello;
use super::survey::itself;
use super::talk::Talk;
use super::{ANSWER_LIMIT_US, FAREWELL_LIMIT_US, MoveOptions, Peers};
use crate::host::Hypervisor;
use crate::operate::{OperateError, Toolstack};
use crate::site::{FileError, Files, Site};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use godwit_abi::{DomainId, Status};
use godwit_migrate::link::Link;
use godwit_migrate::stream::{Frame, FrameKind};

/// What was moved away, a line each.
const PATH: &str = "evacuated.conf";
/// Key of a domain's blob with the host it came from.
pub(super) const ORIGIN_BLOB: u32 = 0x20;
/// Most domains that are remembered or asked for.
const REMEMBERED_MAX: usize = 256;
/// Longest name of a domain, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// A domain that was moved away.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Evacuated {
    /// To which host.
    pub peer: String,
    /// Its uuid, 32 hexadecimal digits.
    pub uuid: String,
    /// Its name.
    pub name: String,
}

/// A domain that another host has asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wanted {
    /// The domain.
    pub domain: DomainId,
    /// Its name.
    pub name: String,
}

impl Evacuated {
    fn encode(all: &[Evacuated]) -> String {
        let line = |it: &Evacuated| format!("{} {} {}\n", it.peer, it.uuid, it.name);
        all.iter().map(line).collect()
    }

    /// Lines that are none are passed over.
    fn decode(text: &str) -> Vec<Evacuated> {
        let parse = |line: &str| {
            let mut words = line.splitn(3, ' ');
            let (peer, uuid, name) = (words.next()?, words.next()?, words.next()?);
            let is_uuid = uuid.len() == 32 && uuid.bytes().all(|byte| byte.is_ascii_hexdigit());
            let is_name =
                (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.chars().any(char::is_control);
            (is_uuid && is_name).then(|| Evacuated {
                peer: peer.into(),
                uuid: uuid.into(),
                name: name.into(),
            })
        };
        text.lines()
            .filter_map(parse)
            .take(REMEMBERED_MAX)
            .collect()
    }
}

impl<S: Site> Toolstack<S> {
    /// Every domain of this host, to be moved to `peer`, by what it is remembered by.
    pub fn to_evacuate(&self, peer: &str) -> Vec<(DomainId, Evacuated)> {
        let all = self.registry.all().into_iter();
        all.map(|(domain, entry)| {
            let uuid = entry.config.uuid.unwrap_or_default();
            let it = Evacuated {
                peer: peer.into(),
                uuid: hex(&uuid),
                name: entry.config.name,
            };
            (domain, it)
        })
        .collect()
    }

    /// Remembers domains that were moved away. The error: for this boot only.
    pub async fn remember_evacuated(&self, moved: Vec<Evacuated>) -> Result<(), OperateError> {
        let mut all = self.evacuated().await;
        all.retain(|old| moved.iter().all(|new| new.uuid != old.uuid));
        all.extend(moved);
        let excess = all.len().saturating_sub(REMEMBERED_MAX);
        all.drain(..excess);
        self.keep_evacuated(all).await
    }

    async fn keep_evacuated(&self, all: Vec<Evacuated>) -> Result<(), OperateError> {
        let text = Evacuated::encode(&all);
        *self.jobs.evacuated.borrow_mut() = Some(all);
        match self.site.files().write(PATH, text.as_bytes()).await {
            Ok(()) | Err(FileError::NoPartition) => Ok(()),
            Err(error @ (FileError::NotFound | FileError::Failed(_))) => Err(OperateError::File {
                path: PATH.into(),
                why: error.to_string(),
            }),
        }
    }

    async fn evacuated(&self) -> Vec<Evacuated> {
        if let Some(all) = self.jobs.evacuated.borrow().clone() {
            return all;
        }
        let bytes = self.site.files().read(PATH).await.unwrap_or_default();
        Evacuated::decode(&String::from_utf8_lossy(&bytes))
    }

    /// `xl host-return`: asks `peer` for the domains that were moved there. Returns what it says of each.
    pub async fn recall<P: Peers>(&self, peers: &P, peer: &str) -> Result<String, OperateError> {
        let mut all = self.evacuated().await;
        let here: Vec<String> = self
            .registry
            .all()
            .into_iter()
            .map(|(_, entry)| hex(&entry.config.uuid.unwrap_or_default()))
            .collect();
        let before = all.len();
        all.retain(|it| !here.contains(&it.uuid));
        if all.len() < before {
            self.keep_evacuated(all.clone()).await?;
        }
        all.retain(|it| it.peer == peer);
        if all.is_empty() {
            let what = format!("no domain is remembered that was moved to {peer} and is not back");
            return Err(OperateError::Other(what));
        }
        let link = self.dialled(peers, peer).await?;
        let mut talk = Talk::begin(&self.site, link, peer).await?;
        let mine = self.hello(Purpose::Recall, false)?;
        let said = mine.encode();
        talk.say(FrameKind::HELLO, &[said.as_bytes()], ANSWER_LIMIT_US)
            .await?;
        if hear_hello(&mut talk).await?.boot == mine.boot {
            return Err(OperateError::Other(itself(peer).to_string()));
        }
        let asked = Evacuated::encode(&all);
        talk.say(FrameKind::RECALL, &[asked.as_bytes()], ANSWER_LIMIT_US)
            .await?;
        let answer = talk.hear(ANSWER_LIMIT_US).await?;
        if answer.kind != FrameKind::RECALL {
            return Err(super::destination::unexpected(&talk, &answer));
        }
        let _ = talk.finish(FAREWELL_LIMIT_US).await;
        let text = String::from_utf8_lossy(&answer.body);
        let fit = |char: &char| *char == '\n' || !char.is_control();
        let told = text.chars().filter(fit).take(16 << 10);
        Ok(told.collect())
    }

    /// The other side: what came from `from` and is asked for is to be sent back, by who takes
    /// [`super::Jobs::take_wanted`].
    pub(super) async fn answer_recall<L: Link>(
        &self,
        mut talk: Talk<'_, S, L>,
    ) -> Result<(), OperateError> {
        let frame = talk.hear(ANSWER_LIMIT_US).await?;
        if frame.kind != FrameKind::RECALL {
            return Err(super::destination::unexpected(&talk, &frame));
        }
        let told = self.release(&frame, talk.peer());
        talk.say(FrameKind::RECALL, &[told.as_bytes()], ANSWER_LIMIT_US)
            .await?;
        talk.finish(FAREWELL_LIMIT_US).await
    }

    fn release(&self, frame: &Frame, from: &str) -> String {
        let mut told = String::new();
        let entries = self.registry.all();
        for asked in Evacuated::decode(&String::from_utf8_lossy(&frame.body)) {
            let is_it = |entry: &crate::registry::Entry| {
                entry
                    .config
                    .uuid
                    .is_some_and(|uuid| hex(&uuid) == asked.uuid)
            };
            let found = entries.iter().find(|(_, entry)| is_it(entry));
            let origin = |domain| self.site.hypervisor().blob_read(domain, ORIGIN_BLOB);
            let name = &asked.name;
            told += &match found {
                None => format!("{name}: it is not here any more\n"),
                Some((domain, _)) if self.jobs.of(*domain).is_some() => {
                    format!("{name}: it is being moved already\n")
                }
                Some((domain, entry)) if origin(*domain).as_deref() == Ok(from.as_bytes()) => {
                    let name = entry.config.name.clone();
                    let domain = *domain;
                    self.jobs.want(Wanted { domain, name });
                    format!("{}: it comes\n", asked.name)
                }
                // A host gets only what was its own.
                Some(_) => format!("{name}: it did not come from {from}\n"),
            };
        }
        told
    }

    /// Notes where a domain comes from.
    pub(super) fn note_origin(&self, domain: DomainId, from: &str) -> Result<(), OperateError> {
        let noted = self
            .site
            .hypervisor()
            .blob_write(domain, ORIGIN_BLOB, from.as_bytes());
        match noted {
            Ok(()) | Err(Status::NotSupported) => Ok(()),
            Err(status) => Err(status.into()),
        }
    }
}

/// How domains are moved that nobody watches.
pub fn unwatched() -> MoveOptions {
    MoveOptions::default()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
