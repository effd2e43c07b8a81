//! `hosts.conf`: a host a line, `NAME ADDRESS[:PORT] FINGERPRINT`; `#` begins a comment.
//!
//! A line that is wrong is reported by number and counts for nothing; the others hold. Changing the
//! file keeps every line that was not meant, comments and wrong ones too.

use super::endpoint::Endpoint;
use crate::net::options::host_name;
use crate::operate::migrate::LOCALHOST;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use godwit_migrate::channel::{Fingerprint, Hosts};

/// The most hosts that are known.
pub const HOSTS_MAX: usize = 256;
/// The most bytes of the file.
const FILE_BYTES_MAX: usize = 64 << 10;
/// Problems that are told; more are counted.
const PROBLEMS_MAX: usize = 20;

/// A host that is known.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KnownHost {
    /// Its name here.
    pub name: String,
    /// Where it listens.
    pub endpoint: Endpoint,
    /// Of its key.
    pub fingerprint: Fingerprint,
}

impl KnownHost {
    /// A host from the words of a line or of a command.
    pub fn parse(name: &str, endpoint: &str, fingerprint: &str) -> Result<Self, String> {
        let name = host_name(name).map_err(|why| format!("'{}': {why}", name.escape_debug()))?;
        if name == LOCALHOST {
            return Err(format!("'{LOCALHOST}' is this host: choose another name"));
        }
        let endpoint = Endpoint::parse(endpoint)?;
        let parsed = Fingerprint::parse(fingerprint);
        let fingerprint = parsed.map_err(|error| {
            format!(
                "'{}': {error}; xl host-key there shows it",
                fingerprint.escape_debug()
            )
        })?;
        Ok(Self {
            name: name.into(),
            endpoint,
            fingerprint,
        })
    }

    fn line(&self) -> String {
        format!("{} {} {}", self.name, self.endpoint, self.fingerprint)
    }
}

struct Line {
    text: String,
    host: Option<KnownHost>,
}

/// The hosts that are known.
#[derive(Default)]
pub struct KnownHosts {
    lines: Vec<Line>,
    problems: Vec<String>,
}

impl KnownHosts {
    /// Reads the file.
    pub fn parse(bytes: &[u8]) -> Self {
        let mut all = Self::default();
        if bytes.len() > FILE_BYTES_MAX {
            let size = bytes.len();
            let why = format!("the file has {size} bytes, at most {FILE_BYTES_MAX} are read");
            all.problems.push(why);
        }
        let bytes = &bytes[..bytes.len().min(FILE_BYTES_MAX)];
        let mut left_out = 0;
        for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let text = String::from_utf8_lossy(line).into_owned();
            let host = match all.read(&text) {
                Ok(host) => host,
                Err(why) => {
                    match all.problems.len() < PROBLEMS_MAX {
                        true => all.problems.push(format!("line {}: {why}", index + 1)),
                        false => left_out += 1,
                    }
                    None
                }
            };
            all.lines.push(Line { text, host });
        }
        // What follows the last newline is no line unless something stands there.
        if all.lines.last().is_some_and(|line| line.text.is_empty()) {
            all.lines.pop();
        }
        if left_out > 0 {
            all.problems.push(format!("{left_out} wrong lines more"));
        }
        all
    }

    fn read(&self, text: &str) -> Result<Option<KnownHost>, String> {
        let meant = text.split('#').next().unwrap_or_default();
        let words: Vec<&str> = meant.split_ascii_whitespace().take(4).collect();
        let host = match words.as_slice() {
            [] => return Ok(None),
            [name, endpoint, fingerprint] => KnownHost::parse(name, endpoint, fingerprint)?,
            _ => return Err("write NAME ADDRESS[:PORT] FINGERPRINT".into()),
        };
        self.check(&host)?;
        Ok(Some(host))
    }

    /// Refuses a host that another one may be taken for.
    fn check(&self, host: &KnownHost) -> Result<(), String> {
        if self.find(&host.name).is_some() {
            return Err(format!("there is a host '{}' already", host.name));
        }
        if let Some(name) = self.name_of(&host.fingerprint) {
            return Err(format!("'{name}' has this fingerprint already"));
        }
        match self.iter().count() < HOSTS_MAX {
            true => Ok(()),
            false => Err(format!("more than {HOSTS_MAX} hosts")),
        }
    }

    /// What is wrong with the file, a sentence each, with line numbers.
    pub fn problems(&self) -> &[String] {
        &self.problems
    }

    /// The hosts, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &KnownHost> {
        self.lines.iter().filter_map(|line| line.host.as_ref())
    }

    /// The host of a name.
    pub fn find(&self, name: &str) -> Option<&KnownHost> {
        self.iter().find(|host| host.name == name)
    }

    /// Adds a host, unless its name or fingerprint is there already.
    pub fn add(&mut self, host: KnownHost) -> Result<(), String> {
        self.check(&host)?;
        self.lines.push(Line {
            text: host.line(),
            host: Some(host),
        });
        Ok(())
    }

    /// Removes a host. False: there is none of that name.
    pub fn remove(&mut self, name: &str) -> bool {
        let before = self.lines.len();
        let is_it = |line: &Line| line.host.as_ref().is_some_and(|host| host.name == name);
        self.lines.retain(|line| !is_it(line));
        self.lines.len() < before
    }

    /// The file's text.
    pub fn render(&self) -> String {
        let mut out = String::new();
        for line in &self.lines {
            out.push_str(&line.text);
            out.push('\n');
        }
        out
    }
}

impl Hosts for KnownHosts {
    fn name_of(&self, fingerprint: &Fingerprint) -> Option<String> {
        let mut hosts = self.iter();
        let found = hosts.find(|host| host.fingerprint == *fingerprint);
        found.map(|host| host.name.to_string())
    }
}
