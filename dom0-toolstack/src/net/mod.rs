//! The network: find the card, start the bridge over it and dom0's own stack on that, serve.

mod bridge;
mod card;
mod e1000;
pub(crate) mod echo;
mod kept;
pub(crate) mod ping;
mod stack;
mod virtio;
pub(crate) mod virtio_pci;
mod virtqueue;

use crate::pci::{self, Function, Interrupt, KindName};
use alloc::boxed::Box;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use card::{Card, MTU_BYTES, SharedCard};
use core::net::{IpAddr, Ipv6Addr};
use embassy_executor::Spawner;
use embassy_net::dns::DnsQueryType;
use embassy_net::{
    ConfigV4, ConfigV6, DhcpConfig, Ipv4Cidr, Runner, Stack, StackResources, StaticConfigV4,
};
use embassy_time::{Duration, Timer, with_timeout};
use godwit_backends::network::nat::packet::Protocol;
use godwit_backends::network::networks::{self, Networks};
use godwit_toolstack::net::options::{HostOptions, Ipv4Source};
use godwit_toolstack::net::report::InterfaceReport;
use stack::StackDriver;

/// Sockets there can be: DHCP, DNS, ping, the echo service, and a reserve for what is to come.
const SOCKETS_MAX: usize = 32;
/// How long the first prompt waits for an address.
const UP_LIMIT: Duration = Duration::from_secs(5);
/// How often it looks.
const UP_LOOK: Duration = Duration::from_millis(10);
/// How often the watchdog looks for frames nobody was told of.
const WATCHDOG: Duration = Duration::from_millis(100);
/// The same once an interrupt was missed: then it is the watchdog that carries the traffic.
const WATCHDOG_ALERT: Duration = Duration::from_millis(10);

/// Ports on which dom0's own services are: not to be forwarded to guests.
const LISTENING: [(Protocol, u16); 2] = [
    (Protocol::Tcp, echo::PORT),
    (Protocol::Tcp, godwit_toolstack::hosts::MIGRATION_PORT),
];

/// dom0's own network, if there is a card, and those of guests, which there are in any case.
pub(crate) struct Net {
    pub(crate) host: Option<Network>,
    pub(crate) networks: Rc<Networks>,
}

/// The running network.
#[derive(Clone, Copy)]
pub(crate) struct Network {
    pub(crate) stack: Stack<'static>,
    card: &'static SharedCard,
    function: Function,
    interrupt: &'static Interrupt,
}

/// Starts the networks over the first card that works. Without one it is said why.
pub(crate) async fn start(options: &HostOptions, spawner: Spawner) -> Net {
    let card = first_card(options).await;
    let uplink = card.as_ref().map(|(shared, ..)| {
        let card = shared.card.borrow();
        networks::Card {
            mac: card.mac(),
            is_promiscuous: card.is_promiscuous(),
            takes: card.takes(),
        }
    });
    let clock = Rc::new(bridge::Time);
    let networks = Rc::new(Networks::new(clock, uplink, options.guests, &LISTENING));
    // Until the guests that are there already have their cards again.
    networks.gateway().with_router(|router| router.hold(true));
    match kept::restore(&networks.gateway()) {
        0 => {}
        count => log::info!("{count} connections of guests to the outside go on"),
    }
    spawner.spawn(kept::keep_task(networks.gateway()).expect("spawned once"));
    spawner.spawn(bridge::gateway_task(networks.gateway()).expect("spawned once"));
    for bridge in networks.bridges() {
        spawner.spawn(bridge::release_task(bridge).expect("the pool has as many"));
    }
    let host = card.map(|(card, interrupt, function)| {
        run(card, interrupt, function, options, &networks, spawner)
    });
    Net { host, networks }
}

type Opened = (&'static SharedCard, &'static Interrupt, Function);

async fn first_card(options: &HostOptions) -> Option<Opened> {
    for function in pci::functions() {
        let is_virtio = virtio::matches(&function);
        if !is_virtio && !e1000::matches(&function) {
            continue;
        }
        match open(&function, is_virtio, options.bridge).await {
            Ok((card, interrupt)) => return Some((card, interrupt, function)),
            Err(problem) => log::error!("network card {}: {problem}", function.address()),
        }
    }
    None
}

