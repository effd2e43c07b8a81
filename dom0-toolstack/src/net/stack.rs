//! dom0's own network stack on its port of the bridge, by the gateway.
//!
//! The gateway has checked TCP and UDP checksums of what it gives, and sees to those of what it is
//! given, so the stack leaves them out.

use super::card::{FRAME_BYTES_MAX, SharedCard};
use alloc::rc::Rc;
use alloc::vec;
use core::task::{Context, Poll};
use embassy_net_driver::{
    Capabilities, Checksum, Driver, HardwareAddress, LinkState, RxToken, TxToken,
};
use godwit_backends::frame::{Frame, FramePort};
use godwit_backends::network::gateway::Gateway;

/// The driver for the stack.
pub(crate) struct StackDriver {
    pub(crate) card: &'static SharedCard,
    pub(crate) port: Rc<Gateway>,
}

impl Driver for StackDriver {
    type RxToken<'a> = Receiving;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, context: &mut Context<'_>) -> Option<(Receiving, Sending<'_>)> {
        // Without room for an answer the frame stays where it is.
        if self.port.poll_ready(context).is_pending() {
            return None;
        }
        match self.port.poll_receive(context) {
            Poll::Ready(frame) => Some((Receiving(frame), Sending(&self.port))),
            Poll::Pending => None,
        }
    }

    fn transmit(&mut self, context: &mut Context<'_>) -> Option<Sending<'_>> {
        match self.port.poll_ready(context) {
            Poll::Ready(()) => Some(Sending(&self.port)),
            Poll::Pending => None,
        }
    }

    fn link_state(&mut self, context: &mut Context<'_>) -> LinkState {
        if self.card.link(context) {
            LinkState::Up
        } else {
            LinkState::Down
        }
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::default();
        capabilities.max_transmission_unit = FRAME_BYTES_MAX;
        capabilities.checksum.tcp = Checksum::None;
        capabilities.checksum.udp = Checksum::None;
        capabilities
    }

    fn hardware_address(&self) -> HardwareAddress {
        HardwareAddress::Ethernet(self.card.card.borrow().mac().0)
    }
}

/// A received frame on its way into the stack.
pub(crate) struct Receiving(Frame);

impl RxToken for Receiving {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(mut self, f: F) -> R {
        f(&mut self.0.bytes)
    }
}

/// Leave to send one frame.
pub(crate) struct Sending<'a>(&'a Gateway);

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        let mut bytes = vec![0; length];
        let result = f(&mut bytes);
        // Dropped ones are counted at the port, and lost like any on the way.
        self.0.send(Frame {
            bytes,
            ..Frame::default()
        });
        result
    }
}
