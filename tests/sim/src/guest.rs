//! A guest: what it has written, kept outside both hosts, and what it finds when it runs. It is the
//! judge of a move: it notices when memory is not what it wrote, and when its clock goes back.

use crate::host::{Host, runs};
use crate::hypervisor::{SimHypervisor, Wrote};
use crate::random::Random;
use godwit_abi::{DomainId, text};
use godwit_records::{PlatformTime, Record};
use godwit_toolstack::host::Hypervisor;
use godwit_toolstack::host::fake::FakeDomain;
use std::collections::BTreeMap;
use std::rc::Rc;

/// Ticks a second of its clock.
const TSC_HZ: u64 = 1_000_000_000;
/// How much further its clock may be than time has passed: the hosts' clocks are compared over a
/// link that may be slow.
const AHEAD_US_MAX: u64 = 2_000_000;
const PAGE_BYTES: usize = 4096;
/// Pages it leaves alone: what was loaded there is small and stays.
const FIRST_PAGE: u64 = 20;

/// How it writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pattern {
    /// Hardly at all.
    Idle,
    /// A byte in each of many pages.
    Bytes,
    /// Whole pages of chance.
    Pages,
    /// All of these in turn, zeroes too.
    Mixed,
}

/// What has become of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It must be there.
    Alive,
    /// It may be gone, for this reason.
    MayBeGone(&'static str),
}

/// A guest.
pub struct Guest {
    /// Its name.
    pub name: String,
    /// What has become of it.
    pub fate: Fate,
    /// Where it ran last.
    pub home: Option<(usize, DomainId)>,
    /// Its memory as it must be.
    pub memory: BTreeMap<u64, Vec<u8>>,
    /// Between its last tick at one host and the first at the other.
    pub gaps_us: Vec<u64>,
    /// What it finds next is a new beginning.
    pub is_reborn: bool,
    pattern: Pattern,
    pages_per_s: u64,
    random: Random,
    last_us: u64,
    tsc: u64,
    credit: u64,
}

impl Guest {
    /// A guest that is not seen yet.
    pub fn new(name: &str, pattern: Pattern, pages_per_s: u64, random: Random) -> Self {
        Self {
            name: name.into(),
            fate: Fate::Alive,
            home: None,
            memory: BTreeMap::new(),
            gaps_us: Vec::new(),
            is_reborn: true,
            pattern,
            pages_per_s,
            random,
            last_us: 0,
            tsc: 5_000,
            credit: 0,
        }
    }

    /// Whether a domain is this guest.
    pub fn is(&self, domain: &FakeDomain) -> bool {
        text(&domain.info.name) == self.name
    }

    /// How often it runs, on all hosts.
    pub fn copies_running(&self, hosts: &[Rc<Host>; 2]) -> usize {
        let running = |host: &Rc<Host>| host.guests(|domain| self.is(domain) && runs(domain));
        hosts.iter().flat_map(running).filter(|runs| *runs).count()
    }

    /// Lets it run for a while, wherever it does.
    pub fn tick(&mut self, hosts: &[Rc<Host>; 2], now_us: u64) -> Result<(), String> {
        for host in hosts {
            let Some(parts) = host.parts() else {
                continue;
            };
            let done = host.guests(|domain| match self.is(domain) {
                true if runs(domain) => self.run(host.index, &parts.hypervisor, domain, now_us),
                true | false => Ok(()),
            });
            done.into_iter().collect::<Result<(), String>>()?;
            self.device_writes(host);
            self.give_back(host);
        }
        Ok(())
    }

    fn run(
        &mut self,
        host: usize,
        hypervisor: &SimHypervisor,
        domain: &mut FakeDomain,
        now_us: u64,
    ) -> Result<(), String> {
        let here = (host, domain.id);
        if self.home != Some(here) {
            self.arrive(here, domain, now_us)?;
        }
        let passed_us = now_us.saturating_sub(self.last_us);
        self.last_us = now_us;
        self.tsc += passed_us * (TSC_HZ / 1_000_000);
        domain.platform = platform(self.tsc);
        let mut rate = self.pages_per_s;
        if domain.write_quota > 0 {
            rate = rate.min(domain.write_quota);
        }
        self.credit = (self.credit + passed_us * rate).min(100_000_000);
        let writes = self.credit / 1_000_000;
        self.credit %= 1_000_000;
        for _ in 0..writes {
            self.write(hypervisor, domain)?;
        }
        Ok(())
    }

    fn arrive(
        &mut self,
        here: (usize, DomainId),
        domain: &mut FakeDomain,
        now_us: u64,
    ) -> Result<(), String> {
        if std::mem::take(&mut self.is_reborn) {
            self.memory = domain.pages.clone();
            self.home = Some(here);
            self.last_us = now_us;
            return Ok(());
        }
        self.compare(domain)?;
        let time = PlatformTime::decode(&domain.platform);
        let time = time.map_err(|_| format!("{} has no time any more", self.name))?;
        let gap_us = now_us - self.last_us;
        let (first, last) = (
            self.tsc,
            self.tsc + (gap_us + AHEAD_US_MAX) * (TSC_HZ / 1_000_000),
        );
        if !(first..=last).contains(&time.platform_tsc) {
            return Err(format!(
                "the clock of {} was at {first} and is at {} after {gap_us} us",
                self.name, time.platform_tsc
            ));
        }
        if self.home.is_some() {
            self.gaps_us.push(gap_us);
        }
        self.tsc = time.platform_tsc;
        self.last_us = now_us;
        self.home = Some(here);
        Ok(())
    }

