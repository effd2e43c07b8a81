//! What is on disk about moves, so that a host that lost its power still knows: which boots it had, what
//! each of them took in for good, and which domains were given up and are not settled yet.
//!
//! ```text
//! boot BOOT                            this boot began; without this line nothing is sure of it
//! committed ATTEMPT BOOT               the domain of the attempt is this host's, of that boot
//! withdrawn ATTEMPT                    it never ran after all
//! given-up ATTEMPT BOOT PEER NAME      a domain was given up to that boot of the peer
//! claimed ATTEMPT                      the operator says that the peer is gone for ever: the domain is this host's
//! settled ATTEMPT                      whose it is was said
//! ```
//!
//! One journal record has one line or more. Each is written and flushed before what it announces is
//! done or said. A host without a disk for it writes nothing, and a later boot of it can only say
//! that it cannot know whether it ran what it took.
//!
//! Entry point for bytes nobody vouches for: [`Line::decode`].

use crate::site::{Site, Stores};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cell::RefCell;
use core::fmt;
use godwit_backends::storage::journal::{Journal, JournalError, Record};
use godwit_migrate::handover::{Attempt, Boot, Past};

/// Kind of the records that hold lines.
const LINES: u32 = 1;
/// Boots that are remembered; of older ones it is only known that they may have run anything.
const BOOTS_MAX: usize = 16;
/// Commits that are remembered.
const COMMITS_MAX: usize = 1024;
/// Lines of one record of a checkpoint.
const LINES_MAX: usize = 512;

/// A domain that was given up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GivenUp {
    /// By this attempt.
    pub attempt: Attempt,
    /// To this boot of the other host.
    pub boot: Boot,
    /// The other host, as it was named.
    pub peer: String,
    /// The domain's name.
    pub name: String,
}

/// One line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Line {
    Boot(Boot),
    Committed(Attempt, Boot),
    Withdrawn(Attempt),
    GivenUp(GivenUp),
    Claimed(Attempt),
    Settled(Attempt),
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Line::Boot(boot) => writeln!(f, "boot {:016x}", boot.0),
            Line::Committed(attempt, boot) => {
                writeln!(f, "committed {:016x} {:016x}", attempt.0, boot.0)
            }
            Line::Withdrawn(attempt) => writeln!(f, "withdrawn {:016x}", attempt.0),
            Line::GivenUp(it) => {
                let (attempt, boot) = (it.attempt.0, it.boot.0);
                writeln!(
                    f,
                    "given-up {attempt:016x} {boot:016x} {} {}",
                    it.peer, it.name
                )
            }
            Line::Claimed(attempt) => writeln!(f, "claimed {:016x}", attempt.0),
            Line::Settled(attempt) => writeln!(f, "settled {:016x}", attempt.0),
        }
    }
}

impl Line {
    fn decode(line: &str) -> Option<Self> {
        let (word, rest) = line.split_once(' ')?;
        let mut rest = rest.splitn(4, ' ');
        let mut number = || u64::from_str_radix(rest.next()?, 16).ok();
        Some(match word {
            "boot" => Line::Boot(Boot(number()?)),
            "committed" => Line::Committed(Attempt(number()?), Boot(number()?)),
            "withdrawn" => Line::Withdrawn(Attempt(number()?)),
            "claimed" => Line::Claimed(Attempt(number()?)),
            "settled" => Line::Settled(Attempt(number()?)),
            "given-up" => Line::GivenUp(GivenUp {
                attempt: Attempt(number()?),
                boot: Boot(number()?),
                peer: rest.next()?.into(),
                name: rest.next()?.into(),
            }),
            _ => return None,
        })
    }
}

/// What all lines together say.
#[derive(Clone, Default, Debug)]
struct Book {
    boots: Vec<Boot>,
    committed: BTreeMap<Attempt, Boot>,
    open: BTreeMap<Attempt, GivenUp>,
    /// Of those, what the operator has claimed.
    claimed: BTreeSet<Attempt>,
}

impl Book {
    fn enter(&mut self, line: &Line) {
        match line {
            Line::Boot(boot) => self.boots.push(*boot),
            Line::Committed(attempt, boot) => {
                self.committed.insert(*attempt, *boot);
            }
            Line::Withdrawn(attempt) => {
                self.committed.remove(attempt);
            }
            Line::GivenUp(given_up) => {
                self.open.insert(given_up.attempt, given_up.clone());
            }
            Line::Claimed(attempt) => {
                self.claimed.insert(*attempt);
            }
            Line::Settled(attempt) => {
                self.open.remove(attempt);
                self.claimed.remove(attempt);
            }
        }
    }

