//! A station on a link that speaks TCP: it joins connections on the link with connections on the
//! build machine's loopback, so that ordinary programs here talk with emulated hosts and guests. It
//! is what QEMU's user-mode network is for QEMU alone, on the link that Bochs can use too.
//!
//! One thread; bytes are passed on as they are, in both directions, and so is each direction's end.

use crate::link::LinkPort;
use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp;
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, IpAddress, IpCidr};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// Longest sleep of the thread: timers of TCP, connections from loopback, the end.
const NAP: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 2_000_000,
};
/// Bytes in flight a direction.
const WINDOW_BYTES: usize = 64 << 10;
/// Longest frame: what Bochs' card takes.
const FRAME_BYTES_MAX: usize = 1514;
const NETWORK_BITS: u8 = 24;
/// Ports of the station's own connections.
const PORT_FIRST: u16 = 40_000;
const PORT_LAST: u16 = 60_000;

/// Which connections the station joins.
#[derive(Clone, Copy, Debug)]
pub struct Doors {
    /// Connections to this TCP port of the station, and the port on loopback they go on to.
    pub inward: Option<(u16, u16)>,
    /// Where on the link connections to [`Gateway::port`] go on to; without it they are ended.
    pub outward: Option<SocketAddrV4>,
}

/// A running station; dropping it stops it and breaks its connections.
pub struct Gateway {
    stop: Arc<AtomicBool>,
    port: u16,
    thread: Option<JoinHandle<()>>,
}

impl Gateway {
    /// Puts a station with this address on a port of a link.
    pub fn start(port: LinkPort, address: Ipv4Addr, doors: Doors) -> Result<Gateway> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, port.host_udp))
            .context("the link's port is taken")?;
        socket.connect((Ipv4Addr::LOCALHOST, port.link_udp))?;
        socket.set_nonblocking(true)?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let local = listener.local_addr()?.port();
        let stop = Arc::new(AtomicBool::new(false));
        let for_thread = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            Station::new(socket, address, doors, listener).serve(&for_thread)
        });
        Ok(Gateway {
            stop,
            port: local,
            thread: Some(thread),
        })
    }

    /// The TCP port on this machine's loopback that leads to [`Doors::outward`].
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic there was reported when it happened.
            let _ = thread.join();
        }
    }
}

/// The link as smoltcp sees it.
struct Card(UdpSocket);

struct Received(Vec<u8>);
struct ToSend<'a>(&'a UdpSocket);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, take: F) -> R {
        take(&self.0)
    }
}

impl TxToken for ToSend<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, fill: F) -> R {
        let mut frame = vec![0; length];
        let result = fill(&mut frame);
        // A link that is gone loses frames, as a cable does.
        let _ = self.0.send(&frame);
        result
    }
}

impl Device for Card {
    type RxToken<'a> = Received;
    type TxToken<'a> = ToSend<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received, ToSend<'_>)> {
        let mut frame = vec![0; 2048];
        let length = self.0.recv(&mut frame).ok()?;
        frame.truncate(length);
        Some((Received(frame), ToSend(&self.0)))
    }

    fn transmit(&mut self, _: Instant) -> Option<ToSend<'_>> {
        Some(ToSend(&self.0))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = FRAME_BYTES_MAX;
        capabilities
    }
}

/// A connection on the link and one on loopback.
struct Pair {
    handle: SocketHandle,
    local: TcpStream,
    /// What came from the link has been passed on to its end.
    link_ended: bool,
    /// What came from loopback has been taken to its end.
    local_ended: bool,
}

struct Station {
    card: Card,
    interface: Interface,
    sockets: SocketSet<'static>,
    doors: Doors,
    listener: TcpListener,
    /// Waits for the next connection from the link.
    waiting: SocketHandle,
    pairs: Vec<Pair>,
    next_port: u16,
    started: std::time::Instant,
}

fn socket() -> tcp::Socket<'static> {
    let buffer = || tcp::SocketBuffer::new(vec![0; WINDOW_BYTES]);
    let mut socket = tcp::Socket::new(buffer(), buffer());
    socket.set_nagle_enabled(false);
    socket
}

impl Station {
    fn new(udp: UdpSocket, address: Ipv4Addr, doors: Doors, listener: TcpListener) -> Station {
        let mut card = Card(udp);
        let [_, b, c, d] = address.octets();
        let mac = EthernetAddress([0x02, 0x67, 0x78, b, c, d]);
        let mut interface = Interface::new(Config::new(mac.into()), &mut card, Instant::ZERO);
        interface.update_ip_addrs(|addresses| {
            addresses
                .push(IpCidr::new(IpAddress::Ipv4(address), NETWORK_BITS))
                .expect("there is room for one address");
        });
        let mut sockets = SocketSet::new(Vec::new());
        let waiting = sockets.add(socket());
        Station {
            card,
            interface,
            sockets,
            doors,
            listener,
            waiting,
            pairs: Vec::new(),
            next_port: PORT_FIRST,
            started: std::time::Instant::now(),
        }
    }

