//! Other hosts: connections to and from them, and the tasks that move domains over them.

use crate::net::Network;
use crate::site::Tools;
use crate::tcp::TcpStream;
use alloc::boxed::Box;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::future::{Future, poll_fn};
use core::net::IpAddr;
use core::pin::Pin;
use core::task::Poll;
use embassy_executor::Spawner;
use embassy_sync::blocking_mutex::raw::NoopRawMutex;
use embassy_sync::signal::Signal;
use embassy_time::{Duration, Instant, Timer, with_timeout};
use godwit_abi::DomainId;
use godwit_migrate::link::{Link, LinkError};
use godwit_migrate::pipe::pipe;
use godwit_toolstack::hosts::MIGRATION_PORT;
use godwit_toolstack::hosts::link::{HANDSHAKE_LIMIT_US, HostLink, PLAINTEXT_PREFIX};
use godwit_toolstack::operate::block_migrate::BlockMove;
use godwit_toolstack::operate::migrate::{
    ARRIVALS_MAX, Direction, GivenUp, Job, LOCALHOST, MoveOptions, OPEN_MAX, Peers, Wanted,
    unwatched,
};
use godwit_toolstack::site::Site;

/// Connections that are heard at a time: domains that come, and who asks about some.
const LISTENERS: usize = ARRIVALS_MAX + 2;
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
    pub(crate) spawner: Spawner,
}

impl Peers for Hosts {
    type Link = HostLink<TcpStream>;

