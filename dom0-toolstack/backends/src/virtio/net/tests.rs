//! A card between a driver and a cable of the tests.

use super::config::*;
use super::*;
use crate::frame::{PartialChecksum, SegmentKind, Segmentation};
use crate::memory::GuestMemory;
use crate::network::offload::is_intact;
use crate::virtio::FEATURE_VERSION_1;
use crate::virtio::fake::{Counter, Driver, drive, guest, negotiate, settle};
use core::pin::pin;
use core::task::{Context, Waker};
use std::vec;

mod laws;

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const QUEUES: [u64; 3] = [0x1000, 0x4000, 0x7000];
const SENT: u64 = 0x1_0000;
const RECEIVED: u64 = 0x4_0000;
const PAGES: u64 = 256;

#[derive(Default)]
struct Cable {
    sent: RefCell<Vec<Frame>>,
    incoming: RefCell<VecDeque<Frame>>,
    waker: Cell<Option<Waker>>,
    full: Cell<bool>,
    slow: Cell<bool>,
}

impl FramePort for Cable {
    fn send(&self, frame: Frame) -> bool {
        self.sent.borrow_mut().push(frame);
        !self.full.get()
    }
    fn poll_receive(&self, context: &mut Context<'_>) -> Poll<Frame> {
        self.waker.set(Some(context.waker().clone()));
        let next = self.incoming.borrow_mut().pop_front();
        next.map_or(Poll::Pending, Poll::Ready)
    }
    fn poll_ready(&self, _context: &mut Context<'_>) -> Poll<()> {
        if self.slow.get() {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    }
}

struct Bench {
    memory: Rc<GuestMemory>,
    cable: Rc<Cable>,
    net: Rc<Net>,
    function: Rc<VirtioFunction>,
    drivers: [Driver; 3],
}

fn bench(features: u64) -> Bench {
    let memory = guest(PAGES);
    let cable = Rc::new(Cable::default());
    let net = Net::new(cable.clone(), MAC, 1500);
    let interrupts = Rc::new(Counter::default());
    let function = VirtioFunction::new(memory.clone(), net.clone(), interrupts);
    negotiate(&function, features | FEATURE_VERSION_1);
    let drivers = [(0, 256), (1, 256), (2, 64)].map(|(index, size)| {
        let driver = Driver::new(&memory, QUEUES[index], size, false);
        driver.enable(&function, index as u16, index as u16);
        driver
    });
    drive(&function);
    Bench {
        memory,
        cable,
        net,
        function,
        drivers,
    }
}

impl Bench {
    fn run(&self) {
        settle(pin!(self.function.run()).as_mut());
    }

    /// The guest sends a header and a frame.
    fn send(&mut self, header: [u8; 12], frame: &[u8]) -> Option<Frame> {
        self.memory.write(SENT, &header).unwrap();
        self.memory.write(SENT + 12, frame).unwrap();
        let half = frame.len() as u32 / 2;
        let parts = [
            (SENT, 12 + half),
            (SENT + 12 + u64::from(half), frame.len() as u32 - half),
        ];
        let parts = if half == 0 {
            vec![(SENT, 12)]
        } else {
            parts.to_vec()
        };
        self.drivers[TRANSMIT].offer(&parts, &[]).unwrap();
        self.run();
        assert_eq!(self.drivers[TRANSMIT].returned().map(|r| r.1), Some(0));
        self.cable.sent.borrow_mut().pop()
    }

    /// Gives the guest `count` buffers of `bytes`.
    fn offer(&mut self, count: u64, bytes: u32) {
        for n in 0..count {
            let part = (RECEIVED + n * u64::from(bytes), bytes);
            self.drivers[RECEIVE].offer(&[], &[part]).unwrap();
        }
    }

    /// What a driver makes of the buffers that came back: headers and frames. `bytes` is their size.
    fn reap(&mut self, next: &mut u64, bytes: u32) -> Vec<([u8; 12], Vec<u8>)> {
        let mut frames = vec![];
        let mut left = 0;
        while let Some((_, written)) = self.drivers[RECEIVE].returned() {
            let mut part = vec![0; written as usize];
            let gpa = RECEIVED + *next * u64::from(bytes);
            self.memory.read(gpa, &mut part).unwrap();
            *next += 1;
            if left == 0 {
                let header: [u8; 12] = part[..12].try_into().unwrap();
                left = u16::from_le_bytes([header[10], header[11]]);
                frames.push((header, part.split_off(12)));
            } else {
                frames.last_mut().unwrap().1.extend(part);
            }
            left -= 1;
        }
        assert_eq!(left, 0, "all buffers of a frame come at once");
        frames
    }

