//! Saving a function, restoring it, and the pause around both.

use super::function::{Broken, VirtioFunction};
use super::registers::{FEATURES_OK, ISR_QUEUE};
use crate::virtio::append_record;
use alloc::vec::Vec;
use core::fmt;
use core::future::poll_fn;
use core::task::Poll;
use godwit_records::{DecodeError, HEADER_BYTES, Header, Record, VirtioState};

/// Why a saved state is not one of this function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestoreError {
    /// It does not decode.
    Record(DecodeError),
    /// It is of another type of device.
    OtherDevice(u16),
    /// The driver uses features that are not offered here: these; or, if there are none, features
    /// that do not go together.
    Features(u64),
    /// A queue or vector that the function does not have.
    Queue(usize),
    /// A queue is where none can be.
    Setup(Broken),
}

impl fmt::Display for RestoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RestoreError::Record(error) => write!(f, "virtio state: {error}"),
            RestoreError::OtherDevice(id) => write!(f, "the state is of virtio device type {id}"),
            RestoreError::Features(features) => write!(
                f,
                "the guest uses virtio features {features:#x} that are not offered here"
            ),
            RestoreError::Queue(queue) => write!(f, "there is no such queue {queue}"),
            RestoreError::Setup(Broken { queue, error }) => write!(f, "queue {queue}: {error}"),
        }
    }
}

impl VirtioFunction {
    /// The state as records. Together with guest memory it is all there is, once
    /// [quiesced](VirtioFunction::quiesce); after a crash it still is, because what was in flight
    /// is found in the rings.
    pub fn save(&self) -> Vec<u8> {
        let mut out = Vec::new();
        append_record(&self.registers.borrow().state, &mut out);
        self.device.save(&mut out);
        out
    }

    /// Takes a saved state. The function is paused then: [`resume`](VirtioFunction::resume) it.
    /// After an error the function must not be used.
    pub fn restore(&self, bytes: &[u8]) -> Result<(), RestoreError> {
        let header = Header::peek(bytes).map_or(HEADER_BYTES as u64, Header::record_bytes);
        let length = usize::try_from(header).map_or(bytes.len(), |n| n.min(bytes.len()));
        let (common, own) = bytes.split_at(length);
        let state = VirtioState::decode(common).map_err(RestoreError::Record)?;
        self.check(&state)?;
        self.device.restore(own).map_err(RestoreError::Record)?;
        self.registers.borrow_mut().state = state;
        self.paused.set(true);
        let running = self.registers.borrow().running();
        for index in 0..self.queues.len() {
            let queue = if running {
                self.open(index, true)
            } else {
                Ok(None)
            };
            let broken = |error| {
                RestoreError::Setup(Broken {
                    queue: index,
                    error,
                })
            };
            *self.queues[index].borrow_mut() = queue.map_err(broken)?;
        }
        Ok(())
    }

    fn check(&self, state: &VirtioState) -> Result<(), RestoreError> {
        let registers = self.registers.borrow();
        if state.device_id != registers.state.device_id {
            return Err(RestoreError::OtherDevice(state.device_id));
        }
        // What a driver writes before both sides agree is its own affair.
        let agreed = if state.status & FEATURES_OK != 0 {
            state.driver_features
        } else {
            0
        };
        let strange = agreed & !registers.offered;
        if strange != 0 || !self.device.consistent(agreed) {
            return Err(RestoreError::Features(strange));
        }
        match registers.misfit(state) {
            Some(queue) => Err(RestoreError::Queue(queue)),
            None => Ok(()),
        }
    }

    /// Takes no new requests and waits until all that were taken are completed.
    pub async fn quiesce(&self) {
        self.paused.set(true);
        poll_fn(|context| {
            if self.idle() {
                return Poll::Ready(());
            }
            self.quiescing.set(Some(context.waker().clone()));
            Poll::Pending
        })
        .await;
        (0..self.queues.len()).for_each(|queue| self.publish(queue));
    }

    /// Goes on after [`quiesce`](VirtioFunction::quiesce) or [`restore`](VirtioFunction::restore).
    /// The driver gets an interrupt of each queue, as one may have been lost.
    pub fn resume(&self) {
        self.paused.set(false);
        for index in 0..self.queues.len() {
            if self.queues[index].borrow().is_some() {
                self.interrupt(self.vector(index), ISR_QUEUE);
            }
        }
        self.wake_all();
    }
}
