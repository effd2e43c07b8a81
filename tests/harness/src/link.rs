//! The cable between emulated hosts: a small learning switch over UDP on loopback, one Ethernet
//! frame a datagram, the format of QEMU's `-netdev socket,udp=` and of Bochs' `ethmod=socket`.
//!
//! Each port is a pair of UDP ports: the host binds `host_udp` and sends to `link_udp`, which is
//! the next one, because Bochs can only say it that way. Towards each port a [`Shaper`] decides
//! what arrives and when. Bochs polls for one frame an emulated millisecond and the kernel drops
//! what it has not fetched, so a frame goes to a *polled* port only when the kernel's own table
//! shows that port's receive queue (nearly) empty: exact pacing, whatever speed Bochs runs at.

use crate::config::Emulator;
use crate::frame::{Frame, Mac};
use crate::pcap::Capture;
use crate::shaper::{Settings, Shaper, Statistics};
use anyhow::{Result, bail, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

/// Longest sleep of the switch, so that changed settings and the end are noticed.
const NAP: Duration = Duration::from_millis(10);
/// How soon a polled port that had no room is looked at again.
const ROOM_CHECK: Duration = Duration::from_micros(500);
/// Bytes (as the kernel accounts them) that may wait in a polled port's receive queue: some four
/// full frames, so that the poller never finds it empty while there is work.
const POLLED_BACKLOG_BYTES: u64 = 10_000;
/// Longest frame a port may send.
const FRAME_BYTES_MAX: usize = 9_216;
/// Station addresses remembered at most.
const STATIONS_MAX: usize = 1_024;
/// Frames handled before the other ports get their turn.
const BATCH: usize = 64;

/// Where pairs of UDP ports are looked for.
const PORT_FIRST: u16 = 20_000;
const PORT_LAST: u16 = 31_998;

/// What sits on a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortKind {
    /// Reads as fast as frames come.
    Prompt,
    /// Polls, and must not be sent more than it has fetched.
    Polled,
}

impl From<Emulator> for PortKind {
    fn from(emulator: Emulator) -> PortKind {
        match emulator {
            Emulator::Qemu | Emulator::Kvm => PortKind::Prompt,
            Emulator::Bochs => PortKind::Polled,
        }
    }
}

/// One socket of the switch, as its host sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkPort {
    /// Which one, from 0.
    pub index: usize,
    /// UDP port the host binds on 127.0.0.1.
    pub host_udp: u16,
    /// UDP port the host sends to; always `host_udp + 1`.
    pub link_udp: u16,
}

/// One port's settings and counters, for printing; `towards` means what the host there receives.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct PortReport {
    /// What is done to frames towards this port.
    pub settings: Settings,
    /// What happened to them.
    pub towards: Statistics,
    /// Frames this port has sent.
    pub sent_frames: u64,
}

struct State {
    towards: Vec<Shaper>,
    sent_frames: Vec<u64>,
    stations: HashMap<Mac, usize>,
    capture: Option<Capture>,
    unplugged: Vec<bool>,
    trip: Option<(usize, Trip)>,
}

/// Looks at each frame; at the first for which it says yes a cable is pulled.
type Trip = Box<dyn Fn(&[u8]) -> bool + Send>;

struct Port {
    socket: UdpSocket,
    address: LinkPort,
    kind: PortKind,
}

/// A running link; dropping it stops it.
pub struct Link {
    state: Arc<Mutex<State>>,
    stop: Arc<AtomicBool>,
    ports: Vec<LinkPort>,
    thread: Option<JoinHandle<()>>,
}

impl Link {
    /// Starts a link with a port for each of `kinds`. All losses follow from `seed`.
    pub fn start(kinds: &[PortKind], seed: u64) -> Result<Link> {
        ensure!(kinds.len() >= 2, "a link joins at least two hosts");
        let mut ports = Vec::new();
        for (index, &kind) in kinds.iter().enumerate() {
            let (socket, address) = bind_pair(index)?;
            ports.push(Port {
                socket,
                address,
                kind,
            });
        }
        let state = Arc::new(Mutex::new(State {
            towards: (0..kinds.len() as u64)
                .map(|i| Shaper::new(seed ^ (i << 32)))
                .collect(),
            sent_frames: vec![0; kinds.len()],
            stations: HashMap::new(),
            capture: None,
            unplugged: vec![false; kinds.len()],
            trip: None,
        }));
        let stop = Arc::new(AtomicBool::new(false));
        let addresses = ports.iter().map(|port| port.address).collect();
        let (for_thread, stop_thread) = (Arc::clone(&state), Arc::clone(&stop));
        let thread = std::thread::spawn(move || run(&ports, &for_thread, &stop_thread));
        Ok(Link {
            state,
            stop,
            ports: addresses,
            thread: Some(thread),
        })
    }

