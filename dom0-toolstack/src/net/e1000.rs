//! Intel 82540EM, 82545EM and 82574L network controllers, with legacy descriptors (Intel PCI/PCI-X
//! Family of Gigabit Ethernet Controllers Software Developer's Manual; 82574 Datasheet 7.1, 10.2).
//!
//! Descriptors are shared with the card: the second word of each is written last when we give it
//! away, and read first, and once, when we look whether it is back. Only a write to a tail register
//! gives descriptors away.

use super::card::Card;
use crate::dma::{BUFFER_BYTES, DmaBuffer, SharedMemory};
use crate::mmio::Mmio;
use crate::pci::Function;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::{Ordering, fence};
use embassy_time::{Duration, Instant, Timer};
use godwit_backends::frame::Frame;
use godwit_backends::network::offload::Takes;
use godwit_toolstack::net::address::MacAddress;
use godwit_toolstack::net::e1000_ring::{
    DESCRIPTOR_BYTES, RING_DESCRIPTORS, Received, Ring, transmit_word, transmitted,
};
use godwit_toolstack::net::report::LinkCounters;

const INTEL: u16 = 0x8086;
const E1000_82540EM: u16 = 0x100e;
const E1000_82545EM: u16 = 0x100f;
const E1000_82574L: u16 = 0x10d3;

/// Registers, by their names in the manual (13.2).
mod register {
    pub(super) const CTRL: usize = 0x0000;
    pub(super) const STATUS: usize = 0x0008;
    pub(super) const EERD: usize = 0x0014;
    pub(super) const FCAL: usize = 0x0028;
    pub(super) const FCAH: usize = 0x002c;
    pub(super) const FCT: usize = 0x0030;
    pub(super) const ICR: usize = 0x00c0;
    pub(super) const IMS: usize = 0x00d0;
    pub(super) const IMC: usize = 0x00d8;
    pub(super) const RCTL: usize = 0x0100;
    pub(super) const FCTTV: usize = 0x0170;
    pub(super) const TCTL: usize = 0x0400;
    pub(super) const TIPG: usize = 0x0410;
    pub(super) const RDBAL: usize = 0x2800;
    pub(super) const TDBAL: usize = 0x3800;
    /// From the base address registers of a ring: high half, length, head, tail.
    pub(super) const RING_HIGH: usize = 0x04;
    pub(super) const RING_LENGTH: usize = 0x08;
    pub(super) const RING_HEAD: usize = 0x10;
    pub(super) const RING_TAIL: usize = 0x18;
    pub(super) const TXDCTL: usize = 0x3828;
    pub(super) const MTA: usize = 0x5200;
    pub(super) const RAL0: usize = 0x5400;
    pub(super) const RAH0: usize = 0x5404;
}
use register::*;

const MTA_WORDS: usize = 128;

const CTRL_AUTO_SPEED: u32 = 1 << 5;
const CTRL_LINK_UP: u32 = 1 << 6;
const CTRL_RESET: u32 = 1 << 26;
/// Link reset, invert loss of signal, VLAN mode, PHY reset: all off.
const CTRL_CLEAR: u32 = 1 << 3 | 1 << 7 | 1 << 30 | 1 << 31;
const STATUS_LINK_UP: u32 = 1 << 1;
const RAH_VALID: u32 = 1 << 31;

/// Enabled, all multicast, broadcast, 2048 byte buffers, without the CRC.
const RCTL_RUN: u32 = 1 << 1 | 1 << 4 | 1 << 15 | 1 << 26;
/// Unicast and multicast frames for anybody.
const RCTL_PROMISCUOUS: u32 = 1 << 3 | 1 << 4;
/// Enabled, short packets padded, collision threshold and distance of full duplex (13.4.33).
const TCTL_RUN: u32 = 1 << 1 | 1 << 3 | 0x0f << 4 | 0x40 << 12;
/// Gaps between frames, for copper (13.4.34).
const TIPG_COPPER: u32 = 10 | 8 << 10 | 6 << 20;
/// 82574: bit 22 must be set (datasheet 10.2.6.10); thresholds counted in descriptors.
const TXDCTL_82574: u32 = 1 << 22 | 1 << 24;