    fn command(&mut self, bytes: &[u8]) -> u8 {
        self.memory.write(SENT, bytes).unwrap();
        let answer = SENT + 0x8000;
        let readable = [(SENT, bytes.len() as u32)];
        self.drivers[CONTROL]
            .offer(&readable, &[(answer, 1)])
            .unwrap();
        self.run();
        assert_eq!(self.drivers[CONTROL].returned().map(|r| r.1), Some(1));
        let mut out = [9];
        self.memory.read(answer, &mut out).unwrap();
        out[0]
    }
}

/// TCP over IPv4 to the guest, with the checksum left undone.
fn tcp(payload: usize) -> Frame {
    let total = (40 + payload) as u16;
    let mut bytes = MAC.to_vec();
    bytes.extend([2, 0, 0, 0, 0, 2, 8, 0]);
    bytes.extend([
        0x45,
        0,
        (total >> 8) as u8,
        total as u8,
        0,
        1,
        0x40,
        0,
        64,
        6,
        0,
        0,
    ]);
    bytes.extend([10, 0, 0, 1, 10, 0, 0, 2]);
    bytes.extend([
        0, 80, 0, 81, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x18, 1, 0, 0, 0, 0, 0,
    ]);
    bytes.extend((0..payload).map(|n| (n * 5 + n / 251) as u8));
    let header = !crate::network::checksum::sum(&bytes[14..34]);
    bytes[24..26].copy_from_slice(&header.to_be_bytes());
    let mut frame = Frame {
        bytes,
        ..Frame::default()
    };
    crate::network::offload::leave_to_card(&mut frame);
    assert!(frame.checksum.is_some());
    frame
}

fn long(payload: usize, ecn: bool) -> Frame {
    Frame {
        segmentation: Some(Segmentation {
            kind: SegmentKind::Tcp4,
            header_bytes: 54,
            payload_bytes: 1460,
            ecn,
        }),
        ..tcp(payload)
    }
}

#[test]
fn a_sent_frame_is_what_its_header_says() {
    let mut bench = bench(u64::MAX);
    let frame = long(4000, true);
    let header = NetHeader {
        checksum: frame.checksum,
        segmentation: frame.segmentation,
        checked: true,
        buffers: 0,
    };
    assert_eq!(
        bench.send(header.bytes(), &frame.bytes),
        Some(frame.clone())
    );
    let plain = Frame {
        bytes: frame.bytes[..60].to_vec(),
        ..Frame::default()
    };
    assert_eq!(bench.send([0; 12], &plain.bytes), Some(plain));
    assert_eq!(bench.net.dropped(), Dropped::default());
}

#[test]
fn what_was_not_agreed_on_is_dropped() {
    let frame = long(100, false);
    let header = |checksum, segmentation| NetHeader {
        checksum,
        segmentation,
        ..NetHeader::default()
    };
    let all = header(frame.checksum, frame.segmentation).bytes();
    let csum = header(frame.checksum, None).bytes();
    let mut ecn = all;
    ecn[1] |= 0x80;
    let mut udp = all;
    udp[1] = 3;
    let mut nothing = all;
    nothing[4..6].fill(0);
    let mut tiny = all;
    tiny[4..6].copy_from_slice(&47u16.to_le_bytes());
    let mut headers_beyond = all;
    headers_beyond[2..4].fill(0xff);
    let mut checksum_beyond = csum;
    checksum_beyond[8..10].copy_from_slice(&((154 - 34 - 1) as u16).to_le_bytes());
    let offload = CSUM | HOST_TSO4 | HOST_TSO6;
    for (features, header, passes) in [
        (offload, all, true),
        (offload, csum, true),
        (CSUM, csum, true),
        (CSUM, all, false),
        (0, csum, false),
        (offload, ecn, false),
        (offload | HOST_ECN, ecn, true),
        (offload, udp, false),
        (offload, nothing, false),
        (offload, tiny, false),
        (offload, headers_beyond, false),
        (offload, checksum_beyond, false),
        (offload, header(None, frame.segmentation).bytes(), false),
    ] {
        let mut bench = bench(features);
        let sent = bench.send(header, &frame.bytes);
        assert_eq!(sent.is_some(), passes, "{features:#x} {header:?}");
        assert_eq!(bench.net.dropped().malformed, u64::from(!passes));
    }
    let mut bench = bench(0);
    assert_eq!(bench.send([0; 12], &[]), None);
    assert_eq!(bench.send([0; 12], &[1; 13]), None);
    assert_eq!(bench.send([0; 12], &vec![1; LONG + 1]), None);
    assert!(bench.send([0; 12], &vec![1; LONG]).is_some());
    bench.net.set_link(false);
    assert_eq!(bench.send([0; 12], &[1; 60]), None);
    let dropped = bench.net.dropped();
    assert_eq!((dropped.malformed, dropped.refused), (3, 1));
}

const LONG: usize = crate::network::offload::LONG_FRAME_BYTES_MAX;

#[test]
fn a_port_that_is_not_ready_is_waited_for() {
    let mut bench = bench(0);
    bench.cable.slow.set(true);
    bench.memory.write(SENT, &[0; 100]).unwrap();
    bench.drivers[TRANSMIT].offer(&[(SENT, 100)], &[]).unwrap();
    bench.run();
    assert_eq!(bench.drivers[TRANSMIT].returned(), None);
    bench.cable.slow.set(false);
    bench.run();
    assert!(bench.drivers[TRANSMIT].returned().is_some());
    assert_eq!(bench.cable.sent.borrow().len(), 1);
}

#[test]
fn frames_arrive_as_the_driver_takes_them() {
    let offload = GUEST_CSUM | GUEST_TSO4 | GUEST_TSO6;
    // Features, whether it is marked, and how many frames are made of it.
    for (features, ecn, left_undone, count) in [
        (offload | MRG_RXBUF, false, true, 1),
        (offload | GUEST_ECN | MRG_RXBUF, true, true, 1),
        (offload | MRG_RXBUF, true, false, 3),
        (GUEST_CSUM | MRG_RXBUF, false, false, 3),
        (0, false, false, 3),
    ] {
        let mut bench = bench(features);
        let frame = long(4000, ecn);
        bench.cable.incoming.borrow_mut().push_back(frame.clone());
        bench.offer(32, 1600);
        bench.run();
        let frames = bench.reap(&mut 0, 1600);
        assert_eq!(frames.len(), count);
        if left_undone {
            let expected = NetHeader::of(&frame, features, 3).bytes();
            assert_eq!(frames, [(expected, frame.bytes)]);
            continue;
        }
        let mut payload = vec![];
        for (header, bytes) in frames {
            let valid = u8::from(features & GUEST_CSUM != 0) * 2;
            assert_eq!((header[0], header[1]), (valid, 0));
            payload.extend_from_slice(&bytes[54..]);
            let frame = Frame {
                bytes,
                ..Frame::default()
            };
            assert!(is_intact(&frame));
        }
        assert_eq!(payload, frame.bytes[54..]);
    }
}

#[test]
fn checksums_are_filled_in_for_a_driver_that_wants_them() {
    for features in [0, GUEST_CSUM] {
        let mut bench = bench(features);
        let frame = tcp(100);
        bench.cable.incoming.borrow_mut().push_back(frame.clone());
        bench.offer(1, 2048);
        bench.run();
        let frames = bench.reap(&mut 0, 2048);
        let bytes = frames[0].1.clone();
        assert_eq!(bytes == frame.bytes, features != 0);
        assert_eq!(frames[0].0[0], u8::from(features != 0));
        let complete = Frame {
            bytes,
            ..Frame::default()
        };
        assert_eq!(is_intact(&complete), features == 0);
    }
}

#[test]
fn frames_wait_for_buffers_but_not_for_ones_that_cannot_be() {
    let mut small = bench(0);
    let wire = |bytes: usize| {
        let mut frame = tcp(bytes - 54);
        crate::network::offload::complete(&mut frame).unwrap();
        frame
    };
    small
        .cable
        .incoming
        .borrow_mut()
        .extend([wire(1000), wire(100)]);
    small.run();
    assert_eq!(small.drivers[RECEIVE].returned(), None);
    small.offer(2, 512);
    small.run();
    assert_eq!(small.reap(&mut 0, 512).len(), 1);
    assert_eq!(small.net.dropped().too_long, 1);

    let mut merging = bench(MRG_RXBUF);
    merging.cable.incoming.borrow_mut().push_back(wire(1000));
    merging.offer(3, 256);
    merging.run();
    assert_eq!(merging.drivers[RECEIVE].returned(), None, "none is used up");
    let part = (RECEIVED + 3 * 256, 256);
    merging.drivers[RECEIVE].offer(&[], &[part]).unwrap();
    merging.run();
    assert_eq!(merging.reap(&mut 0, 256)[0].1, wire(1000).bytes);
}

#[test]
fn nobody_gets_frames_for_others_or_before_it_is_ready() {
    let mut bench = bench(u64::MAX);
    let to = |mac: [u8; 6]| Frame {
        bytes: [&mac[..], &[0; 54]].concat(),
        ..Frame::default()
    };
    let other = [2, 0, 0, 0, 0, 9];
    let arrivals = |bench: &mut Bench| {
        let frames = [to(MAC), to(other), to([0xff; 6]), to([1, 0, 0x5e, 0, 0, 1])];
        bench.cable.incoming.borrow_mut().extend(frames);
        bench.offer(4, 128);
        bench.run();
        core::iter::from_fn(|| bench.drivers[RECEIVE].returned()).count()
    };
    assert_eq!(arrivals(&mut bench), 4, "promiscuous at first");
    assert_eq!(bench.command(&[0, 0, 0]), 0);
    assert_eq!(arrivals(&mut bench), 3);
    let table = [&[1, 0, 1, 0, 0, 0][..], &other, &[0; 4]].concat();
    assert_eq!(bench.command(&table), 0);
    assert_eq!(arrivals(&mut bench), 4);
    assert_eq!(bench.command(&[1, 0, 0, 0, 0, 0, 0, 0, 0, 0]), 0);
    assert_eq!(bench.command(&[&[1, 1][..], &other].concat()), 0);
    assert_eq!(bench.net.mac(), other);
    assert_eq!(bench.function.read(3, 5, 1), 9);
    bench.net.set_link(false);
    assert_eq!(arrivals(&mut bench), 0);
    bench.net.set_link(true);
    negotiate(&bench.function, u64::MAX);
    assert_eq!(bench.net.mac(), MAC, "a reset undoes it");
    bench.cable.incoming.borrow_mut().push_back(to(MAC));
    bench.run();
    assert!(bench.cable.incoming.borrow().is_empty(), "dropped");
}

#[test]
fn commands_that_are_not_ones_are_refused() {
    let mut full = bench(u64::MAX);
    let refused: [&[u8]; 8] = [
        &[0],
        &[0, 0],
        &[0, 9, 0],
        &[1, 1, 1, 2, 3, 4, 5],
        &[1, 0, 2, 0, 0, 0, 1, 2, 3, 4, 5, 6],
        &[1, 0, 0xff, 0xff, 0xff, 0xff],
        &[4, 0, 1, 0],
        &[3, 1],
    ];
    for command in refused {
        assert_eq!(full.command(command), 1, "{command:?}");
    }
    assert_eq!(full.command(&[0, 1, 1]), 0);
    let mut bare = bench(!CTRL_RX & !GUEST_ANNOUNCE & !CTRL_MAC_ADDR);
    for command in [&[0, 0, 1][..], &[1, 1, 1, 2, 3, 4, 5, 6], &[3, 0]] {
        assert_eq!(bare.command(command), 1, "{command:?}");
    }
}

#[test]
fn a_guest_that_can_is_asked_to_announce_itself() {
    let mut able = bench(u64::MAX);
    able.net.announce(able.function.features());
    able.function.config_changed();
    assert_eq!(able.function.read(3, 6, 2), 3);
    let saved = able.function.save();
    assert_eq!(able.command(&[3, 0]), 0);
    assert!(able.function.take_changed());
    assert_eq!(able.function.read(3, 6, 2), 1);
    able.function.restore(&saved).unwrap();
    assert_eq!(able.function.read(3, 6, 2), 3);
    let unable = bench(0);
    unable.net.announce(unable.function.features());
    assert_eq!(unable.function.read(3, 6, 2), 1);
}

#[test]
fn features_need_each_other() {
    let table = [
        (0, true),
        (OFFERED, true),
        (GUEST_TSO4, false),
        (GUEST_CSUM | GUEST_TSO6, true),
        (GUEST_CSUM | GUEST_ECN, false),
        (HOST_TSO4, false),
        (HOST_TSO4 | CSUM, true),
        (HOST_ECN | CSUM, false),
        (CTRL_RX, false),
        (GUEST_ANNOUNCE, false),
    ];
    for (features, fits) in table {
        assert_eq!(config::consistent(features), fits, "{features:#x}");
    }
}