    /// Port `index`, to be given to a host or a [`crate::Peer`].
    pub fn port(&self, index: usize) -> LinkPort {
        self.ports[index]
    }

    /// Changes what is done to frames in every direction.
    pub fn configure(&self, change: impl Fn(&mut Settings)) {
        let mut state = self.lock();
        for shaper in &mut state.towards {
            let mut settings = shaper.settings();
            change(&mut settings);
            shaper.configure(settings);
        }
    }

    /// Changes what is done to frames towards one port.
    pub fn configure_towards(&self, index: usize, change: impl Fn(&mut Settings)) -> Result<()> {
        let mut state = self.lock();
        let count = state.towards.len();
        let Some(shaper) = state.towards.get_mut(index) else {
            bail!("the link has ports 0 to {}, not {index}", count - 1)
        };
        let mut settings = shaper.settings();
        change(&mut settings);
        shaper.configure(settings);
        Ok(())
    }

    /// Pulls the cable: nothing passes in any direction.
    pub fn cut(&self) {
        self.configure(|settings| settings.cut = true);
    }

    /// Pulls the cable of one port: what is there neither hears nor is heard.
    pub fn unplug(&self, index: usize) {
        self.lock().unplugged[index] = true;
    }

    /// Pulls it at the first frame that is `wanted`, which does not pass any more.
    pub fn unplug_at(&self, index: usize, wanted: impl Fn(&[u8]) -> bool + Send + 'static) {
        self.lock().trip = Some((index, Box::new(wanted)));
    }

    /// Whether the cable of a port is pulled.
    pub fn is_unplugged(&self, index: usize) -> bool {
        self.lock().unplugged[index]
    }

    /// What sits on a port is off for a moment, so the switch forgets which stations are behind it.
    pub fn forget(&self, index: usize) {
        self.lock().stations.retain(|_, port| *port != index);
    }

    /// Plugs it in again.
    pub fn plug(&self, index: usize) {
        let mut state = self.lock();
        state.trip = None;
        state.unplugged[index] = false;
    }

    /// Plugs it in again.
    pub fn restore(&self) {
        self.configure(|settings| settings.cut = false);
    }

    /// Captures every frame sent from now on, before anything is done to it; `None` stops that.
    pub fn capture(&self, file: Option<&Path>) -> Result<()> {
        let capture = file.map(Capture::create).transpose()?;
        self.lock().capture = capture;
        Ok(())
    }

    /// Settings and counters of every port.
    pub fn report(&self) -> Vec<PortReport> {
        let state = self.lock();
        let pairs = state.towards.iter().zip(&state.sent_frames);
        pairs
            .map(|(shaper, &sent_frames)| PortReport {
                settings: shaper.settings(),
                towards: shaper.statistics(),
                sent_frames,
            })
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("the link's thread does not panic")
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic there was reported when it happened.
            let _ = thread.join();
        }
    }
}

/// Finds a free pair (p, p + 1), keeps p + 1 and leaves p to the host.
fn bind_pair(index: usize) -> Result<(UdpSocket, LinkPort)> {
    /// Processes that run at the same time start at different places.
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let span = (PORT_LAST - PORT_FIRST) / 2;
    for _ in 0..span {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let start = (std::process::id() as u16).wrapping_mul(97);
        let host_udp = PORT_FIRST + start.wrapping_add(step) % span * 2;
        let link_udp = host_udp + 1;
        let loopback = |port| UdpSocket::bind((Ipv4Addr::LOCALHOST, port));
        if let (Ok(_free), Ok(socket)) = (loopback(host_udp), loopback(link_udp)) {
            socket.set_nonblocking(true)?;
            return Ok((
                socket,
                LinkPort {
                    index,
                    host_udp,
                    link_udp,
                },
            ));
        }
    }
    bail!("no free pair of UDP ports between {PORT_FIRST} and {PORT_LAST}")
}