    /// Its memory, as it finds it.
    pub fn compare(&self, domain: &FakeDomain) -> Result<(), String> {
        let name = &self.name;
        for (page, bytes) in &self.memory {
            // What has not come yet is seen by nobody.
            if domain.absent.contains(page) {
                continue;
            }
            match domain.pages.get(page) {
                Some(there) if there == bytes => {}
                Some(_) => return Err(format!("page {page:#x} of {name} is not what it wrote")),
                None => return Err(format!("page {page:#x} of {name} is gone")),
            }
        }
        match domain.pages.len() == self.memory.len() {
            true => Ok(()),
            false => Err(format!("{name} has more pages than before")),
        }
    }

    fn page(&self) -> Option<u64> {
        let span = match self.pattern {
            // Over and over the same ones.
            Pattern::Bytes => 120,
            Pattern::Idle | Pattern::Pages | Pattern::Mixed => 400,
        };
        let page = FIRST_PAGE + self.random.below(span);
        self.memory.contains_key(&page).then_some(page)
    }

    fn write(&mut self, hypervisor: &SimHypervisor, domain: &mut FakeDomain) -> Result<(), String> {
        let Some(page) = self.page() else {
            return Ok(());
        };
        if hypervisor.guest_writes(domain, page)? == Wrote::Waits {
            // It stands before its instruction.
            domain.wanted.insert(page);
            return Ok(());
        }
        let bytes = self.memory.get_mut(&page).expect("it has it");
        let there = domain.pages.get_mut(&page);
        let there = there.ok_or_else(|| format!("page {page:#x} of {} is gone", self.name))?;
        if there != bytes {
            return Err(format!(
                "{} reads at page {page:#x} what it did not write",
                self.name
            ));
        }
        let kind = match self.pattern {
            Pattern::Idle | Pattern::Bytes => 0,
            Pattern::Pages => 1,
            Pattern::Mixed => self.random.below(3),
        };
        match kind {
            0 => bytes[self.random.below(PAGE_BYTES as u64) as usize] ^= 0x55,
            1 => self.random.fill(bytes),
            _zeroes => bytes.fill(0),
        }
        there.copy_from_slice(bytes);
        if let Some(dirty) = &mut domain.dirty {
            dirty.insert(page);
        }
        Ok(())
    }

    /// Its balloon takes a page.
    fn give_back(&mut self, host: &Host) {
        let (Some((home, id)), Some(parts)) = (self.home, host.parts()) else {
            return;
        };
        if home != host.index || !self.random.one_in_thousand(4) {
            return;
        }
        let hypervisor = &parts.hypervisor;
        if let Some(page) = self.page()
            && hypervisor.with(id, |domain| runs(domain) && !domain.absent.contains(&page))
                == Ok(true)
            && hypervisor.memory_release(id, &[page]).is_ok()
        {
            self.memory.remove(&page);
        }
    }

    /// A device writes, as long as it is served: also to a guest that was just paused.
    fn device_writes(&mut self, host: &Rc<Host>) {
        let (Some((home, id)), Some(_), Some(parts)) = (self.home, host.tools(), host.parts())
        else {
            return;
        };
        let devices = &parts.devices;
        let is_served = home == host.index
            && !devices.quiesced.borrow().contains(&id)
            && !devices.let_go.borrow().keys().any(|(of, _)| *of == id);
        if !is_served || !self.random.one_in_thousand(100) {
            return;
        }
        let Some(page) = self.page() else {
            return;
        };
        let written = parts.hypervisor.with(id, |domain| {
            // Not while nobody knows whose it is, or it was paused by the operator.
            if !runs(domain) && domain.dirty.is_none() {
                return false;
            }
            // The request stays in its ring.
            if domain.absent.contains(&page) {
                return false;
            }
            let bytes = self.memory.get_mut(&page).expect("it has it");
            bytes[17] ^= 0xff;
            let there = domain.pages.get_mut(&page).expect("it is its own");
            there.copy_from_slice(bytes);
            true
        });
        if written == Ok(true)
            && let Some(words) = devices.written.borrow_mut().get_mut(&id)
        {
            let (word, bit) = ((page / 64) as usize, page % 64);
            words.resize(words.len().max(word + 1), 0);
            words[word] |= 1 << bit;
        }
    }
}

/// The records of a platform: its time.
pub fn platform(tsc: u64) -> Vec<u8> {
    let record = PlatformTime {
        tsc_hz: TSC_HZ,
        platform_tsc: tsc,
    };
    let mut bytes = vec![0; PlatformTime::MAX_BYTES];
    let length = record.encode(&mut bytes).expect("it fits");
    bytes.truncate(length);
    bytes
}

/// Fills some of a new guest's pages.
pub fn fill(domain: &mut FakeDomain, random: &Random) {
    domain.platform = platform(5_000);
    let share = random.between(2, 12);
    for (page, bytes) in &mut domain.pages {
        match random.below(share) {
            0 => random.fill(bytes),
            1 => bytes.fill(*page as u8),
            _zero => {}
        }
    }
}
