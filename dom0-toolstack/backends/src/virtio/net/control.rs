//! The control queue (5.1.6.5): filters, the card's address, the announcement's end.

use super::config::{CTRL_MAC_ADDR, CTRL_RX, GUEST_ANNOUNCE};
use super::{CONTROL, Net};
use crate::virtio::VirtioFunction;
use crate::virtio::queue::Chain;
use core::task::Context;

/// Commands before other tasks have their turn.
const COMMANDS_MAX: usize = 16;
/// Most addresses of a table.
const ADDRESSES_MAX: u32 = 1024;

/// Class and command.
const PROMISCUOUS: [u8; 2] = [0, 0];
const ALL_MULTICAST: [u8; 2] = [0, 1];
const ADDRESS_TABLE: [u8; 2] = [1, 0];
const ADDRESS: [u8; 2] = [1, 1];
const ANNOUNCED: [u8; 2] = [3, 0];

const OK: u8 = 0;
const ERROR: u8 = 1;

impl Net {
    pub(super) fn poll_control(&self, function: &VirtioFunction, context: &mut Context<'_>) {
        function.park(CONTROL, context.waker());
        for _ in 0..COMMANDS_MAX {
            let Some(chain) = function.take(CONTROL) else {
                function.publish(CONTROL);
                if function.arm(CONTROL) > 0 {
                    continue;
                }
                return;
            };
            let done = self.command(function.features(), &chain);
            if done.is_some() {
                function.note_changed();
            }
            let answer = if done.is_some() { OK } else { ERROR };
            let written = chain.write(0, &[answer]) as u32;
            function.complete(CONTROL, chain, written);
        }
        function.publish(CONTROL);
        context.waker().wake_by_ref();
    }

    /// `None`: it is not one that was agreed on, or not well formed.
    fn command(&self, features: u64, chain: &Chain) -> Option<()> {
        let mut at = 0;
        let command = take::<2>(chain, &mut at)?;
        let feature = match command {
            PROMISCUOUS | ALL_MULTICAST | ADDRESS_TABLE => CTRL_RX,
            ADDRESS => CTRL_MAC_ADDR,
            ANNOUNCED => GUEST_ANNOUNCE,
            _unknown => return None,
        };
        if features & feature == 0 {
            return None;
        }
        match command {
            PROMISCUOUS => {
                let [on] = take(chain, &mut at)?;
                self.state.borrow_mut().promiscuous = on != 0;
            }
            // Frames for groups are delivered always, which is allowed (5.1.6.5.1).
            ALL_MULTICAST => {
                take::<1>(chain, &mut at)?;
            }
            ADDRESS_TABLE => {
                let unicast = skip_addresses(chain, &mut at)?;
                skip_addresses(chain, &mut at)?;
                self.state.borrow_mut().more_addresses = unicast > 0;
            }
            ADDRESS => self.state.borrow_mut().mac = take(chain, &mut at)?,
            ANNOUNCED => self.state.borrow_mut().announce = false,
            _checked_above => return None,
        }
        Some(())
    }
}

/// The next bytes of a command.
fn take<const N: usize>(chain: &Chain, at: &mut u64) -> Option<[u8; N]> {
    let mut out = [0; N];
    let read = chain.read(*at, &mut out);
    *at += read as u64;
    (read == N).then_some(out)
}

/// Passes over a table of addresses. Returns how many there are.
fn skip_addresses(chain: &Chain, at: &mut u64) -> Option<u32> {
    let count = u32::from_le_bytes(take(chain, at)?);
    if count > ADDRESSES_MAX {
        return None;
    }
    *at += 6 * u64::from(count);
    (*at <= chain.readable_bytes()).then_some(count)
}