fn run(ports: &[Port], state: &Mutex<State>, stop: &AtomicBool) {
    let epoch = Instant::now();
    let now_ns = || epoch.elapsed().as_nanos() as u64;
    while !stop.load(Ordering::Relaxed) {
        let mut held = state
            .lock()
            .expect("users of the link do not panic inside it");
        for (index, port) in ports.iter().enumerate() {
            receive(index, port, &mut held, now_ns());
        }
        let mut nap = NAP;
        for (index, port) in ports.iter().enumerate() {
            nap = nap.min(deliver(port, &mut held.towards[index], &now_ns));
        }
        drop(held);
        let nap = Timespec {
            tv_sec: 0,
            tv_nsec: nap.subsec_nanos().into(),
        };
        let mut wanted: Vec<PollFd<'_>> = ports
            .iter()
            .map(|port| PollFd::new(&port.socket, PollFlags::IN))
            .collect();
        // An interrupted sleep is a short sleep.
        let _ = poll(&mut wanted, Some(&nap));
    }
}

/// Takes what the host on `port` sent and offers it to the direction(s) it belongs to.
fn receive(index: usize, port: &Port, state: &mut State, now_ns: u64) {
    let mut bytes = [0; FRAME_BYTES_MAX];
    for _ in 0..BATCH {
        // Errors here are "nothing there" and echoes of a host that is not up yet.
        let Ok((length, from)) = port.socket.recv_from(&mut bytes) else {
            return;
        };
        let frame = &bytes[..length];
        let Some(header) = Frame::parse(frame) else {
            continue;
        };
        if from.port() != port.address.host_udp {
            continue;
        }
        state.sent_frames[index] += 1;
        if let Some(capture) = &mut state.capture
            && capture.record(frame, SystemTime::now()).is_err()
        {
            state.capture = None;
        }
        if let Some((port, wanted)) = &state.trip
            && wanted(frame)
        {
            state.unplugged[*port] = true;
            state.trip = None;
        }
        if state.unplugged[index] {
            continue;
        }
        if !header.source.is_group()
            && (state.stations.len() < STATIONS_MAX || state.stations.contains_key(&header.source))
        {
            state.stations.insert(header.source, index);
        }
        // What travelled when a cable was pulled still arrives.
        let known = state.stations.get(&header.destination).copied();
        let towards = state.towards.iter_mut().zip(&state.unplugged);
        for (other, (shaper, unplugged)) in towards.enumerate() {
            if other != index && !unplugged && known.is_none_or(|station| station == other) {
                shaper.offer(frame, now_ns);
            }
        }
    }
}

/// Sends what is due to the host on `port`; returns when to look again.
fn deliver(port: &Port, towards: &mut Shaper, now_ns: &impl Fn() -> u64) -> Duration {
    loop {
        let Some(due_ns) = towards.next_due_ns() else {
            return NAP;
        };
        if let Some(ahead_ns) = due_ns.checked_sub(now_ns() + 1) {
            return Duration::from_nanos(ahead_ns + 1).min(NAP);
        }
        if port.kind == PortKind::Polled && !has_room(port.address.host_udp) {
            return ROOM_CHECK;
        }
        if let Some(frame) = towards.take_due(now_ns()) {
            // A host that is not up (or down already) loses frames, as on any cable.
            let _ = port
                .socket
                .send_to(&frame, (Ipv4Addr::LOCALHOST, port.address.host_udp));
        }
    }
}

/// Whether the receive queue of a UDP port on loopback is short, by the kernel's own table.
fn has_room(udp_port: u16) -> bool {
    let Ok(table) = std::fs::read_to_string("/proc/net/udp") else {
        return true;
    };
    backlog_bytes(&table, udp_port).is_none_or(|bytes| bytes < POLLED_BACKLOG_BYTES)
}

/// Receive queue of the socket bound to `udp_port` in the text of `/proc/net/udp`: its column
/// `tx_queue:rx_queue`, in hexadecimal.
fn backlog_bytes(table: &str, udp_port: u16) -> Option<u64> {
    let wanted = format!(":{udp_port:04X}");
    table.lines().skip(1).find_map(|line| {
        let mut columns = line.split_ascii_whitespace().skip(1);
        columns.next().filter(|local| local.ends_with(&wanted))?;
        let queues = columns.nth(2)?;
        u64::from_str_radix(queues.split_once(':')?.1, 16).ok()
    })
}

#[cfg(test)]
#[path = "link_tests.rs"]
mod tests;
