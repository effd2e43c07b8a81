//! Moving a domain that is not running: its configuration file goes to the other host.
//!
//! ```text
//!   source                                          destination
//!   hello (offline)                 ------------->
//!   images, if they are files       ------------->  write those that are not there (`images`)
//!   WEB.cfg becomes WEB.cfg.moving
//!   offline: path, text             ------------->  check as for xl create, write WEB.cfg
//!                                   <-------------  taken, or every reason against it
//!   WEB.cfg.moving is removed, or becomes WEB.cfg again
//! ```
//!
//! Invariant: the file that a domain could be made of is never on both hosts. Where the answer is lost it
//! may be there or nowhere, and `.moving` is here; doing it again settles that, because the same
//! file is taken twice. What an other host writes here ends in `.cfg`: no key, and no list of hosts.
//!
//! Entry point for bytes nobody vouches for: an OFFLINE frame.

use super::check::disk_objection;
use super::destination::unexpected;
use super::hello::Purpose;
use super::localhost::LOCALHOST;
use super::objection::{Cause, Objection, refuse};
use super::source::hear_hello;
use super::survey::itself;
use super::talk::Talk;
use super::{ANSWER_LIMIT_US, FAREWELL_LIMIT_US, Peers, WORK_LIMIT_US};
use crate::config;
use crate::operate::{OperateError, Toolstack};
use crate::site::{FileError, Files, Site};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use godwit_migrate::link::Link;
use godwit_migrate::stream::{Frame, FrameKind};

/// End of a configuration's path.
const ENDING: &str = ".cfg";
/// Put behind it while it is on its way.
const MOVING: &str = ".moving";
/// Longest path, in bytes.
const PATH_BYTES_MAX: usize = 128;
/// Longest configuration, in bytes.
const TEXT_BYTES_MAX: usize = 64 << 10;
const TAKEN: &str = "taken";
const REFUSED: &str = "refused";

/// Whether a path may be that of a configuration which another host sends.
fn is_path(path: &str) -> bool {
    let is_part = |part: &str| !part.is_empty() && part != "." && part != "..";
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._/".contains(&byte);
    path.len() <= PATH_BYTES_MAX
        && path.ends_with(ENDING)
        && path.split('/').all(is_part)
        && path.bytes().all(is_plain)
}

fn file_error(path: &str, error: &FileError) -> OperateError {
    OperateError::File {
        path: path.into(),
        why: error.to_string(),
    }
}

impl<S: Site> Toolstack<S> {
    /// `xl migrate --offline`: gives the configuration at `path` to another host. Not to be dropped half
    /// way. Returns what to tell.
    pub async fn migrate_offline<P: Peers>(
        &self,
        peers: &P,
        peer: &str,
        path: &str,
    ) -> Result<String, OperateError> {
        if self.host_named(peer) == LOCALHOST {
            let what = format!("{peer} is this host: its configuration files are here already");
            return Err(refuse(&[Objection::new(Cause::Itself, what)]));
        }
        let (text, images) = self.leaving_text(path).await?;
        let link = self.dialled(peers, peer).await?;
        let mut talk = Talk::begin(&self.site, link, peer).await?;
        let mine = self.hello(Purpose::Offline, false)?;
        let said = mine.encode();
        talk.say(FrameKind::HELLO, &[said.as_bytes()], ANSWER_LIMIT_US)
            .await?;
        if hear_hello(&mut talk).await?.boot == mine.boot {
            return Err(refuse(&[itself(peer)]));
        }
        // Until here nothing of it has changed: what fails leaves it in service.
        if let Err(why) = self.hand_images_over(&mut talk, &images).await? {
            let _ = talk.finish(FAREWELL_LIMIT_US).await;
            return Err(OperateError::Other(format!("{peer} refuses {why}")));
        }
        self.rename(path, &format!("{path}{MOVING}"), &text).await?;
        let answer = self.hand_file_over(&mut talk, path, &text).await;
        let _ = talk.finish(FAREWELL_LIMIT_US).await;
        match answer {
            Ok(Ok(())) => {
                let moving = format!("{path}{MOVING}");
                let removed = self.site.files().remove(&moving).await;
                removed.map_err(|error| file_error(&moving, &error))?;
                Ok(format!("{path} is on {peer} now"))
            }
            Ok(Err(why)) => {
                self.rename(&format!("{path}{MOVING}"), path, &text).await?;
                Err(OperateError::Other(format!("{peer} refuses it: {why}")))
            }
            Err(error) => Err(OperateError::Other(format!(
                "{error}; it is not known whether {peer} has it: the file is {path}{MOVING} until the \
                 same command is given again"
            ))),
        }
    }

