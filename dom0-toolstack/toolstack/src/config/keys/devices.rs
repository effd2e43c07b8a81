//! The keys that are lists: `disk`, `vif`, `cpus`.

use super::*;
use crate::config::{DISKS_MAX, Disk, VIFS_MAX, Vif};

impl Keys<'_> {
    /// The entries of a list of texts, each with its place; one text alone is a list of one.
    fn texts(&mut self, key: &str, entries_max: usize) -> Vec<(String, Place)> {
        let Some(setting) = self.settings.iter().find(|setting| setting.key == key) else {
            return Vec::new();
        };
        let place = setting.value_place;
        let entries = match &setting.value {
            Value::List(entries) => entries.clone(),
            Value::Text(_) | Value::Number(_) => alloc::vec![(setting.value.clone(), place)],
        };
        if entries.len() > entries_max {
            self.complain(
                place,
                format!("'{key}' has more than {entries_max} entries"),
            );
            return Vec::new();
        }
        let mut texts = Vec::new();
        for (entry, place) in entries {
            let what = match entry {
                Value::Text(text) if text.chars().any(char::is_control) => {
                    format!("'{key}' contains a control character")
                }
                Value::Text(text) => {
                    texts.push((text, place));
                    continue;
                }
                Value::Number(_) | Value::List(_) => format!("'{key}' is a [\"text\", ...]"),
            };
            self.complain(place, what);
        }
        texts
    }

    pub(super) fn disks(&mut self) -> Vec<Disk> {
        let mut disks: Vec<(Disk, Place)> = Vec::new();
        for (text, place) in self.texts("disk", DISKS_MAX) {
            let disk = match Disk::parse(&text) {
                Ok(disk) => disk,
                Err(what) => {
                    self.complain(place, what);
                    continue;
                }
            };
            let vdev = disk.vdev();
            if disks.iter().any(|(other, _)| other.index == disk.index) {
                self.complain(place, format!("there are two disks {vdev}"));
            }
            let same = |other: &Disk| other.target == disk.target;
            let writes = |other: &Disk| !other.read_only || !disk.read_only;
            if disks.iter().any(|(other, _)| same(other) && writes(other)) {
                let what = format!(
                    "'{}' is a disk already, and one of them writes",
                    disk.target
                );
                self.complain(place, what);
            }
            disks.push((disk, place));
        }
        disks.sort_by_key(|(disk, _)| disk.index);
        self.places.disks = disks.iter().map(|(_, place)| *place).collect();
        disks.into_iter().map(|(disk, _)| disk).collect()
    }

    pub(super) fn vifs(&mut self) -> Vec<Vif> {
        let mut vifs: Vec<(Vif, Place)> = Vec::new();
        for (text, place) in self.texts("vif", VIFS_MAX) {
            match Vif::parse(&text) {
                Ok(vif) => {
                    let same =
                        |(other, _): &(Vif, Place)| vif.mac.is_some() && other.mac == vif.mac;
                    if vifs.iter().any(same) {
                        self.complain(place, "there are two vifs with this mac".into());
                    }
                    vifs.push((vif, place));
                }
                Err(what) => self.complain(place, what),
            }
        }
        self.places.vifs = vifs.iter().map(|(_, place)| *place).collect();
        vifs.into_iter().map(|(vif, _)| vif).collect()
    }

    /// Sets of CPUs: none, one for all vCPUs, or one for each.
    pub(super) fn cpus(&mut self, vcpus: u32) -> Vec<u64> {
        let mut sets = Vec::new();
        for (text, place) in self.texts("cpus", VCPUS_MAX as usize) {
            match cpus::parse(&text) {
                Ok(set) => sets.push(set),
                Err(what) => self.complain(place, what),
            }
        }
        if sets.len() > 1 && sets.len() != vcpus as usize {
            let what = format!("'cpus' has {} entries for {vcpus} vCPUs", sets.len());
            self.complain(self.place_of("cpus"), what);
        }
        if sets == [u64::MAX] { Vec::new() } else { sets }
    }
}