    /// Forgets the oldest boots with all they have committed. Of a boot that is not known nothing is
    /// sure, so this is safe; to forget a commit of a boot that is known would not be.
    fn shrink(&mut self) {
        while self.boots.len() > 1
            && (self.boots.len() > BOOTS_MAX || self.committed.len() > COMMITS_MAX)
        {
            let oldest = self.boots.remove(0);
            self.committed.retain(|_, boot| *boot != oldest);
        }
    }

    fn lines(&self) -> Vec<String> {
        let boots = self.boots.iter().map(|boot| Line::Boot(*boot));
        let committed = self.committed.iter();
        let committed = committed.map(|(attempt, boot)| Line::Committed(*attempt, *boot));
        let open = self.open.values().cloned().map(Line::GivenUp);
        let claimed = self.claimed.iter().map(|attempt| Line::Claimed(*attempt));
        let all = boots.chain(committed).chain(open).chain(claimed);
        all.map(|line| line.to_string()).collect()
    }
}

/// The journal of moves.
#[derive(Default)]
pub(crate) struct MoveJournal {
    disk: RefCell<Option<Rc<Journal>>>,
    book: RefCell<Book>,
    /// Given up by an earlier boot, and not settled.
    orphans: RefCell<Vec<GivenUp>>,
}

impl MoveJournal {
    /// Reads it, and enters this boot. Returns what the operator should know.
    pub(crate) async fn open(&self, site: &impl Site, here: Boot) -> Option<String> {
        let opened = match site.stores().journal().await {
            Ok(Some((disk, records))) => read(&records).map(|book| (disk, book)),
            Ok(None) => return None,
            Err(why) => Err(why),
        };
        let told = |why: String| {
            Some(format!(
                "the journal of moves is not kept: {why}. If this host loses its power, domains on the \
                 move may be lost"
            ))
        };
        let (disk, book) = match opened {
            Ok(opened) => opened,
            Err(why) => return told(why),
        };
        let is_known = book.boots.contains(&here);
        self.book.replace(book);
        self.disk.replace(Some(disk));
        if !is_known && let Err(why) = self.write(Line::Boot(here)).await {
            self.disk.replace(None);
            return told(why);
        }
        None
    }

    /// Whether anything is kept.
    pub(crate) fn is_kept(&self) -> bool {
        self.disk.borrow().is_some()
    }

    /// Writes a line; it is there after any power cut when this returns. Without a disk it does nothing.
    pub(crate) async fn write(&self, line: Line) -> Result<(), String> {
        let Some(disk) = self.disk.borrow().clone() else {
            return Ok(());
        };
        let before = self.book.borrow().clone();
        // First, so that a checkpoint that another task makes meanwhile has it.
        self.book.borrow_mut().enter(&line);
        let text = line.to_string();
        let written = match disk.append(LINES, text.as_bytes()).await {
            Err(JournalError::Full) => self.checkpoint(&disk).await,
            written => written.map(|_| ()),
        };
        written.map_err(|error| {
            let mut book = self.book.borrow_mut();
            // Only this line: others may have been written meanwhile.
            match &line {
                Line::Boot(boot) => book.boots.retain(|known| known != boot),
                Line::Committed(attempt, _) => drop(book.committed.remove(attempt)),
                Line::Claimed(attempt) => drop(book.claimed.remove(attempt)),
                Line::GivenUp(it) => drop(book.open.remove(&it.attempt)),
                Line::Withdrawn(attempt) => {
                    book.committed
                        .extend(before.committed.get_key_value(attempt));
                }
                Line::Settled(attempt) => {
                    let it = before.open.get(attempt).cloned();
                    book.open.extend(it.map(|it| (*attempt, it)));
                    book.claimed.extend(before.claimed.get(attempt));
                }
            }
            format!("the journal cannot be written: {error}")
        })
    }

    async fn checkpoint(&self, disk: &Journal) -> Result<(), JournalError> {
        let lines = {
            let mut book = self.book.borrow_mut();
            book.shrink();
            book.lines()
        };
        let records: Vec<String> = lines.chunks(LINES_MAX).map(|some| some.concat()).collect();
        let records: Vec<(u32, &[u8])> = records
            .iter()
            .map(|text| (LINES, text.as_bytes()))
            .collect();
        disk.checkpoint(&records).await
    }

