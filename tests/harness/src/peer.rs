//! A station on a link that is known to work: answers ARP and ping, and pings. With it one host
//! can be tested for networking without a second one that might be wrong in the same way.

use crate::frame::{Frame, Mac, Payload};
use crate::link::LinkPort;
use anyhow::{Context, Result, bail};
use std::collections::HashMap;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often the station's thread looks whether it should end.
const NAP: Duration = Duration::from_millis(50);
/// How often an ARP request is repeated while nobody answers.
const ARP_INTERVAL: Duration = Duration::from_millis(500);
/// Data octets of a ping, as the ping command sends.
const PING_BYTES: usize = 56;

struct Shared {
    socket: UdpSocket,
    mac: Mac,
    address: Ipv4Addr,
    neighbours: Mutex<HashMap<Ipv4Addr, Mac>>,
    stop: AtomicBool,
}

/// A running station; dropping it stops it.
pub struct Peer {
    shared: Arc<Shared>,
    echoes: Receiver<[u8; 4]>,
    sequence: AtomicU16,
    thread: Option<JoinHandle<()>>,
}

impl Peer {
    /// Puts a station with this address on a port of a link.
    pub fn start(port: LinkPort, address: Ipv4Addr) -> Result<Peer> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, port.host_udp))
            .context("the link's port is taken")?;
        socket.connect((Ipv4Addr::LOCALHOST, port.link_udp))?;
        socket.set_read_timeout(Some(NAP))?;
        let [_, b, c, d] = address.octets();
        let shared = Arc::new(Shared {
            socket,
            mac: Mac([0x02, 0x67, 0x77, b, c, d]),
            address,
            neighbours: Mutex::new(HashMap::new()),
            stop: AtomicBool::new(false),
        });
        let (sender, echoes) = channel();
        let for_thread = Arc::clone(&shared);
        let thread = std::thread::spawn(move || for_thread.serve(&sender));
        Ok(Peer {
            shared,
            echoes,
            sequence: AtomicU16::new(0),
            thread: Some(thread),
        })
    }

    /// Its Ethernet address.
    pub fn mac(&self) -> Mac {
        self.shared.mac
    }

    /// Pings `target` once, resolving it first when needed. Returns the round-trip time of the
    /// ping alone.
    pub fn ping(&self, target: Ipv4Addr, timeout: Duration) -> Result<Duration> {
        self.ping_by(target, target, timeout)
    }

    /// The same by a route: `next` has the target behind it.
    pub fn ping_by(&self, next: Ipv4Addr, target: Ipv4Addr, timeout: Duration) -> Result<Duration> {
        let deadline = Instant::now() + timeout;
        let mac = self.resolve(next, deadline)?;
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed);
        let [high, low] = sequence.to_be_bytes();
        let tag = [0x67, 0x77, high, low];
        let started = Instant::now();
        self.shared.send(
            mac,
            Payload::Echo {
                reply: false,
                from: self.shared.address,
                to: target,
                tag,
                data: vec![low; PING_BYTES],
            },
        );
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.echoes.recv_timeout(left) {
                // An older tag is the late answer to a ping that was given up.
                Ok(answered) if answered == tag => return Ok(started.elapsed()),
                Ok(_) => {}
                Err(_) => bail!("{target} did not answer a ping in {timeout:?}"),
            }
        }
    }

    fn resolve(&self, target: Ipv4Addr, deadline: Instant) -> Result<Mac> {
        let known = || {
            let table = self
                .shared
                .neighbours
                .lock()
                .expect("the peer's thread does not panic");
            table.get(&target).copied()
        };
        let mut asked: Option<Instant> = None;
        while Instant::now() < deadline {
            if let Some(mac) = known() {
                return Ok(mac);
            }
            if asked.is_none_or(|at| at.elapsed() >= ARP_INTERVAL) {
                let sender = self.shared.address;
                self.shared
                    .send(Mac::BROADCAST, Payload::ArpRequest { sender, target });
                asked = Some(Instant::now());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        bail!("nobody on the link answers ARP for {target}")
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic there was reported when it happened.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn serve(&self, echoes: &Sender<[u8; 4]>) {
        let mut bytes = [0; 2048];
        while !self.stop.load(Ordering::Relaxed) {
            let Ok(length) = self.socket.recv(&mut bytes) else {
                continue;
            };
            let Some(frame) = Frame::parse(&bytes[..length]) else {
                continue;
            };
            if frame.destination == self.mac || frame.destination.is_group() {
                self.answer(frame, echoes);
            }
        }
    }

    fn answer(&self, frame: Frame, echoes: &Sender<[u8; 4]>) {
        match frame.payload {
            Payload::ArpRequest { sender, target } if target == self.address => {
                self.learn(sender, frame.source);
                let reply = Payload::ArpReply {
                    sender: self.address,
                    target: sender,
                };
                self.send(frame.source, reply);
            }
            Payload::ArpReply { sender, .. } => self.learn(sender, frame.source),
            Payload::Echo {
                reply: false,
                from,
                to,
                tag,
                data,
            } if to == self.address => {
                let echo = Payload::Echo {
                    reply: true,
                    from: to,
                    to: from,
                    tag,
                    data,
                };
                self.send(frame.source, echo);
            }
            Payload::Echo {
                reply: true,
                to,
                tag,
                ..
            } if to == self.address => {
                // The owner may be dropping us; then nobody waits.
                let _ = echoes.send(tag);
            }
            Payload::ArpRequest { .. } | Payload::Echo { .. } | Payload::Other => {}
        }
    }

    fn learn(&self, address: Ipv4Addr, mac: Mac) {
        let mut table = self
            .neighbours
            .lock()
            .expect("the peer's users do not panic inside it");
        table.insert(address, mac);
    }

    fn send(&self, destination: Mac, payload: Payload) {
        let frame = Frame {
            destination,
            source: self.mac,
            payload,
        };
        if let Some(bytes) = frame.bytes() {
            // A link that is gone loses frames, as a cable does.
            let _ = self.socket.send(&bytes);
        }
    }
}