/// Starts one card; `promiscuous` if it can.
async fn open(
    function: &Function,
    is_virtio: bool,
    promiscuous: bool,
) -> Result<(&'static SharedCard, &'static Interrupt), String> {
    let interrupt = function
        .bind_interrupt()
        .map_err(|status| format!("bind its interrupt: {status}"))?;
    let card: Box<dyn Card> = if is_virtio {
        Box::new(virtio::VirtioNet::new(function, interrupt.kind(), promiscuous).await?)
    } else {
        Box::new(e1000::E1000::new(function, promiscuous).await?)
    };
    Ok((SharedCard::share(card), Box::leak(Box::new(interrupt))))
}

/// Starts the stack and its tasks.
fn run(
    card: &'static SharedCard,
    interrupt: &'static Interrupt,
    function: Function,
    options: &HostOptions,
    networks: &Rc<Networks>,
    spawner: Spawner,
) -> Network {
    let resources = Box::leak(Box::new(StackResources::<SOCKETS_MAX>::new()));
    let driver = StackDriver {
        card,
        port: networks.gateway(),
    };
    let (stack, runner) = embassy_net::new(driver, configuration(options), resources, seed(card));
    let uplink = networks.uplink().expect("there is a card");
    let mac = card.card.borrow().mac();
    spawner.spawn(bridge::pump_task(card, uplink).expect("spawned once"));
    spawner.spawn(bridge::address_task(stack, mac, networks.clone()).expect("spawned once"));
    spawner.spawn(runner_task(runner).expect("spawned once"));
    spawner.spawn(interrupt_task(card, interrupt).expect("spawned once"));
    spawner.spawn(watchdog_task(card).expect("spawned once"));
    for _ in 0..echo::CONNECTIONS_MAX {
        spawner.spawn(echo::serve(stack).expect("the pool has as many"));
    }
    Network {
        stack,
        card,
        function,
        interrupt,
    }
}

fn configuration(options: &HostOptions) -> embassy_net::Config {
    let mut config = embassy_net::Config::default();
    config.ipv6 = ConfigV6::Slaac;
    config.ipv4 = match options.ipv4 {
        Ipv4Source::None => ConfigV4::None,
        Ipv4Source::Static(prefix) => ConfigV4::Static(StaticConfigV4 {
            address: Ipv4Cidr::new(prefix.address, prefix.bits),
            gateway: options.gateway,
            dns_servers: heapless::Vec::new(),
        }),
        Ipv4Source::Dhcp => {
            let mut dhcp = DhcpConfig::default();
            dhcp.hostname = heapless::String::try_from(options.name.as_str()).ok();
            ConfigV4::Dhcp(dhcp)
        }
    };
    config
}

/// For initial sequence numbers; with the address in it, two hosts booted alike differ.
fn seed(card: &SharedCard) -> u64 {
    let [a, b, c, d, e, f] = card.card.borrow().mac().0;
    let mac = u64::from_le_bytes([a, b, c, d, e, f, 0, 0]);
    mac.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ crate::random::bits()
}

#[embassy_executor::task]
async fn runner_task(mut runner: Runner<'static, StackDriver>) -> ! {
    runner.run().await
}

#[embassy_executor::task]
async fn interrupt_task(shared: &'static SharedCard, interrupt: &'static Interrupt) -> ! {
    loop {
        interrupt.wait().await;
        let was_up = {
            let mut card = shared.card.borrow_mut();
            let was_up = card.is_link_up();
            card.counters().interrupts += 1;
            card.acknowledge();
            was_up
        };
        interrupt.served();
        shared.wake(was_up);
    }
}

