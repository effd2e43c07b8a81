//! Kernels and ramdisks of a domain that does not run, on their way to another host before its configuration.
//!
//! ```text
//!   source                                          destination
//!   image: path, length, digest     ------------->  is a file of that path there?
//!                                   <-------------  have | send | refused, why
//!   image data, ...                 ------------->  (send only) write it when all has come
//!                                   <-------------  have | refused, why
//! ```
//!
//! The source keeps its own: other domains may be made of them. A file that is there already is never
//! written over; one that was brought is removed again when the configuration is refused after all.
//!
//! Entry point for bytes nobody vouches for: IMAGE and IMAGE_DATA frames.

use super::destination::unexpected;
use super::talk::Talk;
use super::{ANSWER_LIMIT_US, WORK_LIMIT_US};
use crate::config::{Config, Image};
use crate::operate::{OperateError, Toolstack};
use crate::site::{FileError, Files, Site};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use godwit_abi::PAGE_SIZE_BYTES;
use godwit_migrate::link::Link;
use godwit_migrate::stream::{Frame, FrameKind, MemoryDigest};

/// Largest image: it is held in memory until all of it has come.
const IMAGE_BYTES_MAX: u64 = 64 << 20;
/// Bytes of one IMAGE_DATA frame.
const PIECE_BYTES: usize = 256 << 10;
/// Longest path, in bytes.
const PATH_BYTES_MAX: usize = 128;
/// Endings of what a host keeps for itself: another one writes no such file.
const OWN_ENDINGS: [&str; 5] = [".cfg", ".conf", ".key", ".state", ".moving"];
/// The folder of its keys.
const KEYS: &str = "keys/";
const HAVE: &str = "have";
const SEND: &str = "send";

/// What is known of an image before it comes.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Head {
    path: String,
    bytes: u64,
    digest: u128,
}

impl Head {
    fn of(path: &str, contents: &[u8]) -> Self {
        Self {
            path: path.into(),
            bytes: contents.len() as u64,
            digest: digest(contents),
        }
    }

    fn encode(&self) -> String {
        format!("{} {:032x} {}", self.bytes, self.digest, self.path)
    }

    /// The error is for the other host's operator.
    fn decode(body: &[u8]) -> Result<Self, String> {
        let text = core::str::from_utf8(body).map_err(|_| "what came is no text")?;
        let mut words = text.splitn(3, ' ');
        let mut word = || words.next().ok_or("what came is no image");
        let (bytes, digest, path) = (word()?, word()?, word()?);
        let head = Self {
            path: path.into(),
            bytes: bytes.parse().map_err(|_| "its length is no number")?,
            digest: u128::from_str_radix(digest, 16).map_err(|_| "its digest is none")?,
        };
        match (is_path(path), head.bytes <= IMAGE_BYTES_MAX) {
            (false, _) => Err("another host writes no file of such a path".into()),
            (_, false) => Err(format!("it is longer than {} MiB", IMAGE_BYTES_MAX >> 20)),
            (true, true) => Ok(head),
        }
    }
}

fn is_path(path: &str) -> bool {
    let is_part = |part: &str| !part.is_empty() && part != "." && part != "..";
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._/".contains(&byte);
    let lower = path.to_ascii_lowercase();
    path.len() <= PATH_BYTES_MAX
        && path.split('/').all(is_part)
        && path.bytes().all(is_plain)
        && !lower.starts_with(KEYS)
        && !OWN_ENDINGS.iter().any(|ending| lower.ends_with(ending))
}

fn digest(contents: &[u8]) -> u128 {
    let pages = contents.chunks(PAGE_SIZE_BYTES as usize);
    let hashes = (0..)
        .zip(pages)
        .map(|(page, bytes)| MemoryDigest::of(page, bytes));
    hashes.fold(0, u128::wrapping_add)
}

/// The images of a configuration that are files.
pub(super) fn files_of(config: &Config) -> Vec<String> {
    let all = [Some(&config.kernel), config.ramdisk.as_ref()];
    let path = |image: &Image| match image {
        Image::File(path) => Some(path.clone()),
        Image::Module(_) => None,
    };
    all.into_iter().flatten().filter_map(path).collect()
}

impl<S: Site> Toolstack<S> {
    /// Sends the images of a configuration that the other host lacks. The inner error: it refuses one.
    pub(super) async fn hand_images_over<L: Link>(
        &self,
        talk: &mut Talk<'_, S, L>,
        images: &[(String, Vec<u8>)],
    ) -> Result<Result<(), String>, OperateError> {
        for (path, contents) in images {
            let head = Head::of(path, contents).encode();
            talk.say(FrameKind::IMAGE, &[head.as_bytes()], ANSWER_LIMIT_US)
                .await?;
            let mut answer = hear_answer(talk).await?;
            if answer == SEND {
                for piece in contents.chunks(PIECE_BYTES) {
                    talk.say(FrameKind::IMAGE_DATA, &[piece], WORK_LIMIT_US)
                        .await?;
                }
                answer = hear_answer(talk).await?;
            }
            if answer != HAVE {
                return Ok(Err(format!("{path}: {answer}")));
            }
        }
        Ok(Ok(()))
    }

