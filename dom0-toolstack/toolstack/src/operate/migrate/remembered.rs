//! What a restart of dom0 or of the host does not end: how many domains leave at a time, what was learned
//! of other hosts, and the moves that are over.
//!
//! Text, in a file of the configuration partition; on a host without one in a blob of the control domain,
//! which ends with the boot. Fields are parted by tabs:
//!
//! ```text
//! godwit-moves 1
//! limit    2
//! learned  HOST  FIXED_US  BYTES_PER_S
//! job      ID  out|in  moved|failed  HOST  NAME  PREDICTED  ACTUAL  TEXT      numbers with commas, or -
//! end      CRC-32 of all before, in hexadecimal
//! ```
//!
//! Nothing depends on it: one that is damaged is told of and begun anew. It is bounded, as all it is made
//! of is.
//!
//! Entry point for bytes nobody vouches for: [`Remembered::decode`].

use super::job::{Direction, Job, Stage};
use super::plan::{Actual, Prediction, Spread};
use super::queue::{LIMIT_MAX, Learned};
use crate::host::Hypervisor;
use crate::operate::Toolstack;
use crate::site::{FileError, Files, Site};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use godwit_abi::{BLOB_BYTES_MAX, DomainId};

const PATH: &str = "moves.state";
/// Key of the control domain's blob.
const MOVES_BLOB: u32 = 4;
const MAGIC: &str = "godwit-moves 1";
/// Longest text of a job that is kept, in characters.
const TEXT_CHARS_MAX: usize = 200;
/// Most jobs: as many as are shown.
const JOBS_MAX: usize = 32;

/// A move that is over.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Past {
    pub(super) id: u32,
    pub(super) direction: Direction,
    pub(super) peer: String,
    pub(super) name: String,
    pub(super) foreseen: Option<Prediction>,
    pub(super) actual: Option<Actual>,
    pub(super) outcome: Result<String, String>,
}

impl Past {
    fn of(job: &Job) -> Option<Self> {
        let plain = |text: &str| -> String {
            let plain = |char: char| if char.is_control() { ' ' } else { char };
            text.chars().map(plain).take(TEXT_CHARS_MAX).collect()
        };
        let outcome = job.outcome()?;
        Some(Self {
            id: job.id,
            direction: job.direction,
            peer: plain(&job.peer),
            name: plain(&job.name),
            foreseen: job.foreseen(),
            actual: job.actual(),
            outcome: outcome
                .map(|text| plain(&text))
                .map_err(|text| plain(&text)),
        })
    }

    fn line(&self) -> String {
        let way = match self.direction {
            Direction::Out => "out",
            Direction::In => "in",
            Direction::Within => "disk",
        };
        let (end, Ok(text) | Err(text)) = match &self.outcome {
            Ok(_) => ("moved", &self.outcome),
            Err(_) => ("failed", &self.outcome),
        };
        let foreseen = self.foreseen.map_or_else(
            || "-".into(),
            |it| {
                let spreads = [it.bytes, it.rounds, it.duration_us, it.downtime_us];
                let spreads = spreads.map(|it| format!("{},{}", it.least, it.most));
                let (best, worst) = it.converges;
                format!(
                    "{},{},{}",
                    spreads.join(","),
                    u8::from(best),
                    u8::from(worst)
                )
            },
        );
        let actual = self.actual.map_or_else(
            || "-".into(),
            |it| {
                let downtime = it.downtime_us.map(|us| format!(",{us}"));
                let downtime = downtime.unwrap_or_default();
                format!("{},{},{}{downtime}", it.bytes, it.rounds, it.duration_us)
            },
        );
        let Self { id, peer, name, .. } = self;
        format!("job\t{id}\t{way}\t{end}\t{peer}\t{name}\t{foreseen}\t{actual}\t{text}\n")
    }