const INTERRUPT_TX_DONE: u32 = 1 << 0;
const INTERRUPT_LINK: u32 = 1 << 2;
/// Link change, few receive descriptors, receive overrun, frame received.
const INTERRUPTS: u32 = INTERRUPT_LINK | 1 << 4 | 1 << 6 | 1 << 7;
const INTERRUPTS_ALL: u32 = u32::MAX;

/// After a reset the card reads its EEPROM (14.3); it says when only on later models.
const RESET_PAUSE: Duration = Duration::from_millis(5);
const RESET_LIMIT: Duration = Duration::from_millis(100);
/// A word of the EEPROM takes some 40 us.
const EEPROM_LIMIT: Duration = Duration::from_millis(10);

/// A descriptor ring in memory and what is attached to its descriptors.
struct RingMemory {
    ring: Ring,
    memory: SharedMemory,
    /// Buffers of the descriptors that are the card's.
    buffers: Vec<Option<DmaBuffer>>,
}

impl RingMemory {
    fn new() -> Self {
        Self {
            ring: Ring::new(RING_DESCRIPTORS),
            memory: SharedMemory::new(usize::from(RING_DESCRIPTORS) * DESCRIPTOR_BYTES),
            buffers: (0..RING_DESCRIPTORS).map(|_| None).collect(),
        }
    }

    /// Tells the card where the ring is; it is empty.
    fn attach(&self, registers: Mmio, base: usize) {
        let address = self.memory.address();
        registers.write(base, address as u32);
        registers.write(base + RING_HIGH, (address >> 32) as u32);
        let bytes = usize::from(RING_DESCRIPTORS) * DESCRIPTOR_BYTES;
        registers.write(base + RING_LENGTH, bytes as u32);
        registers.write(base + RING_HEAD, 0u32);
        registers.write(base + RING_TAIL, 0u32);
    }

    /// Puts a buffer into the next descriptor, with `word` as its second half. Returns the new tail.
    fn fill(&mut self, buffer: DmaBuffer, word: u64) -> u16 {
        let index = usize::from(self.ring.next_fill().expect("the caller saw room"));
        let offset = index * DESCRIPTOR_BYTES;
        self.memory.write(offset, buffer.address());
        self.memory.write(offset + 8, word);
        self.buffers[index] = Some(buffer);
        // The descriptor is in memory before the tail register says so.
        fence(Ordering::SeqCst);
        self.ring.fill()
    }

    /// The second half of the oldest descriptor of the card's.
    fn oldest(&self) -> Option<u64> {
        let index = usize::from(self.ring.next_clean()?);
        Some(self.memory.read(index * DESCRIPTOR_BYTES + 8))
    }

    /// Takes back the oldest descriptor, which the card is done with.
    fn clean(&mut self) -> DmaBuffer {
        // What the card wrote before it said "done" is read after that.
        fence(Ordering::Acquire);
        let index = usize::from(self.ring.next_clean().expect("the caller saw it"));
        self.ring.clean();
        let buffer = self.buffers[index].take();
        buffer.expect("a descriptor of the card's has a buffer")
    }
}

/// A card.
pub(crate) struct E1000 {
    registers: Mmio,
    mac: MacAddress,
    link_up: bool,
    rx: RingMemory,
    tx: RingMemory,
    /// Buffers to send from.
    spare: Vec<DmaBuffer>,
    /// Whether the card tells when a frame has been sent.
    tx_interrupt: bool,
    promiscuous: bool,
    /// Tails that the card has not been told yet.
    rx_tail: Option<u16>,
    tx_tail: Option<u16>,
    counters: LinkCounters,
}

/// Whether a function is a card of these.
pub(crate) fn matches(function: &Function) -> bool {
    let models = [E1000_82540EM, E1000_82545EM, E1000_82574L];
    function.info.vendor == INTEL && models.contains(&function.info.device)
}