    /// The images of a configuration that is to leave.
    pub(super) async fn leaving_images(
        &self,
        config: &Config,
    ) -> Result<Vec<(String, Vec<u8>)>, OperateError> {
        let mut images: Vec<(String, Vec<u8>)> = Vec::new();
        for path in files_of(config) {
            let file_error = |why: String| OperateError::File {
                path: path.clone(),
                why,
            };
            let contents = self.site.files().read(&path).await;
            let contents = contents.map_err(|error| file_error(error.to_string()))?;
            let head = Head::of(&path, &contents).encode();
            Head::decode(head.as_bytes()).map_err(file_error)?;
            images.push((path.clone(), contents));
        }
        Ok(images)
    }

    /// The other side: takes one image. The path of what was written, if anything was.
    pub(super) async fn take_image<L: Link>(
        &self,
        talk: &mut Talk<'_, S, L>,
        frame: &Frame,
    ) -> Result<Option<String>, OperateError> {
        let head = match Head::decode(&frame.body) {
            Ok(head) => head,
            Err(why) => return answer(talk, &why).await.map(|()| None),
        };
        match self.site.files().read(&head.path).await {
            Ok(there) if Head::of(&head.path, &there) == head => {
                return answer(talk, HAVE).await.map(|()| None);
            }
            Ok(_) => {
                let why = "there is another file of this path";
                return answer(talk, why).await.map(|()| None);
            }
            Err(FileError::NotFound) => {}
            Err(error @ (FileError::NoPartition | FileError::Failed(_))) => {
                return answer(talk, &error.to_string()).await.map(|()| None);
            }
        }
        if self.site.spare_bytes() < head.bytes {
            let why = format!("dom0 there has no memory for its {} bytes", head.bytes);
            return answer(talk, &why).await.map(|()| None);
        }
        answer(talk, SEND).await?;
        let mut contents = Vec::new();
        while (contents.len() as u64) < head.bytes {
            let piece = talk.hear(WORK_LIMIT_US).await?;
            let all = (contents.len() + piece.body.len()) as u64;
            let is_next = piece.kind == FrameKind::IMAGE_DATA && !piece.body.is_empty();
            if !is_next || all > head.bytes {
                return Err(unexpected(talk, &piece));
            }
            contents.extend_from_slice(&piece.body);
        }
        if digest(&contents) != head.digest {
            let why = "what came is not what was sent: its digest differs";
            return answer(talk, why).await.map(|()| None);
        }
        match self.site.files().write(&head.path, &contents).await {
            Ok(()) => {
                // Known before it is answered, so that nothing of it stays if that is in vain.
                let answered = answer(talk, HAVE).await;
                if answered.is_err() {
                    let _ = self.site.files().remove(&head.path).await;
                }
                answered.map(|()| Some(head.path))
            }
            Err(error) => answer(talk, &error.to_string()).await.map(|()| None),
        }
    }

    /// Removes what was brought in vain.
    pub(super) async fn drop_images(&self, brought: &[String]) {
        for path in brought {
            let _ = self.site.files().remove(path).await;
        }
    }
}

async fn answer<S: Site, L: Link>(
    talk: &mut Talk<'_, S, L>,
    text: &str,
) -> Result<(), OperateError> {
    talk.say(FrameKind::IMAGE, &[text.as_bytes()], ANSWER_LIMIT_US)
        .await?;
    talk.push(ANSWER_LIMIT_US).await
}

async fn hear_answer<S: Site, L: Link>(talk: &mut Talk<'_, S, L>) -> Result<String, OperateError> {
    let frame = talk.hear(WORK_LIMIT_US).await?;
    if frame.kind != FrameKind::IMAGE {
        return Err(unexpected(talk, &frame));
    }
    let text = String::from_utf8_lossy(&frame.body);
    Ok(text
        .chars()
        .filter(|char| !char.is_control())
        .take(400)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_comes_back_and_no_file_of_the_hosts_own_is_an_image() {
        let head = Head::of("boot/vmlinuz", &[7; 5000]);
        assert_eq!(Head::decode(head.encode().as_bytes()), Ok(head.clone()));
        assert_ne!(Head::of("boot/vmlinuz", &[8; 5000]), head);
        let digest = "0".repeat(32);
        for path in [
            "",
            "/boot/x",
            "boot/../keys/host.key",
            "keys/x",
            "KEYS/x",
            "hosts.conf",
            "guests/web.cfg",
            "moves.state",
            "a b",
        ] {
            let text = format!("1 {digest} {path}");
            assert!(Head::decode(text.as_bytes()).is_err(), "{path}");
        }
        for bad in [
            &b"\xff"[..],
            b"",
            b"1",
            b"x 0 boot/k",
            b"1 y boot/k",
            b"99999999999 0 boot/k",
        ] {
            assert!(Head::decode(bad).is_err());
        }
    }
}
