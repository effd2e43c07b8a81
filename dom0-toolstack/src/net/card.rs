//! A network card, and the task that moves frames between it and the bridge.
//!
//! One [`Card`] is shared by three tasks of the one executor: the pump, the interrupt task, which
//! acknowledges, and the watchdog. Each borrows it for a moment and never across an `await`.

use crate::dma::BUFFER_BYTES;
use alloc::boxed::Box;
use alloc::rc::Rc;
use core::cell::RefCell;
use core::convert::Infallible;
use core::future::poll_fn;
use core::task::{Context, Poll};
use embassy_sync::waitqueue::WakerRegistration;
use godwit_backends::frame::{Frame, FramePort};
use godwit_backends::network::bridge::BridgePort;
use godwit_backends::network::offload::Takes;
use godwit_toolstack::net::address::MacAddress;
use godwit_toolstack::net::report::LinkCounters;

pub(crate) use godwit_backends::network::headers::FRAME_BYTES_MAX;
/// The largest IP packet.
pub(crate) const MTU_BYTES: usize = FRAME_BYTES_MAX - 14;
/// Frames moved each way before other tasks have their turn.
const TURN_FRAMES: usize = 64;

/// What the drivers have in common.
pub(crate) trait Card {
    /// Name of the driver.
    fn driver(&self) -> &'static str;
    /// Station address.
    fn mac(&self) -> MacAddress;
    /// Whether there is a carrier, as of the last [`Self::acknowledge`].
    fn is_link_up(&self) -> bool;
    /// Whether it passes on what is addressed to others.
    fn is_promiscuous(&self) -> bool;
    /// What it can do of what senders leave out.
    fn takes(&self) -> Takes;
    /// Takes the next received frame. `None`: there is none, and an interrupt comes with the next.
    fn receive(&mut self) -> Option<Frame>;
    /// Whether the card has received something that [`Self::receive`] has not taken.
    fn is_frame_waiting(&self) -> bool;
    /// Whether a frame can be sent. If not, an interrupt comes when one can.
    fn can_transmit(&mut self) -> bool;
    /// Sends a frame as [`Self::takes`] has it. To be called only after [`Self::can_transmit`] was
    /// true. The card need not look before [`Self::flush`].
    fn transmit(&mut self, frame: &Frame);
    /// Tells the card of buffers given to it, for sending and receiving, since the last time.
    fn flush(&mut self);
    /// Acknowledges an interrupt and looks at the carrier.
    fn acknowledge(&mut self);
    /// Counts what happens.
    fn counters(&mut self) -> &mut LinkCounters;
}

/// A card and who waits for it.
pub(crate) struct SharedCard {
    /// The card.
    pub(crate) card: RefCell<Box<dyn Card>>,
    pump: RefCell<WakerRegistration>,
    /// The stack, which wants to know about the carrier.
    stack: RefCell<WakerRegistration>,
}

impl SharedCard {
    /// Shares a card, for ever.
    pub(crate) fn share(card: Box<dyn Card>) -> &'static Self {
        Box::leak(Box::new(Self {
            card: RefCell::new(card),
            pump: RefCell::new(WakerRegistration::new()),
            stack: RefCell::new(WakerRegistration::new()),
        }))
    }

    /// Wakes the pump, and the stack if the carrier was `was_up` and is so no more.
    pub(crate) fn wake(&self, was_up: bool) {
        self.pump.borrow_mut().wake();
        if self.card.borrow().is_link_up() != was_up {
            self.stack.borrow_mut().wake();
        }
    }

    /// Whether there is a carrier; the task is woken when that changes.
    pub(crate) fn link(&self, context: &mut Context<'_>) -> bool {
        self.stack.borrow_mut().register(context.waker());
        self.card.borrow().is_link_up()
    }

    /// Moves frames between the card and its port of the bridge for ever.
    pub(crate) async fn pump(&self, port: Rc<BridgePort>) -> Infallible {
        poll_fn(|context| self.poll_pump(&port, context)).await
    }

    fn poll_pump(&self, port: &BridgePort, context: &mut Context<'_>) -> Poll<Infallible> {
        self.pump.borrow_mut().register(context.waker());
        let card = &mut **self.card.borrow_mut();
        let mut received = 0;
        while received < TURN_FRAMES
            && let Some(frame) = card.receive()
        {
            port.send(frame);
            received += 1;
        }
        if !card.is_link_up() {
            port.discard();
        }
        let mut sent = 0;
        while sent < TURN_FRAMES && card.can_transmit() {
            let Poll::Ready(frame) = port.poll_receive(context) else {
                break;
            };
            card.transmit(&frame);
            sent += 1;
        }
        card.flush();
        if received == TURN_FRAMES || sent == TURN_FRAMES {
            context.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

const _: () = assert!(FRAME_BYTES_MAX <= BUFFER_BYTES);