    /// The configuration with its images, and whether it may leave. One that was on its way before is read again.
    async fn leaving_text(
        &self,
        path: &str,
    ) -> Result<(Vec<u8>, Vec<(String, Vec<u8>)>), OperateError> {
        if !is_path(path) {
            let what =
                format!("{path}: a configuration's path ends in {ENDING} and has plain letters");
            return Err(OperateError::Other(what));
        }
        let files = self.site.files();
        let text = match files.read(path).await {
            Err(FileError::NotFound) => match files.read(&format!("{path}{MOVING}")).await {
                Err(FileError::NotFound) => return Err(file_error(path, &FileError::NotFound)),
                text => text,
            },
            text => text,
        };
        let text = text.map_err(|error| file_error(path, &error))?;
        let words = core::str::from_utf8(&text).ok();
        let words = words.filter(|words| words.len() <= TEXT_BYTES_MAX);
        let Some(words) = words else {
            return Err(OperateError::Other(format!("{path} is no configuration")));
        };
        let document = config::read(path, words, &[]).map_err(OperateError::Config)?;
        let mut own: Vec<Objection> = Vec::new();
        own.extend(document.config.disks.iter().filter_map(disk_objection));
        for (domain, entry) in self.registry.all() {
            if entry.config.name == document.config.name || entry.source.as_deref() == Some(path) {
                let name = &entry.config.name;
                let what = format!("domain '{name}' (id {domain}) is made of it: move that");
                own.push(Objection::new(Cause::Busy, what));
            }
        }
        match own.is_empty() {
            true => {
                let images = self.leaving_images(&document.config).await?;
                Ok((text, images))
            }
            false => Err(refuse(&own)),
        }
    }

    /// Under the new name first: a file that is cut off in between is there twice, not lost.
    async fn rename(&self, from: &str, to: &str, text: &[u8]) -> Result<(), OperateError> {
        let files = self.site.files();
        let written = files.write(to, text).await;
        written.map_err(|error| file_error(to, &error))?;
        match files.remove(from).await {
            Ok(()) | Err(FileError::NotFound) => Ok(()),
            Err(error @ (FileError::NoPartition | FileError::Failed(_))) => {
                Err(file_error(from, &error))
            }
        }
    }

    /// The outer error: there was no answer.
    async fn hand_file_over<L: Link>(
        &self,
        talk: &mut Talk<'_, S, L>,
        path: &str,
        text: &[u8],
    ) -> Result<Result<(), String>, OperateError> {
        let pieces: [&[u8]; 3] = [path.as_bytes(), b"\n", text];
        talk.say(FrameKind::OFFLINE, &pieces, ANSWER_LIMIT_US)
            .await?;
        let answer = talk.hear(WORK_LIMIT_US).await?;
        let said = String::from_utf8_lossy(&answer.body);
        match (answer.kind, said.split_once('\n')) {
            (FrameKind::OFFLINE, Some((TAKEN, _))) => Ok(Ok(())),
            (FrameKind::OFFLINE, Some((REFUSED, why))) => {
                let fit = |char: &char| *char == '\n' || !char.is_control();
                Ok(Err(why.chars().filter(fit).take(4096).collect()))
            }
            (_, _) => Err(unexpected(talk, &answer)),
        }
    }

    /// The other side.
    pub(super) async fn take_offline<L: Link>(
        &self,
        mut talk: Talk<'_, S, L>,
    ) -> Result<(), OperateError> {
        let mut brought = Vec::new();
        let taken = self.take_all(&mut talk, &mut brought).await;
        if !matches!(taken, Ok(Ok(()))) {
            self.drop_images(&brought).await;
        }
        let answer = match taken? {
            Ok(()) => format!("{TAKEN}\n"),
            Err(why) => format!("{REFUSED}\n{why}"),
        };
        talk.say(FrameKind::OFFLINE, &[answer.as_bytes()], ANSWER_LIMIT_US)
            .await?;
        talk.finish(FAREWELL_LIMIT_US).await
    }

    /// Images, then the configuration. The inner error: it is refused.
    async fn take_all<L: Link>(
        &self,
        talk: &mut Talk<'_, S, L>,
        brought: &mut Vec<String>,
    ) -> Result<Result<(), OperateError>, OperateError> {
        loop {
            let frame = talk.hear(WORK_LIMIT_US).await?;
            match frame.kind {
                FrameKind::IMAGE => brought.extend(self.take_image(talk, &frame).await?),
                FrameKind::OFFLINE => return Ok(self.take_file(&frame).await),
                _ => return Err(unexpected(talk, &frame)),
            }
        }
    }

    async fn take_file(&self, frame: &Frame) -> Result<(), OperateError> {
        let other = |what: &str| Err(OperateError::Other(what.into()));
        let body = core::str::from_utf8(&frame.body).ok();
        let Some((path, text)) = body.and_then(|body| body.split_once('\n')) else {
            return other("configuration: what came is no text");
        };
        if !is_path(path) || text.len() > TEXT_BYTES_MAX {
            return other("configuration: its path or length cannot be that of one");
        }
        let files = self.site.files();
        match files.read(path).await {
            // The answer to the first time was lost.
            Ok(there) if there == text.as_bytes() => return Ok(()),
            Ok(_) => return other("name: there is another file of this path"),
            Err(FileError::NotFound) => {}
            Err(error @ (FileError::NoPartition | FileError::Failed(_))) => {
                return Err(file_error(path, &error));
            }
        }
        let document = config::read(path, text, &[]).map_err(OperateError::Config)?;
        self.check(&document, None).await?;
        let written = files.write(path, text.as_bytes()).await;
        written.map_err(|error| file_error(path, &error))
    }
}