    fn decode(fields: &[&str]) -> Option<Self> {
        let [id, way, end, peer, name, foreseen, actual, text] = fields else {
            return None;
        };
        let numbers = |text: &str| -> Option<Vec<u64>> {
            text.split(',').map(|number| number.parse().ok()).collect()
        };
        let foreseen = match *foreseen {
            "-" => None,
            text => match numbers(text)?[..] {
                [b0, b1, r0, r1, d0, d1, t0, t1, best, worst] => Some(Prediction {
                    bytes: Spread::of(b0, b1),
                    rounds: Spread::of(r0, r1),
                    duration_us: Spread::of(d0, d1),
                    downtime_us: Spread::of(t0, t1),
                    converges: (best == 1, worst == 1),
                }),
                _ => return None,
            },
        };
        let actual = match *actual {
            "-" => None,
            text => match numbers(text)?[..] {
                [bytes, rounds, duration_us, ref downtime @ ..] if downtime.len() < 2 => {
                    Some(Actual {
                        bytes,
                        rounds,
                        duration_us,
                        downtime_us: downtime.first().copied(),
                    })
                }
                _ => return None,
            },
        };
        Some(Self {
            id: id.parse().ok()?,
            direction: match *way {
                "out" => Direction::Out,
                "in" => Direction::In,
                "disk" => Direction::Within,
                _ => return None,
            },
            peer: (*peer).into(),
            name: (*name).into(),
            foreseen,
            actual,
            outcome: match *end {
                "moved" => Ok((*text).into()),
                "failed" => Err((*text).into()),
                _ => return None,
            },
        })
    }
}

/// All of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Remembered {
    pub(super) limit: u32,
    pub(super) learned: Vec<(String, Learned)>,
    pub(super) past: Vec<Past>,
}

impl Remembered {
    fn encode(&self) -> String {
        let mut text = format!("{MAGIC}\nlimit\t{}\n", self.limit);
        for (
            peer,
            Learned {
                fixed_us,
                link_rate,
            },
        ) in &self.learned
        {
            text += &format!("learned\t{peer}\t{fixed_us}\t{link_rate}\n");
        }
        for past in &self.past {
            text += &past.line();
        }
        let sum = crc32fast::hash(text.as_bytes());
        text + &format!("end\t{sum:08x}\n")
    }

    /// From octets. The error is for the operator.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, String> {
        let text = core::str::from_utf8(bytes).ok();
        let text = text.filter(|text| text.len() as u64 <= BLOB_BYTES_MAX);
        let text = text.ok_or("it is no text")?;
        let body = text
            .strip_prefix(MAGIC)
            .and_then(|text| text.strip_prefix('\n'));
        let body = body.ok_or("it is of another version")?;
        let end = text.rfind("end\t").ok_or("it has no end")?;
        let sum = u32::from_str_radix(text[end + 4..].trim_end(), 16).ok();
        if sum != Some(crc32fast::hash(&bytes[..end])) {
            return Err("it is damaged".into());
        }
        let mut all = Self {
            limit: super::LIMIT,
            learned: Vec::new(),
            past: Vec::new(),
        };
        for line in body.lines() {
            let fields: Vec<&str> = line.split('\t').collect();
            let known = match fields[..] {
                ["limit", limit] => limit.parse().ok().map(|limit| all.limit = limit),
                ["learned", peer, fixed_us, link_rate] => learned(fixed_us, link_rate)
                    .map(|learned| all.learned.push((peer.to_string(), learned))),
                ["job", ref fields @ ..] => Past::decode(fields).map(|past| all.past.push(past)),
                ["end", _] => Some(()),
                _ => None,
            };
            known.ok_or("a line of it cannot be read")?;
        }
        if !(1..=LIMIT_MAX).contains(&all.limit) || all.past.len() > JOBS_MAX {
            return Err("it has numbers that cannot be".into());
        }
        Ok(all)
    }
}

fn learned(fixed_us: &str, link_rate: &str) -> Option<Learned> {
    Some(Learned {
        fixed_us: fixed_us.parse().ok()?,
        link_rate: link_rate.parse().ok()?,
    })
}