impl E1000 {
    /// Resets and starts a card. The error says what it does not do.
    pub(crate) async fn new(function: &Function, promiscuous: bool) -> Result<Self, String> {
        function
            .decode()
            .map_err(|status| format!("enable: {status}"))?;
        let registers = function.registers(0).ok_or("BAR 0 is not there")?;
        if registers.bytes() < RAH0 + 4 {
            return Err(format!("BAR 0 has only {} bytes", registers.bytes()));
        }
        reset(registers).await?;
        function
            .enable()
            .map_err(|status| format!("enable: {status}"))?;
        let mac = station_address(registers, function.info.device).await?;
        let tx_buffers = usize::from(RING_DESCRIPTORS) - 1;
        let mut card = Self {
            registers,
            mac,
            link_up: false,
            rx: RingMemory::new(),
            tx: RingMemory::new(),
            spare: DmaBuffer::allocate(tx_buffers),
            tx_interrupt: false,
            promiscuous,
            rx_tail: None,
            tx_tail: None,
            counters: LinkCounters::default(),
        };
        card.start(function.info.device);
        Ok(card)
    }

    /// Initialization as in 14.4 to 14.5.
    fn start(&mut self, model: u16) {
        let registers = self.registers;
        let control = registers.read::<u32>(CTRL);
        registers.write(
            CTRL,
            (control & !CTRL_CLEAR) | CTRL_LINK_UP | CTRL_AUTO_SPEED,
        );
        for flow_control in [FCAL, FCAH, FCT, FCTTV] {
            registers.write(flow_control, 0u32);
        }
        for word in 0..MTA_WORDS {
            registers.write(MTA + 4 * word, 0u32);
        }
        let [a, b, c, d, e, f] = self.mac.0;
        registers.write(RAL0, u32::from_le_bytes([a, b, c, d]));
        registers.write(RAH0, u32::from_le_bytes([e, f, 0, 0]) | RAH_VALID);

        self.rx.attach(registers, RDBAL);
        let buffers = DmaBuffer::allocate(usize::from(RING_DESCRIPTORS) - 1);
        let mut tail = 0;
        for buffer in buffers {
            tail = self.rx.fill(buffer, 0);
        }
        let everything = if self.promiscuous {
            RCTL_PROMISCUOUS
        } else {
            0
        };
        registers.write(RCTL, RCTL_RUN | everything);
        registers.write(RDBAL + RING_TAIL, u32::from(tail));

        self.tx.attach(registers, TDBAL);
        if model == E1000_82574L {
            registers.write(TXDCTL, TXDCTL_82574);
        }
        registers.write(TIPG, TIPG_COPPER);
        registers.write(TCTL, TCTL_RUN);

        self.look_at_link();
        registers.write(IMS, INTERRUPTS);
    }

    fn look_at_link(&mut self) {
        self.link_up = self.registers.read::<u32>(STATUS) & STATUS_LINK_UP != 0;
    }

    /// Takes back the buffers of frames that have been sent.
    fn reclaim(&mut self) {
        while self.tx.oldest().is_some_and(transmitted) {
            let buffer = self.tx.clean();
            self.spare.push(buffer);
        }
    }

    /// Gives a buffer back, for another frame.
    fn recycle(&mut self, buffer: DmaBuffer) {
        self.rx_tail = Some(self.rx.fill(buffer, 0));
    }
}

