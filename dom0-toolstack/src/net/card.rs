//! A network card and its driver's side of the network stack.
//!
//! One [`Card`] is shared by three tasks of the one executor: the stack, which moves frames, the
//! interrupt task, which acknowledges, and the watchdog. Each borrows it for a moment and never
//! across an `await`.

use crate::dma::{BUFFER_BYTES, DmaBuffer};
use alloc::boxed::Box;
use core::cell::RefCell;
use core::ops::Range;
use core::task::Context;
use embassy_net_driver::{Capabilities, Driver, HardwareAddress, LinkState, RxToken, TxToken};
use embassy_sync::waitqueue::WakerRegistration;
use godwit_toolstack::net::address::MacAddress;
use godwit_toolstack::net::report::LinkCounters;

/// The largest Ethernet frame, without its checksum.
pub(crate) const FRAME_BYTES_MAX: usize = 1514;
/// The largest IP packet.
pub(crate) const MTU_BYTES: usize = FRAME_BYTES_MAX - 14;

/// A received frame, in the buffer the card wrote it to.
pub(crate) struct Frame {
    /// The buffer.
    pub(crate) buffer: DmaBuffer,
    /// Where in it the frame is.
    pub(crate) range: Range<usize>,
}

/// What the drivers have in common.
pub(crate) trait Card {
    /// Name of the driver.
    fn driver(&self) -> &'static str;
    /// Station address.
    fn mac(&self) -> MacAddress;
    /// Whether there is a carrier, as of the last [`Self::acknowledge`].
    fn is_link_up(&self) -> bool;
    /// Takes the next received frame. `None`: there is none, and an interrupt comes with the next.
    fn receive(&mut self) -> Option<Frame>;
    /// Gives a buffer back, for another frame.
    fn recycle(&mut self, buffer: DmaBuffer);
    /// Whether the card has received something that [`Self::receive`] has not taken.
    fn is_frame_waiting(&self) -> bool;
    /// Whether a frame can be sent. If not, an interrupt comes when one can.
    fn can_transmit(&mut self) -> bool;
    /// Sends a frame of `length` bytes, at most [`FRAME_BYTES_MAX`], that `fill` writes. To be
    /// called only after [`Self::can_transmit`] was true.
    fn transmit(&mut self, length: usize, fill: &mut dyn FnMut(&mut [u8]));
    /// Acknowledges an interrupt and looks at the carrier.
    fn acknowledge(&mut self);
    /// Counts what happens.
    fn counters(&mut self) -> &mut LinkCounters;
}

/// A card and who waits for it.
pub(crate) struct SharedCard {
    /// The card.
    pub(crate) card: RefCell<Box<dyn Card>>,
    waker: RefCell<WakerRegistration>,
}

impl SharedCard {
    /// Shares a card, for ever.
    pub(crate) fn share(card: Box<dyn Card>) -> &'static Self {
        Box::leak(Box::new(Self {
            card: RefCell::new(card),
            waker: RefCell::new(WakerRegistration::new()),
        }))
    }

    /// Wakes the stack.
    pub(crate) fn wake(&self) {
        self.waker.borrow_mut().wake();
    }

    fn wake_later(&self, context: &Context<'_>) {
        self.waker.borrow_mut().register(context.waker());
    }
}

/// The card as the network stack wants it.
pub(crate) struct StackDriver(pub(crate) &'static SharedCard);

impl Driver for StackDriver {
    type RxToken<'a> = Receiving;
    type TxToken<'a> = Sending;

    fn receive(&mut self, context: &mut Context<'_>) -> Option<(Receiving, Sending)> {
        let mut card = self.0.card.borrow_mut();
        // Without room for an answer the frame stays where it is.
        if card.can_transmit()
            && let Some(frame) = card.receive()
        {
            let receiving = Receiving {
                frame: Some(frame),
                card: self.0,
            };
            return Some((receiving, Sending(self.0)));
        }
        self.0.wake_later(context);
        None
    }

    fn transmit(&mut self, context: &mut Context<'_>) -> Option<Sending> {
        if self.0.card.borrow_mut().can_transmit() {
            return Some(Sending(self.0));
        }
        self.0.wake_later(context);
        None
    }

    fn link_state(&mut self, context: &mut Context<'_>) -> LinkState {
        self.0.wake_later(context);
        if self.0.card.borrow().is_link_up() {
            LinkState::Up
        } else {
            LinkState::Down
        }
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::default();
        capabilities.max_transmission_unit = FRAME_BYTES_MAX;
        capabilities
    }

    fn hardware_address(&self) -> HardwareAddress {
        HardwareAddress::Ethernet(self.0.card.borrow().mac().0)
    }
}

/// A received frame on its way into the stack.
pub(crate) struct Receiving {
    frame: Option<Frame>,
    card: &'static SharedCard,
}

impl RxToken for Receiving {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(mut self, f: F) -> R {
        // The card is not borrowed meanwhile: the stack may send an answer from within `f`.
        let frame = self.frame.as_mut();
        f(frame.map_or(&mut [], |frame| &mut frame.buffer[frame.range.clone()]))
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        if let Some(frame) = self.frame.take() {
            self.card.card.borrow_mut().recycle(frame.buffer);
        }
    }
}

/// Leave to send one frame.
pub(crate) struct Sending(&'static SharedCard);

impl TxToken for Sending {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        assert!(length <= FRAME_BYTES_MAX, "a frame of {length} bytes");
        let (mut f, mut result) = (Some(f), None);
        self.0.card.borrow_mut().transmit(length, &mut |bytes| {
            if let Some(f) = f.take() {
                result = Some(f(bytes));
            }
        });
        result.expect("a card fills every frame it is told to send")
    }
}

const _: () = assert!(FRAME_BYTES_MAX <= BUFFER_BYTES);