    async fn dial(&self, peer: &str) -> Result<Self::Link, String> {
        if peer == LOCALHOST {
            return self.dial_self();
        }
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

impl Hosts {
    /// A connection to this host itself, served by a task of its own.
    fn dial_self(&self) -> Result<HostLink<TcpStream>, String> {
        let (mine, other) = pipe();
        let tools = self.tools;
        let serving = Box::pin(async move {
            if let Err(error) = tools
                .receive_local(HostLink::<TcpStream>::Local(other))
                .await
            {
                log::warn!("{LOCALHOST}: {error}");
            }
        });
        let task = serve_self(serving);
        let task =
            task.map_err(|_| format!("{LOCALHOST}: too many domains are copied at a time"))?;
        self.spawner.spawn(task);
        Ok(HostLink::Local(mine))
    }
}

/// Serves one connection of this host to itself.
#[embassy_executor::task(pool_size = LISTENERS)]
async fn serve_self(serving: Work) {
    serving.await;
}

/// Begins to take domains in, and to settle what an earlier dom0 has left open.
pub(crate) fn start(hosts: Hosts, spawner: Spawner) {
    let tools = hosts.tools;
    if let Some(network) = hosts.network {
        for _ in 0..LISTENERS {
            spawner.spawn(listen(hosts, network, spawner).expect("the pool has as many"));
        }
    }
    ask_for_orphans(hosts, spawner);
    let unsettled = tools.unsettled().into_iter();
    let settling = unsettled.map(|(domain, name, peer)| -> Work {
        log::warn!("domain '{name}' was given up to {peer} when dom0 died: asking whose it is");
        Box::pin(settle(hosts, domain))
    });
    let settling: Vec<Work> = settling.collect();
    // However many there are, each is worked on.
    spawner.spawn(settle_all(settling).expect("dom0 starts once"));
    press_claims(hosts, spawner);
}

/// Begins to tell other hosts of domains that were claimed against their word.
pub(crate) fn press_claims(hosts: Hosts, spawner: Spawner) {
    for claim in hosts.tools.jobs.take_claims() {
        let name = claim.of.name.clone();
        let pressing = Box::pin(async move {
            let told = hosts.tools.press_claim(&hosts, &claim).await;
            log::warn!("{told}");
        });
        match run(pressing) {
            Ok(task) => spawner.spawn(task),
            Err(_) => log::error!("domain '{name}': too many moves are open to tell of its claim"),
        }
    }
}

/// Something that is worked on beside other things.
type Work = Pin<Box<dyn Future<Output = ()>>>;

/// Works on all at a time.
#[embassy_executor::task]
async fn settle_all(mut all: Vec<Work>) {
    poll_fn(|context| {
        all.retain_mut(|one| one.as_mut().poll(context).is_pending());
        match all.is_empty() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    })
    .await;
}

/// Begins to ask what became of domains that an earlier boot gave up.
fn ask_for_orphans(hosts: Hosts, spawner: Spawner) {
    for orphan in hosts.tools.orphans() {
        let name = orphan.name.clone();
        match settle_orphan(hosts, orphan) {
            Ok(task) => spawner.spawn(task),
            Err(_) => log::error!("domain '{name}' waits: too many moves are open"),
        }
    }
}

/// Takes in one domain after the other.
#[embassy_executor::task(pool_size = LISTENERS)]
async fn listen(hosts: Hosts, network: Network, spawner: Spawner) -> ! {
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
        // The way back is as the way here.
        let back = match &link {
            HostLink::Plain(_) | HostLink::Unheard(_) => format!("{PLAINTEXT_PREFIX}{peer}"),
            HostLink::Secure(_) | HostLink::Local(_) | HostLink::Over(_) => peer.clone(),
        };
        let received = tools.receive(link, &peer).await;
        send_back(hosts, spawner, &back);
        if let Err(error) = received {
            log::warn!("{peer}: {error}");
        }
    }
}

async fn settle(hosts: Hosts, domain: DomainId) {
    match hosts.tools.settle_move(&hosts, domain).await {
        Ok(told) => log::info!("domain {domain}: {told}"),
        Err(error) => log::info!("domain {domain} goes on here: {error}"),
    }
}

/// Asks what became of a domain that an earlier boot gave up.
#[embassy_executor::task(pool_size = OPEN_MAX)]
async fn settle_orphan(hosts: Hosts, orphan: GivenUp) {
    let told = hosts.tools.settle_orphan(&hosts, &orphan).await;
    log::warn!("{told}");
}

/// Tells that a job is over.
pub(crate) type Over = Rc<Signal<NoopRawMutex, ()>>;

/// Moves one domain, by a task of its own. When there is none, the job says so.
pub(crate) fn depart(
    hosts: Hosts,
    spawner: Spawner,
    job: &Rc<Job>,
    domain: DomainId,
    options: MoveOptions,
    over: &Over,
) {
    let (mine, over) = (Rc::clone(job), Rc::clone(over));
    let moving = Box::pin(async move {
        // The job has the outcome.
        let _ = hosts.tools.migrate(&hosts, &mine, domain, options).await;
        over.signal(());
    });
    match run(moving) {
        Ok(task) => spawner.spawn(task),
        Err(_) => job.give_up(format!("at most {OPEN_MAX} moves are open at a time")),
    }
}

/// Moves disks of one domain, by a task of its own.
pub(crate) fn carry_disks(
    hosts: Hosts,
    spawner: Spawner,
    job: &Rc<Job>,
    domain: DomainId,
    wanted: BlockMove,
    over: &Over,
) {
    let (mine, over) = (Rc::clone(job), Rc::clone(over));
    let moving = Box::pin(async move {
        // The job has the outcome.
        let _ = hosts.tools.block_migrate(&mine, domain, &wanted).await;
        over.signal(());
    });
    match run(moving) {
        Ok(task) => spawner.spawn(task),
        Err(_) => job.give_up(format!("at most {OPEN_MAX} moves are open at a time")),
    }
}

#[embassy_executor::task(pool_size = OPEN_MAX)]
async fn run(moving: Work) {
    moving.await;
}

/// Sends back what the host that was just served wants.
fn send_back(hosts: Hosts, spawner: Spawner, peer: &str) {
    let tools = hosts.tools;
    for Wanted { domain, name } in tools.jobs.take_wanted() {
        let now_us = tools.site.now_us();
        let job = tools.jobs.begin(Direction::Out, &name, peer, now_us);
        log::info!("domain '{name}' goes back to {peer}");
        depart(hosts, spawner, &job, domain, unwatched(), &Over::default());
    }
}