impl Card for E1000 {
    fn driver(&self) -> &'static str {
        "e1000"
    }

    fn mac(&self) -> MacAddress {
        self.mac
    }

    fn is_link_up(&self) -> bool {
        self.link_up
    }

    fn is_promiscuous(&self) -> bool {
        self.promiscuous
    }

    fn takes(&self) -> Takes {
        Takes::NOTHING
    }

    fn receive(&mut self) -> Option<Frame> {
        // Bounded by the ring: a useless descriptor goes back behind all others.
        for _ in 0..RING_DESCRIPTORS {
            match Received::decode(self.rx.oldest()?, BUFFER_BYTES as u16) {
                Received::NotYet => return None,
                Received::Frame(length) => {
                    self.counters.rx_frames += 1;
                    self.counters.rx_bytes += u64::from(length);
                    let buffer = self.rx.clean();
                    let bytes = buffer[..usize::from(length)].to_vec();
                    self.recycle(buffer);
                    return Some(Frame {
                        bytes,
                        ..Frame::default()
                    });
                }
                Received::Useless => {
                    self.counters.rx_dropped += 1;
                    let buffer = self.rx.clean();
                    self.recycle(buffer);
                }
            }
        }
        None
    }

    fn is_frame_waiting(&self) -> bool {
        self.rx.oldest().is_some_and(Received::is_done)
    }

    fn can_transmit(&mut self) -> bool {
        self.reclaim();
        if self.spare.is_empty() && !self.tx_interrupt {
            self.tx_interrupt = true;
            self.registers.write(IMS, INTERRUPT_TX_DONE);
            // A frame sent between the two lines above has caused no interrupt.
            self.reclaim();
        }
        !self.spare.is_empty()
    }

    fn transmit(&mut self, frame: &Frame) {
        let mut buffer = self.spare.pop().expect("asked can_transmit before");
        let length = frame.bytes.len();
        buffer[..length].copy_from_slice(&frame.bytes);
        self.counters.tx_frames += 1;
        self.counters.tx_bytes += length as u64;
        self.tx_tail = Some(self.tx.fill(buffer, transmit_word(length as u16)));
    }

    fn flush(&mut self) {
        if let Some(tail) = self.rx_tail.take() {
            self.registers.write(RDBAL + RING_TAIL, u32::from(tail));
        }
        if let Some(tail) = self.tx_tail.take() {
            self.registers.write(TDBAL + RING_TAIL, u32::from(tail));
        }
    }

    fn acknowledge(&mut self) {
        // Reading clears (13.4.17), which lets go of the interrupt line.
        let causes = self.registers.read::<u32>(ICR);
        if causes & INTERRUPT_TX_DONE != 0 && self.tx_interrupt {
            self.tx_interrupt = false;
            self.registers.write(IMC, INTERRUPT_TX_DONE);
        }
        if causes & INTERRUPT_LINK != 0 {
            self.look_at_link();
        }
    }

    fn counters(&mut self) -> &mut LinkCounters {
        &mut self.counters
    }
}

/// A reset as in 14.3, with interrupts off.
async fn reset(registers: Mmio) -> Result<(), String> {
    registers.write(IMC, INTERRUPTS_ALL);
    registers.write(RCTL, 0u32);
    registers.write(TCTL, 0u32);
    let control = registers.read::<u32>(CTRL);
    registers.write(CTRL, control | CTRL_RESET);
    Timer::after(RESET_PAUSE).await;
    let limit = Instant::now() + RESET_LIMIT;
    while registers.read::<u32>(CTRL) & CTRL_RESET != 0 {
        if Instant::now() > limit {
            return Err("it does not come out of its reset".into());
        }
        Timer::after(RESET_PAUSE).await;
    }
    registers.write(IMC, INTERRUPTS_ALL);
    registers.read::<u32>(ICR);
    Ok(())
}

/// The address in the receive address registers, or where the card did not load them, in the EEPROM
/// (5.6.1).
async fn station_address(registers: Mmio, model: u16) -> Result<MacAddress, String> {
    let low = registers.read::<u32>(RAL0).to_le_bytes();
    let high = registers.read::<u32>(RAH0);
    let [e, f, ..] = high.to_le_bytes();
    let loaded = MacAddress([low[0], low[1], low[2], low[3], e, f]);
    if high & RAH_VALID != 0 && loaded.is_station() {
        return Ok(loaded);
    }
    if model == E1000_82574L {
        return Err(format!("its receive address is {loaded}"));
    }
    let mut stored = [0; 6];
    for (word, pair) in stored.chunks_exact_mut(2).enumerate() {
        pair.copy_from_slice(&eeprom_word(registers, word as u32).await?.to_le_bytes());
    }
    let stored = MacAddress(stored);
    if stored.is_station() {
        Ok(stored)
    } else {
        Err(format!("its EEPROM has the address {stored}"))
    }
}

async fn eeprom_word(registers: Mmio, word: u32) -> Result<u16, String> {
    const START: u32 = 1 << 0;
    const DONE: u32 = 1 << 4;
    registers.write(EERD, word << 8 | START);
    let limit = Instant::now() + EEPROM_LIMIT;
    loop {
        let answer = registers.read::<u32>(EERD);
        if answer & DONE != 0 {
            return Ok((answer >> 16) as u16);
        }
        if Instant::now() > limit {
            return Err(format!("its EEPROM does not answer for word {word}"));
        }
        Timer::after_micros(50).await;
    }
}
