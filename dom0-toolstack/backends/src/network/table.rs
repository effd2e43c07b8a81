//! Which station is behind which port.
//!
//! Stations of this host are *fixed* and never learnt elsewhere. Others are learnt from what they
//! send, forgotten after [`AGE_US`], and bounded in all and a port, so that a guest that may spoof
//! cannot push out what was learnt of others.

use super::mac::MacAddress;
use super::queue::PortNumber;
use alloc::collections::BTreeMap;

/// Stations in all.
pub const STATIONS_MAX: usize = 8192;
/// Stations learnt behind one port.
pub const STATIONS_PER_PORT_MAX: usize = 4096;
/// A station that is silent for so long is forgotten (IEEE 802.1D, table 7-5).
pub const AGE_US: u64 = 300_000_000;
/// How often the whole table is looked through at most.
const SWEEP_US: u64 = 10_000_000;

#[derive(Clone, Copy)]
struct Station {
    port: PortNumber,
    is_fixed: bool,
    seen_us: u64,
}

/// The table.
#[derive(Default)]
pub struct MacTable {
    stations: BTreeMap<MacAddress, Station>,
    learnt: BTreeMap<PortNumber, usize>,
    swept_us: u64,
}

impl MacTable {
    /// Fixes a station to a port. `false`: it is fixed to another.
    pub fn fix(&mut self, mac: MacAddress, port: PortNumber) -> bool {
        if self.is_fixed(mac) {
            return false;
        }
        self.forget(mac);
        let station = Station {
            port,
            is_fixed: true,
            seen_us: 0,
        };
        self.stations.insert(mac, station);
        true
    }

    /// Whether a station is of this host.
    pub fn is_fixed(&self, mac: MacAddress) -> bool {
        self.stations.get(&mac).is_some_and(|known| known.is_fixed)
    }

    /// A frame came from `mac` by `port`. Not learnt if the table is full.
    pub fn learn(&mut self, mac: MacAddress, port: PortNumber, now_us: u64) {
        if let Some(known) = self.stations.get_mut(&mac) {
            if known.is_fixed {
                return;
            }
            if known.port == port {
                known.seen_us = now_us;
                return;
            }
            self.forget(mac);
        }
        if !self.has_room(port) && now_us >= self.swept_us.saturating_add(SWEEP_US) {
            self.sweep(now_us);
        }
        if !self.has_room(port) {
            return;
        }
        let station = Station {
            port,
            is_fixed: false,
            seen_us: now_us,
        };
        self.stations.insert(mac, station);
        *self.learnt.entry(port).or_default() += 1;
    }

    /// The port behind which a station is.
    pub fn port_of(&self, mac: MacAddress, now_us: u64) -> Option<PortNumber> {
        let known = self.stations.get(&mac)?;
        let is_old = !known.is_fixed && now_us.saturating_sub(known.seen_us) > AGE_US;
        (!is_old).then_some(known.port)
    }

    /// Forgets all stations behind a port.
    pub fn remove(&mut self, port: PortNumber) {
        self.stations.retain(|_, station| station.port != port);
        self.learnt.remove(&port);
    }

    /// Stations known.
    pub fn stations(&self) -> usize {
        self.stations.len()
    }

    fn has_room(&self, port: PortNumber) -> bool {
        let learnt = self.learnt.get(&port).copied().unwrap_or(0);
        self.stations.len() < STATIONS_MAX && learnt < STATIONS_PER_PORT_MAX
    }

    fn forget(&mut self, mac: MacAddress) {
        if let Some(old) = self.stations.remove(&mac)
            && let Some(count) = self.learnt.get_mut(&old.port)
        {
            *count -= 1;
        }
    }

    fn sweep(&mut self, now_us: u64) {
        self.swept_us = now_us;
        let learnt = &mut self.learnt;
        self.stations.retain(|_, station| {
            let stays = station.is_fixed || now_us.saturating_sub(station.seen_us) <= AGE_US;
            if !stays && let Some(count) = learnt.get_mut(&station.port) {
                *count -= 1;
            }
            stays
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mac(index: u32) -> MacAddress {
        let [a, b, c, d] = index.to_be_bytes();
        MacAddress([2, 0, a, b, c, d])
    }

    const ONE: PortNumber = PortNumber(1);
    const TWO: PortNumber = PortNumber(2);

    #[test]
    fn stations_move_age_and_stay_fixed() {
        let mut table = MacTable::default();
        assert!(table.fix(mac(0), ONE));
        assert!(!table.fix(mac(0), TWO));
        table.learn(mac(0), TWO, 5);
        assert_eq!(table.port_of(mac(0), u64::MAX), Some(ONE));
        table.learn(mac(1), ONE, 5);
        table.learn(mac(1), TWO, 6);
        assert_eq!(table.port_of(mac(1), 6 + AGE_US), Some(TWO));
        assert_eq!(table.port_of(mac(1), 7 + AGE_US), None);
        table.remove(TWO);
        assert_eq!(table.port_of(mac(1), 6), None);
    }

    #[test]
    fn a_full_table_learns_again_after_ageing() {
        let mut table = MacTable::default();
        for index in 0..2 * STATIONS_PER_PORT_MAX as u32 {
            table.learn(mac(index), ONE, 0);
        }
        assert_eq!(table.stations(), STATIONS_PER_PORT_MAX);
        table.learn(mac(9_999_999), TWO, 0);
        assert_eq!(table.port_of(mac(9_999_999), 0), Some(TWO));
        table.learn(mac(9_999_998), ONE, AGE_US + 1);
        assert_eq!(table.port_of(mac(9_999_998), AGE_US + 1), Some(ONE));
        assert_eq!(table.stations(), 1);
    }
}