    fn serve(&mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            let now = self.started.elapsed().as_micros();
            let now = Instant::from_micros(i64::try_from(now).expect("a short while"));
            self.interface.poll(now, &mut self.card, &mut self.sockets);
            self.accept_from_link();
            self.accept_from_loopback();
            let mut moved = false;
            for pair in &mut self.pairs {
                let socket = self.sockets.get_mut::<tcp::Socket<'_>>(pair.handle);
                moved |= pair.pass_on(socket);
            }
            self.forget_ended();
            if !moved {
                let mut sources = [PollFd::new(&self.card.0, PollFlags::IN)];
                // Interrupted or not: the loop looks at everything again.
                let _ = poll(&mut sources, Some(&NAP));
            }
        }
    }

    fn accept_from_link(&mut self) {
        let Some((port, local_port)) = self.doors.inward else {
            return;
        };
        let socket = self.sockets.get_mut::<tcp::Socket<'_>>(self.waiting);
        if !socket.is_open() {
            socket.listen(port).expect("a closed socket and a port");
        }
        if !socket.may_send() {
            return;
        }
        match TcpStream::connect((Ipv4Addr::LOCALHOST, local_port)) {
            Ok(local) => {
                let handle = std::mem::replace(&mut self.waiting, self.sockets.add(self::socket()));
                self.pairs.push(Pair::new(handle, local));
            }
            // Nobody is there: refused on the link too.
            Err(_) => socket.abort(),
        }
    }

    fn accept_from_loopback(&mut self) {
        while let Ok((local, _)) = self.listener.accept() {
            let Some(target) = self.doors.outward else {
                continue;
            };
            let mut socket = socket();
            let port = self.next_port;
            self.next_port = if port == PORT_LAST {
                PORT_FIRST
            } else {
                port + 1
            };
            socket
                .connect(self.interface.context(), target, port)
                .expect("a fresh socket, and two addresses that are whole");
            let handle = self.sockets.add(socket);
            self.pairs.push(Pair::new(handle, local));
        }
    }

    fn forget_ended(&mut self) {
        let sockets = &mut self.sockets;
        self.pairs.retain(|pair| {
            let open = sockets.get::<tcp::Socket<'_>>(pair.handle).is_open();
            if !open {
                // The program sees a reset or an end, whichever came over the link.
                let _ = pair.local.shutdown(Shutdown::Both);
                sockets.remove(pair.handle);
            }
            open
        });
    }
}

impl Pair {
    fn new(handle: SocketHandle, local: TcpStream) -> Pair {
        local
            .set_nonblocking(true)
            .expect("a connected socket takes this");
        Pair {
            handle,
            local,
            link_ended: false,
            local_ended: false,
        }
    }

    /// Passes on what there is; whether there was something.
    fn pass_on(&mut self, socket: &mut tcp::Socket<'_>) -> bool {
        let mut moved = false;
        let mut broken = false;
        while socket.can_recv() {
            let taken = socket.recv(|bytes| match self.local.write(bytes) {
                Ok(count) => (count, count),
                Err(error) => {
                    broken |= error.kind() != ErrorKind::WouldBlock;
                    (0, 0)
                }
            });
            match taken {
                Ok(count) if count > 0 => moved = true,
                Ok(_) | Err(_) => break,
            }
        }
        if matches!(socket.state(), tcp::State::CloseWait | tcp::State::LastAck)
            && !socket.can_recv()
            && !self.link_ended
        {
            self.link_ended = true;
            let _ = self.local.shutdown(Shutdown::Write);
        }
        while !self.local_ended && socket.can_send() {
            let sent = socket.send(|room| match self.local.read(room) {
                Ok(0) => {
                    self.local_ended = true;
                    (0, 0)
                }
                Ok(count) => (count, count),
                Err(error) => {
                    broken |= error.kind() != ErrorKind::WouldBlock;
                    (0, 0)
                }
            });
            match sent {
                Ok(count) if count > 0 => moved = true,
                Ok(_) | Err(_) => break,
            }
        }
        if broken {
            socket.abort();
        } else if self.local_ended {
            socket.close();
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Link, PortKind};

    const NEAR: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
    const FAR: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 2);

    /// Two stations on a link: a program here, one there, and what joins them.
    fn joined(far_port: u16) -> (Link, [Gateway; 2]) {
        let link = Link::start(&[PortKind::Prompt, PortKind::Polled], 1).unwrap();
        let doors = |outward, local| Doors {
            inward: Some((7, local)),
            outward: Some(SocketAddrV4::new(outward, 7)),
        };
        let near = Gateway::start(link.port(0), NEAR, doors(FAR, 0)).unwrap();
        let far = Gateway::start(link.port(1), FAR, doors(NEAR, far_port)).unwrap();
        (link, [near, far])
    }

    #[test]
    fn a_stream_goes_there_and_back_with_its_ends() {
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (_link, stations) = joined(server.local_addr().unwrap().port());
        let echo = std::thread::spawn(move || {
            let (mut stream, _) = server.accept().unwrap();
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).unwrap();
            stream.write_all(&bytes).unwrap();
        });
        let sent: Vec<u8> = (0..300_000u32).map(|index| (index % 251) as u8).collect();
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, stations[0].port())).unwrap();
        stream.write_all(&sent).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut received = Vec::new();
        stream.read_to_end(&mut received).unwrap();
        assert!(received == sent, "{} bytes came back", received.len());
        echo.join().unwrap();
    }

    #[test]
    fn nobody_there_is_an_end_here() {
        // The port of a listener that is gone.
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let (_link, stations) = joined(port);
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, stations[0].port())).unwrap();
        assert_eq!(stream.read(&mut [0; 1]).unwrap_or(0), 0);
    }
}
