//! The tasks that keep bridges and gateway going.

use super::card::SharedCard;
use alloc::rc::Rc;
use core::future::poll_fn;
use embassy_net::Stack;
use embassy_time::{Duration, Instant, Timer};
use godwit_backends::network::Clock;
use godwit_backends::network::bridge::{Bridge, BridgePort};
use godwit_backends::network::compose::Station;
use godwit_backends::network::gateway::Gateway;
use godwit_backends::network::mac::MacAddress;
use godwit_backends::network::nat::router::Outside;
use godwit_backends::network::networks::Networks;

/// The longest time between looks at ports that are over their rate: another may have come over its
/// own meanwhile.
const RELEASE_LOOK: Duration = Duration::from_millis(2);
/// How often the router is told dom0's address.
const ADDRESS_LOOK: Duration = Duration::from_secs(1);

/// dom0's clock.
pub(super) struct Time;

impl Clock for Time {
    fn now_us(&self) -> u64 {
        Instant::now().as_micros()
    }
}

/// Moves frames between card and bridge.
#[embassy_executor::task]
pub(super) async fn pump_task(card: &'static SharedCard, port: Rc<BridgePort>) {
    match card.pump(port).await {}
}

/// Moves frames through the gateway.
#[embassy_executor::task]
pub(super) async fn gateway_task(gateway: Rc<Gateway>) {
    match poll_fn(|context| gateway.poll_pump(context)).await {}
}

/// Sends on what ports over their rate have waiting.
#[embassy_executor::task(pool_size = 2)]
pub(super) async fn release_task(bridge: Bridge) -> ! {
    loop {
        match bridge.release() {
            Some(due_us) => {
                let look = Instant::now() + RELEASE_LOOK;
                Timer::at(look.min(Instant::from_micros(due_us))).await;
            }
            None => poll_fn(|context| bridge.poll_held(context)).await,
        }
    }
}

/// Tells the router dom0's address, which DHCP may change.
#[embassy_executor::task]
pub(super) async fn address_task(
    stack: Stack<'static>,
    mac: MacAddress,
    networks: Rc<Networks>,
) -> ! {
    loop {
        let config = stack.config_v4();
        let outside = config.as_ref().map(|config| Outside {
            host: Station {
                mac,
                address: config.address.address(),
            },
            bits: config.address.prefix_len(),
            gateway: config.gateway,
        });
        let dns = config.map(|config| config.dns_servers).unwrap_or_default();
        networks.set_outside(outside, &dns);
        Timer::after(ADDRESS_LOOK).await;
    }
}
