//! The hardware addresses of the next hops on the host's network (RFC 826).
//!
//! Driven by packets alone: a packet for an unknown neighbour waits and causes a question, further
//! ones repeat it, at most once a second.

use crate::frame::Frame;
use crate::network::mac::MacAddress;
use alloc::collections::{BTreeMap, VecDeque};
use core::net::Ipv4Addr;

/// Neighbours known or asked for.
pub const NEIGHBOURS_MAX: usize = 1024;
/// Packets that wait for one neighbour.
pub const WAITING_MAX: usize = 16;
const ASK_AGAIN_US: u64 = 1_000_000;
/// After this a neighbour is asked for again, while its address is still used.
const FRESH_US: u64 = 120_000_000;
/// After this it is unknown.
const KNOWN_US: u64 = 300_000_000;

#[derive(Default)]
struct Neighbour {
    known: Option<(MacAddress, u64)>,
    asked_us: Option<u64>,
    waiting: VecDeque<Frame>,
}

/// The table.
#[derive(Default)]
pub struct Neighbours(BTreeMap<Ipv4Addr, Neighbour>);

/// What is to be done with a packet.
#[derive(Debug, PartialEq, Eq)]
pub struct Next {
    /// Send it there.
    pub send: Option<(MacAddress, Frame)>,
    /// Ask who has the address.
    pub ask: bool,
}

impl Neighbours {
    /// A packet for a neighbour: sent, or kept until its address is known.
    pub fn send(&mut self, to: Ipv4Addr, frame: Frame, now_us: u64) -> Next {
        if self.0.len() >= NEIGHBOURS_MAX && !self.0.contains_key(&to) {
            // Who is not waited for may be asked again.
            self.0.retain(|_, old| {
                let times = [old.asked_us, old.known.map(|known| known.1)];
                let last = times.into_iter().flatten().max().unwrap_or(0);
                now_us.saturating_sub(last) <= FRESH_US
            });
            if self.0.len() >= NEIGHBOURS_MAX {
                return Next {
                    send: None,
                    ask: false,
                };
            }
        }
        let entry = self.0.entry(to).or_default();
        let age_us = entry
            .known
            .map(|(_, seen_us)| now_us.saturating_sub(seen_us));
        let is_fresh = age_us.is_some_and(|age_us| age_us <= FRESH_US);
        let may_ask = entry
            .asked_us
            .is_none_or(|asked_us| now_us.saturating_sub(asked_us) >= ASK_AGAIN_US);
        let ask = !is_fresh && may_ask;
        if ask {
            entry.asked_us = Some(now_us);
        }
        match entry.known {
            Some((mac, seen_us)) if now_us.saturating_sub(seen_us) <= KNOWN_US => Next {
                send: Some((mac, frame)),
                ask,
            },
            Some(_) | None => {
                if entry.waiting.len() >= WAITING_MAX {
                    entry.waiting.pop_front();
                }
                entry.waiting.push_back(frame);
                Next { send: None, ask }
            }
        }
    }

    /// A neighbour has said where it is: the packets that waited. Only who was asked for is learnt.
    pub fn learn(&mut self, from: Ipv4Addr, mac: MacAddress, now_us: u64) -> VecDeque<Frame> {
        match self.0.get_mut(&from) {
            Some(entry) if mac.is_station() => {
                entry.known = Some((mac, now_us));
                entry.asked_us = None;
                core::mem::take(&mut entry.waiting)
            }
            Some(_) | None => VecDeque::new(),
        }
    }

    /// Forgets all: the host's address has changed.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}