    /// What is known of what a boot that is over promised in an attempt.
    pub(crate) fn past(&self, boot: Boot, attempt: Attempt) -> Past {
        let book = self.book.borrow();
        let is_sure = self.is_kept() && book.boots.contains(&boot);
        match book.committed.contains_key(&attempt) {
            true => Past::Committed,
            false if is_sure => Past::Never,
            false => Past::Unknown,
        }
    }

    /// Whether it says of an attempt that its domain is this host's.
    pub(crate) fn has_committed(&self, attempt: Attempt) -> bool {
        self.book.borrow().committed.contains_key(&attempt)
    }

    /// Whether it says of an attempt that its domain was given up, and not what became of that.
    pub(crate) fn is_open(&self, attempt: Attempt) -> bool {
        self.book.borrow().open.contains_key(&attempt)
    }

    /// After a restart: those that nobody has in memory any more are orphans. `is_here` knows the others.
    pub(crate) fn find_orphans(&self, is_here: impl Fn(Attempt) -> bool) {
        let book = self.book.borrow();
        let gone = book.open.values().filter(|it| !is_here(it.attempt));
        let gone = gone.filter(|it| !book.claimed.contains(&it.attempt));
        self.orphans.replace(gone.cloned().collect());
    }

    /// After a restart: those that were claimed and that nobody has in memory any more.
    pub(crate) fn cold_claims(&self, is_here: impl Fn(Attempt) -> bool) -> Vec<GivenUp> {
        let book = self.book.borrow();
        let claimed = book.claimed.iter().filter(|attempt| !is_here(**attempt));
        claimed
            .filter_map(|attempt| book.open.get(attempt).cloned())
            .collect()
    }

    /// Domains that an earlier boot gave up.
    pub(crate) fn orphans(&self) -> Vec<GivenUp> {
        self.orphans.borrow().clone()
    }

    /// One of them is settled.
    pub(crate) fn forget_orphan(&self, attempt: Attempt) {
        self.orphans.borrow_mut().retain(|it| it.attempt != attempt);
    }
}

fn read(records: &[Record]) -> Result<Book, String> {
    let mut book = Book::default();
    for record in records.iter().filter(|record| record.kind == LINES) {
        let text = core::str::from_utf8(&record.bytes).unwrap_or("?");
        for line in text.lines() {
            let line = Line::decode(line).ok_or_else(|| {
                let line: String = line
                    .chars()
                    .filter(|it| !it.is_control())
                    .take(60)
                    .collect();
                format!("another version of Godwit wrote '{line}' into it")
            })?;
            book.enter(&line);
        }
    }
    Ok(book)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given_up(attempt: u64) -> Line {
        Line::GivenUp(GivenUp {
            attempt: Attempt(attempt),
            boot: Boot(9),
            peer: "host-b".into(),
            name: "a name".into(),
        })
    }

    #[test]
    fn lines_come_back_and_nothing_else_is_one() {
        for line in [
            Line::Boot(Boot(1)),
            Line::Committed(Attempt(2), Boot(u64::MAX)),
            Line::Withdrawn(Attempt(3)),
            given_up(4),
            Line::Claimed(Attempt(4)),
            Line::Settled(Attempt(5)),
        ] {
            let text = line.to_string();
            assert_eq!(Line::decode(text.trim_end()), Some(line));
        }
        for bad in ["", "boot", "boot x", "given-up 1 2 peer", "later 1"] {
            assert_eq!(Line::decode(bad), None, "{bad}");
        }
    }

    #[test]
    fn old_boots_are_forgotten_with_all_they_took_and_nothing_else_is() {
        let mut book = Book::default();
        for boot in 0..40 {
            book.enter(&Line::Boot(Boot(boot)));
            book.enter(&Line::Committed(Attempt(boot), Boot(boot)));
        }
        book.enter(&given_up(77));
        book.shrink();
        assert_eq!(book.boots, (24..40).map(Boot).collect::<Vec<Boot>>());
        assert!(book.committed.keys().copied().eq((24..40).map(Attempt)));
        assert!(book.open.contains_key(&Attempt(77)));
        // What the present boot has is never forgotten.
        for attempt in 100..3000 {
            book.enter(&Line::Committed(Attempt(attempt), Boot(39)));
        }
        book.shrink();
        assert_eq!((book.boots.len(), book.committed.len()), (1, 2901));
    }
}
