//! A network card (virtio 1.2, 5.1) at any [`FramePort`].
//!
//! Frames are copied once each way. Checksums and segmentation that the sender left undone stay
//! undone from guest to guest; what a driver has not agreed to take is done here
//! ([`crate::network::offload`]). A frame for which the guest has no buffers waits here, the next
//! ones in the port's queue, which drops what is too many.

mod config;
mod control;
mod header;
mod receive;
#[cfg(test)]
mod tests;
mod transmit;

pub use header::{HEADER_BYTES, HeaderError, NetHeader};

use crate::frame::{Frame, FramePort};
use crate::virtio::{CONFIG_BYTES_MAX, Device, Identity, Serving, VirtioFunction, append_record};
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::future::poll_fn;
use core::task::Poll;
use godwit_records::{DecodeError, Record, VirtioNetState};

const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;
const CONTROL: usize = 2;
const QUEUE_SIZES: &[u16] = &[256, 256, 64];
/// Ethernet controller.
const PCI_CLASS: u32 = 0x02_00_00;
const DEVICE_ID: u16 = 1;
/// Frames of a direction before other tasks have their turn.
const FRAMES_MAX: usize = 64;

/// What was dropped, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// From the guest: headers that contradict the frame or what was agreed on.
    pub malformed: u64,
    /// From the guest: the port did not take it.
    pub refused: u64,
    /// To the guest: larger than its buffers.
    pub too_long: u64,
    /// To the guest: could not be made into what it takes.
    pub unfit: u64,
    /// To the guest: for another address, or while there was no driver or no link.
    pub unwanted: u64,
}

/// The device.
pub struct Net {
    port: Rc<dyn FramePort>,
    mac: [u8; 6],
    mtu: u16,
    link: Cell<bool>,
    state: RefCell<VirtioNetState>,
    /// Frames as the guest takes them, that wait for buffers.
    waiting: RefCell<VecDeque<Frame>>,
    dropped: Cell<Dropped>,
}

impl Net {
    /// A card with address `mac` whose packets have up to `mtu` bytes.
    pub fn new(port: Rc<dyn FramePort>, mac: [u8; 6], mtu: u16) -> Rc<Net> {
        let net = Net {
            port,
            mac,
            mtu,
            link: Cell::new(true),
            state: RefCell::new(VirtioNetState::reset()),
            waiting: RefCell::new(VecDeque::new()),
            dropped: Cell::new(Dropped::default()),
        };
        net.reset();
        Rc::new(net)
    }

    /// Plugs the cable in or out; then tell the guest ([`VirtioFunction::config_changed`]).
    pub fn set_link(&self, up: bool) {
        self.link.set(up);
    }

    /// Asks the guest to announce itself where it is now, after a migration; then tell it. Guests
    /// that did not agree to the feature are announced by others.
    pub fn announce(&self, features: u64) {
        self.state.borrow_mut().announce = features & config::GUEST_ANNOUNCE != 0;
    }

    /// Its address, as the driver may have changed it.
    pub fn mac(&self) -> [u8; 6] {
        self.state.borrow().mac
    }

    /// What was dropped here.
    pub fn dropped(&self) -> Dropped {
        self.dropped.get()
    }

    fn drop_one(&self, reason: impl FnOnce(&mut Dropped) -> &mut u64) {
        let mut dropped = self.dropped.get();
        *reason(&mut dropped) += 1;
        self.dropped.set(dropped);
    }
}

impl Device for Net {
    fn identity(&self) -> Identity {
        Identity {
            device_id: DEVICE_ID,
            pci_class: PCI_CLASS,
        }
    }

    fn features(&self) -> u64 {
        config::OFFERED
    }

    fn consistent(&self, features: u64) -> bool {
        config::consistent(features)
    }

    fn queue_sizes(&self) -> &'static [u16] {
        QUEUE_SIZES
    }

    fn read_config(&self, _features: u64, out: &mut [u8; CONFIG_BYTES_MAX]) {
        let state = self.state.borrow();
        config::write(state.mac, self.link.get(), state.announce, self.mtu, out);
    }

    /// Nothing there can be written since virtio 1.0 (5.1.4.2).
    fn write_config(&self, _features: u64, _offset: usize, _bytes: &[u8]) {}

    fn reset(&self) {
        *self.state.borrow_mut() = VirtioNetState {
            mac: self.mac,
            ..VirtioNetState::reset()
        };
        self.waiting.borrow_mut().clear();
    }

    fn save(&self, out: &mut Vec<u8>) {
        append_record(&*self.state.borrow(), out);
    }

    fn restore(&self, bytes: &[u8]) -> Result<(), DecodeError> {
        *self.state.borrow_mut() = VirtioNetState::decode(bytes)?;
        Ok(())
    }

    fn serve<'a>(&'a self, function: &'a VirtioFunction) -> Serving<'a> {
        Box::pin(poll_fn(move |context| {
            self.poll_control(function, context);
            self.poll_transmit(function, context);
            self.poll_receive(function, context);
            Poll::Pending
        }))
    }
}