impl<S: Site> Toolstack<S> {
    /// Keeps it. What can be kept nowhere is no reason to fail anything.
    pub(crate) async fn remember_moves(&self) {
        let jobs = self.jobs.all();
        let over = jobs.iter().filter(|job| job.stage() == Stage::Done);
        let mut past: Vec<Past> = over.filter_map(|job| Past::of(job)).collect();
        past.drain(..past.len().saturating_sub(JOBS_MAX));
        let remembered = Remembered {
            limit: self.jobs.limit(),
            learned: self.jobs.all_learned(),
            past,
        };
        let text = remembered.encode();
        let written = self.site.files().write(PATH, text.as_bytes()).await;
        let hypervisor = self.site.hypervisor();
        let blob = match written {
            // What is newer than the file is in the blob.
            Ok(()) => &[][..],
            Err(FileError::NoPartition | FileError::NotFound | FileError::Failed(_)) => {
                text.as_bytes()
            }
        };
        let is_kept = hypervisor.blob_read(DomainId::CONTROL, MOVES_BLOB).is_ok();
        if is_kept || !blob.is_empty() {
            let _ = hypervisor.blob_write(DomainId::CONTROL, MOVES_BLOB, blob);
        }
    }

    /// After a start of dom0. Returns what there is to tell.
    pub(crate) async fn recall_moves(&self) -> Option<String> {
        let hypervisor = self.site.hypervisor();
        let bytes = match hypervisor.blob_read(DomainId::CONTROL, MOVES_BLOB) {
            Ok(bytes) => bytes,
            Err(_) => match self.site.files().read(PATH).await {
                Ok(bytes) => bytes,
                Err(FileError::NotFound | FileError::NoPartition) => return None,
                Err(FileError::Failed(why)) => {
                    return Some(format!(
                        "{PATH} cannot be read: {why}; the history of moves begins anew"
                    ));
                }
            },
        };
        match Remembered::decode(&bytes) {
            Ok(remembered) => {
                self.jobs.recall(remembered);
                None
            }
            Err(why) => Some(format!(
                "what was remembered of moves ({PATH}) is not used: {why}; it begins anew, and the limit \
                 is {} again",
                self.jobs.limit()
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Remembered {
        let spread = Spread::of(1, 2);
        let past = Past {
            id: 7,
            direction: Direction::Out,
            peer: "host-b".into(),
            name: "n".into(),
            foreseen: Some(Prediction {
                bytes: spread,
                rounds: spread,
                duration_us: spread,
                downtime_us: spread,
                converges: (true, false),
            }),
            actual: Some(Actual {
                bytes: 3,
                rounds: 4,
                duration_us: 5,
                downtime_us: None,
            }),
            outcome: Ok("moved".into()),
        };
        let failed = Past {
            id: 8,
            direction: Direction::In,
            foreseen: None,
            actual: None,
            outcome: Err("no route".into()),
            ..past.clone()
        };
        let learned = Learned {
            fixed_us: 60_000,
            link_rate: 1 << 20,
        };
        Remembered {
            limit: 3,
            learned: alloc::vec![("host-b".into(), learned)],
            past: alloc::vec![past, failed],
        }
    }

    #[test]
    fn it_comes_back_and_no_damage_to_it_is_believed() {
        let all = sample();
        let text = all.encode();
        assert_eq!(Remembered::decode(text.as_bytes()), Ok(all));
        for at in 0..text.len() {
            let mut bad = text.clone().into_bytes();
            bad[at] ^= 1;
            let read = Remembered::decode(&bad);
            // The last line feed carries nothing.
            assert!(read.is_err() || at + 1 == text.len(), "octet {at}");
            assert!(Remembered::decode(&text.as_bytes()[..at]).is_err() || at + 1 == text.len());
        }
        for bad in [&b""[..], b"\xff", b"godwit-moves 2\n", b"godwit-moves 1\n"] {
            assert!(Remembered::decode(bad).is_err());
        }
    }
}