/// Looks for a frame that lies there from one look to the next although nobody takes any and
/// no interrupt comes.
#[embassy_executor::task]
async fn watchdog_task(shared: &'static SharedCard) -> ! {
    let mut period = WATCHDOG;
    let mut before = None;
    loop {
        Timer::after(period).await;
        let mut card = shared.card.borrow_mut();
        if !card.is_frame_waiting() {
            before = None;
            continue;
        }
        let counters = *card.counters();
        let now = (counters.interrupts, counters.rx_frames);
        if before.replace(now) != Some(now) {
            continue;
        }
        card.counters().interrupts_missed += 1;
        let was_up = card.is_link_up();
        card.acknowledge();
        if counters.interrupts_missed == 0 {
            log::warn!(
                "{}: a frame waits and no interrupt came ({} interrupts, {} frames so far): polling",
                card.driver(),
                counters.interrupts,
                counters.rx_frames
            );
        }
        period = WATCHDOG_ALERT;
        drop(card);
        shared.wake(was_up);
    }
}

impl Network {
    /// Waits until the link is up and the address asked for is there, at most [`UP_LIMIT`].
    /// Returns the line that says how it stands.
    pub(crate) async fn up(&self, options: &HostOptions) -> String {
        let is_up = async {
            self.stack.wait_link_up().await;
            // Not `wait_config_up`: an IPv6 router would do for that.
            while options.ipv4 != Ipv4Source::None && self.stack.config_v4().is_none() {
                Timer::after(UP_LOOK).await;
            }
        };
        let in_time = with_timeout(UP_LIMIT, is_up).await.is_ok();
        let (mac, driver) = {
            let card = self.card.card.borrow();
            (card.mac(), card.driver())
        };
        let first = self.addresses().into_iter().next();
        let state = match first {
            Some((address, bits)) if in_time => format!("{address}/{bits}"),
            Some(_) | None if self.stack.is_link_up() => "no address yet".into(),
            Some(_) | None => "no carrier".into(),
        };
        format!("net: eth0 {mac} {driver} {state}\n")
    }

    /// The addresses: IPv4, then IPv6 from a router, then link-local.
    fn addresses(&self) -> Vec<(IpAddr, u8)> {
        let mut all = Vec::new();
        if let Some(config) = self.stack.config_v4() {
            let cidr = config.address;
            all.push((IpAddr::V4(cidr.address()), cidr.prefix_len()));
        }
        if let Some(config) = self.stack.config_v6() {
            let cidr = config.address;
            all.push((IpAddr::V6(cidr.address()), cidr.prefix_len()));
        }
        let local = IpAddr::V6(self.link_local());
        if all.iter().all(|(address, _)| *address != local) {
            all.push((local, 64));
        }
        all
    }

    /// `fe80::` and the modified EUI-64 of the hardware address (RFC 4291, 2.5.1).
    pub(crate) fn link_local(&self) -> Ipv6Addr {
        let [a, b, c, d, e, f] = self.card.card.borrow().mac().0;
        let pair = |high: u8, low: u8| u16::from_be_bytes([high, low]);
        Ipv6Addr::from([
            0xfe80,
            0,
            0,
            0,
            pair(a ^ 2, b),
            pair(c, 0xff),
            pair(0xfe, d),
            pair(e, f),
        ])
    }

    /// The address that an address or a host name stands for. The error is for the operator.
    pub(crate) async fn resolve(&self, host: &str) -> Result<IpAddr, String> {
        if let Ok(address) = host.parse() {
            return Ok(address);
        }
        for kind in [DnsQueryType::A, DnsQueryType::Aaaa] {
            let found = self.stack.dns_query(host, kind).await;
            if let Some(address) = found.ok().and_then(|all| all.first().copied()) {
                return Ok(address.into());
            }
        }
        Err(format!(
            "{host}: neither an address nor a name that DNS knows"
        ))
    }

    /// What `ip` shows.
    pub(crate) fn report(&self) -> InterfaceReport {
        let gateway = self.stack.config_v4().and_then(|config| config.gateway);
        let mut card = self.card.card.borrow_mut();
        let (driver, mac, link_up) = (card.driver(), card.mac(), card.is_link_up());
        let counters = *card.counters();
        drop(card);
        InterfaceReport {
            driver,
            device: format!(
                "{} {}",
                self.function.address(),
                KindName(self.interrupt.kind())
            ),
            mac,
            link_up,
            mtu_bytes: MTU_BYTES,
            addresses: self.addresses(),
            gateway: gateway.map(IpAddr::V4),
            counters,
        }
    }
}
