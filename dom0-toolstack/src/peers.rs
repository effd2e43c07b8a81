//! Other hosts: connections to and from them, and the tasks that move domains over them.

use crate::net::Network;
use crate::site::Tools;
use crate::tcp::TcpStream;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use core::net::IpAddr;
use embassy_executor::Spawner;
use embassy_sync::blocking_mutex::raw::NoopRawMutex;
use embassy_sync::signal::Signal;
use embassy_time::{Duration, Instant, Timer, with_timeout};
use godwit_abi::DomainId;
use godwit_migrate::link::{Link, LinkError};
use godwit_toolstack::hosts::MIGRATION_PORT;
use godwit_toolstack::hosts::link::{HANDSHAKE_LIMIT_US, HostLink};
use godwit_toolstack::operate::migrate::{ARRIVALS_MAX, Job, MoveOptions, Peers};

/// Connections that are heard at a time: domains that come, and who asks about some.
const LISTENERS: usize = ARRIVALS_MAX + 2;
/// Domains given away at a time, those that wait for an answer included.
pub(crate) const DEPARTURES_MAX: usize = 4;
/// After a connection that could not be taken.
const LISTEN_PAUSE: Duration = Duration::from_secs(1);
/// For so long a host that listens to nobody is tried again: all that listens there may be at work.
const BUSY_LIMIT: Duration = Duration::from_secs(3);
const BUSY_PAUSE: Duration = Duration::from_millis(500);
const HANDSHAKE_LIMIT: Duration = Duration::from_micros(HANDSHAKE_LIMIT_US);

impl Link for TcpStream {
    async fn read(&mut self, out: &mut [u8]) -> Result<usize, LinkError> {
        match self.receive(out).await {
            Ok(0) if !out.is_empty() => Err(LinkError::Closed),
            Ok(count) => Ok(count),
            Err(why) => Err(LinkError::Failed(why)),
        }
    }

    async fn write_all(&mut self, mut bytes: &[u8]) -> Result<(), LinkError> {
        while !bytes.is_empty() {
            match self.transmit(bytes).await {
                Ok(0) => return Err(LinkError::Closed),
                Ok(count) => bytes = &bytes[count..],
                Err(why) => return Err(LinkError::Failed(why)),
            }
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), LinkError> {
        self.drained().await.map_err(LinkError::Failed)
    }
}

/// The way to other hosts.
#[derive(Clone, Copy)]
pub(crate) struct Hosts {
    pub(crate) tools: &'static Tools,
    pub(crate) network: Option<Network>,
    /// Whoever connects in clear is heard.
    pub(crate) plaintext: bool,
}

impl Peers for Hosts {
    type Link = HostLink<TcpStream>;

    async fn dial(&self, peer: &str) -> Result<Self::Link, String> {
        let network = self.network.ok_or("this host has no network card")?;
        let target = self.tools.target(peer)?;
        let endpoint = target.endpoint();
        let address: IpAddr = network.resolve(&endpoint.address).await?;
        let begun = Instant::now();
        let stream = loop {
            match TcpStream::connect(network.stack, address, endpoint.port).await {
                Ok(stream) => break stream,
                Err(_) if begun.elapsed() < BUSY_LIMIT => Timer::after(BUSY_PAUSE).await,
                Err(why) => return Err(why),
            }
        };
        match with_timeout(HANDSHAKE_LIMIT, self.tools.greet(stream, &target)).await {
            Ok(greeted) => greeted,
            Err(_) => Err(format!("{endpoint}: it does not answer the greeting")),
        }
    }
}

/// Begins to take domains in, and to settle what an earlier dom0 has left open.
pub(crate) fn start(hosts: Hosts, spawner: Spawner) {
    let tools = hosts.tools;
    if let Some(network) = hosts.network {
        for _ in 0..LISTENERS {
            spawner.spawn(listen(hosts, network).expect("the pool has as many"));
        }
    }
    for (domain, name, peer) in tools.unsettled() {
        log::warn!("domain '{name}' was given up to {peer} when dom0 died: asking whose it is");
        match settle(hosts, domain) {
            Ok(task) => spawner.spawn(task),
            Err(_) => log::error!("domain '{name}' waits: too many moves are open"),
        }
    }
}

/// Takes in one domain after the other.
#[embassy_executor::task(pool_size = LISTENERS)]
async fn listen(hosts: Hosts, network: Network) -> ! {
    let tools = hosts.tools;
    loop {
        let (stream, from) = match TcpStream::accept(network.stack, MIGRATION_PORT).await {
            Ok(accepted) => accepted,
            Err(why) => {
                log::warn!("listen on port {MIGRATION_PORT}: {why}");
                Timer::after(LISTEN_PAUSE).await;
                continue;
            }
        };
        let admitted = with_timeout(HANDSHAKE_LIMIT, tools.admit(stream, &from, hosts.plaintext));
        let (link, peer) = match admitted.await {
            Ok(Ok(admitted)) => admitted,
            Ok(Err(error)) => {
                log::warn!("{from} is turned away: {error}");
                continue;
            }
            Err(_) => {
                log::warn!("{from} is turned away: it does not finish its greeting");
                continue;
            }
        };
        if let Err(error) = tools.receive(link, &peer).await {
            log::warn!("{peer}: {error}");
        }
    }
}

#[embassy_executor::task(pool_size = DEPARTURES_MAX)]
async fn settle(hosts: Hosts, domain: DomainId) {
    match hosts.tools.settle_move(&hosts, domain).await {
        Ok(told) => log::info!("domain {domain}: {told}"),
        Err(error) => log::info!("domain {domain} goes on here: {error}"),
    }
}

/// Tells that a job is over.
pub(crate) type Over = Rc<Signal<NoopRawMutex, ()>>;

/// Moves one domain.
#[embassy_executor::task(pool_size = DEPARTURES_MAX)]
pub(crate) async fn depart(
    hosts: Hosts,
    job: Rc<Job>,
    domain: DomainId,
    options: MoveOptions,
    over: Over,
) {
    // The job has the outcome.
    let _ = hosts.tools.migrate(&hosts, &job, domain, options).await;
    over.signal(());
}

/// What to say when no task is free.
pub(crate) fn too_many() -> String {
    format!("at most {DEPARTURES_MAX} domains leave at a time")
}
