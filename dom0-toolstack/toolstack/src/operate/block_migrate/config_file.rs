//! A configuration file whose disk is another one now: its text stays as it is but for the target.

use crate::config::{self, Config, DiskTarget, NBD_PORT};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// The text with the disk of number `index` over `new` instead of `old`, and everything else as it was. An
/// error says why it cannot be.
pub(super) fn retarget(
    file: &str,
    text: &str,
    index: u8,
    old: &DiskTarget,
    new: &DiskTarget,
) -> Result<String, String> {
    let before = config::parse(file, text, &[]).map_err(|_| "it cannot be read".to_string())?;
    let wanted = changed(&before, index, old, new).ok_or("it names another disk")?;
    let ways = spellings(old);
    for spelling in &ways {
        for (at, _) in text.match_indices(spelling.as_str()) {
            let (head, tail) = (&text[..at], &text[at + spelling.len()..]);
            let candidate = format!("{head}{new}{tail}");
            // Only what means just that will do, wherever else the same letters are.
            if config::parse(file, &candidate, &[]).as_ref() == Ok(&wanted) {
                return Ok(candidate);
            }
        }
    }
    Err("its way of naming the disk is not understood".into())
}

/// A configuration with another target for a disk, if it has the disk.
fn changed(config: &Config, index: u8, old: &DiskTarget, new: &DiskTarget) -> Option<Config> {
    let mut wanted = config.clone();
    let mut disks = wanted.disks.iter_mut();
    let disk = disks.find(|disk| disk.index == index && disk.target == *old)?;
    disk.target = new.clone();
    Some(wanted)
}

/// How a target may be written.
fn spellings(target: &DiskTarget) -> Vec<String> {
    let full = target.to_string();
    let port = format!(":{NBD_PORT}/");
    let short = full.replacen(&port, "/", 1);
    match (target, short == full) {
        (DiskTarget::Nbd { .. }, false) => alloc::vec![full, short],
        (DiskTarget::Nbd { .. } | DiskTarget::Volume { .. }, _) => alloc::vec![full],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(text: &str) -> DiskTarget {
        DiskTarget::parse(text).unwrap()
    }

    #[test]
    fn only_the_disk_changes() {
        let text = "# main/web is here\nname='web' ; memory=8\nkernel='module:k'\nextra='root=main/web'\n\
                    disk = [ 'main/web2,raw,vdb,rw', 'main/web, raw, xvda' ] # main/web\n";
        let new = target("fast/data");
        let got = retarget("f", text, 0, &target("main/web"), &new).unwrap();
        let want = text.replace("'main/web, raw", "'fast/data, raw");
        assert_eq!(got, want);
        let error = retarget("f", text, 1, &target("main/web"), &new).unwrap_err();
        assert_eq!(error, "it names another disk");
    }

    #[test]
    fn an_export_may_be_named_without_its_port() {
        let text = "name='w'\nmemory=8\nkernel='module:k'\ndisk=['nbd://h/e,raw,vda']\n";
        let got = retarget("f", text, 0, &target("nbd://h/e"), &target("main/e")).unwrap();
        assert!(got.contains("disk=['main/e,raw,vda']"), "{got}");
    }
}
