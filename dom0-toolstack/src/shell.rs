//! The operator's shell on the serial console: the prompt, and what the toolstack leaves to be done
//! for a command.

mod dirty_log;
mod disks;
mod domains;
mod live;
mod moves;
mod typed;
mod waiting;

use crate::clock;
use crate::console::{self, Keyboard};
use crate::disk::{self, Disks};
use crate::executor::EventPort;
use crate::guest::{self, Guests};
use crate::hypercall::HYPERCALLS;
use crate::memory::HostMemory;
use crate::nbd::Exports;
use crate::net::{self, Net, Network, ping::ping};
use crate::peers::{self, Hosts};
use crate::site::{ThisHost, Tools};
use crate::start::Boot;
use crate::stores::HostStores;
use alloc::boxed::Box;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use embassy_executor::Spawner;
use embassy_futures::select::{Either, select};
use embassy_time::{Duration, Instant};
use godwit_abi::ids::EventSource;
use godwit_abi::{PowerAction, Status};
use godwit_backends::network::networks::Networks;
use godwit_toolstack::command::{Command, parse_line};
use godwit_toolstack::editor::{Editor, Event};
use godwit_toolstack::net::ping::PingStatistics;
use godwit_toolstack::operate::Toolstack;
use godwit_toolstack::run::{self, Effect};
use godwit_toolstack::table::pair;
use typed::{Typed, interrupts};

/// The shell.
struct Shell {
    typed: Typed,
    name: String,
    tools: &'static Tools,
    network: Option<Network>,
    networks: Rc<Networks>,
    disks: Disks,
    boot_tsc: u64,
    /// From the boot loader to the first prompt.
    boot_ticks: u64,
    guest_output: EventPort,
    hosts: Hosts,
    spawner: Spawner,
}

/// Brings up the network, then serves the operator for ever.
#[embassy_executor::task]
pub(crate) async fn run(boot: Boot, spawner: Spawner) {
    spawner.spawn(console::writer().expect("spawned once"));
    console::write(format!("dom0: Godwit {}\n", env!("CARGO_PKG_VERSION")).as_bytes());
    for problem in &boot.problems {
        log::warn!("{problem}");
    }
    let memory = HostMemory::new();
    let disks = disk::start(&memory, spawner).await;
    let Net {
        host: network,
        networks,
    } = net::start(&boot.options, spawner).await;
    let line = match &network {
        Some(network) => network.up(&boot.options).await,
        None => "net: no network card\n".into(),
    };
    console::write(line.as_bytes());
    let ports = Keyboard::new().and_then(|keyboard| {
        let bind = |source| HYPERCALLS.port_bind(source).and_then(EventPort::new);
        let guest_output = bind(EventSource::GuestConsole)?;
        Ok((keyboard, guest_output, bind(EventSource::DomainState)?))
    });
    let (keyboard, guest_output, domain_state) =
        ports.unwrap_or_else(|status| panic!("bind the console's events: {status}"));
    // There for as long as dom0 is: the shell and the task that attends to domains share it.
    let guests = Guests::new(memory, spawner);
    if let Err(status) = guest::start(guests, spawner) {
        panic!("bind the events of guests' devices: {status}");
    }
    let stores = HostStores::open(&disks, Exports::new(network, spawner)).await;
    let site = ThisHost::new(&boot.options.name, guests, stores, Rc::clone(&networks));
    let tools = Box::leak(Box::new(Toolstack::new(site, boot.modules)));
    match tools.recover().await {
        Ok(told) => told.iter().for_each(|what| log::info!("{what}")),
        Err(error) => log::error!("cannot look for domains: {error}"),
    }
    networks.gateway().with_router(|router| router.hold(false));
    for problem in tools.load_hosts().await {
        log::warn!("{problem}");
    }
    let hosts = Hosts {
        tools,
        network,
        plaintext: boot.options.plaintext,
        spawner,
    };
    peers::start(hosts, spawner);
    tools.look().await;
    let first = boot.restarts == 0;
    let attend = domains::attend(tools, domain_state, first);
    spawner.spawn(attend.expect("spawned once"));
    let mut shell = Shell {
        typed: Typed::new(keyboard),
        name: boot.options.name,
        tools,
        network,
        networks,
        disks,
        boot_tsc: boot.boot_tsc,
        boot_ticks: 0,
        guest_output,
        hosts,
        spawner,
    };
    shell.serve().await
}

impl Shell {
    async fn serve(&mut self) -> ! {
        let mut editor = Editor::new(&format!("{}# ", self.name));
        let mut out = Vec::new();
        self.show(&mut editor).await;
        self.boot_ticks = clock::tsc().saturating_sub(self.boot_tsc);
        loop {
            let heard = select(self.typed.next(), domains::NOTICE.wait()).await;
            out.clear();
            let Either::First(byte) = heard else {
                editor.hide(&mut out);
                console::write(&out);
                self.show(&mut editor).await;
                continue;
            };
            let tools = self.tools;
            let mut candidates = |before: &str| run::complete(tools, before);
            let event = editor.feed(byte, &mut candidates, &mut out);
            console::write(&out);
            let Some(event) = event else { continue };
            match event {
                Event::Line(line) => self.line(&line).await,
                Event::Interrupted | Event::EndOfInput => {}
            }
            self.show(&mut editor).await;
        }
    }

    /// Writes what there is to say about domains, then prompt and line.
    async fn show(&self, editor: &mut Editor) {
        for notice in domains::notices() {
            console::write(format!("{notice}\n").as_bytes());
        }
        let mut out = Vec::new();
        editor.show(&mut out);
        console::write(&out);
        console::flush().await;
    }

    /// Runs the commands of a line, until one is interrupted or fails.
    async fn line(&mut self, line: &str) {
        let commands = match parse_line(line) {
            Ok(commands) => commands,
            Err(error) => return console::write(format!("{error}\n").as_bytes()),
        };
        for command in commands {
            if !self.command(command).await {
                break;
            }
            console::flush().await;
        }
    }

    /// Runs a command. False: it failed or was interrupted.
    async fn command(&mut self, command: Command) -> bool {
        let is_info = command == Command::Info;
        let names_change = matches!(command, Command::Store(_));
        let effect = run::run(self.tools, &self.name, command).await;
        // A domain may have ended while the command worked on it.
        domains::look();
        if names_change {
            self.tools.look().await;
        }
        self.perform(effect, is_info).await
    }

    /// Does what only the shell can. False: it failed or was interrupted.
    async fn perform(&mut self, effect: Effect, is_info: bool) -> bool {
        match effect {
            Effect::Print(text) => self.print(text, is_info),
            Effect::Fail(text) => {
                console::write(text.as_bytes());
                false
            }
            Effect::Follow {
                domain,
                console,
                text,
            } => {
                console::write(text.as_bytes());
                self.follow(domain, console).await
            }
            Effect::AwaitEnd(domain) => self.await_end(domain).await,
            Effect::AwaitMemory(domain) => self.await_memory(domain).await,
            Effect::Migrate {
                moves,
                peer,
                options,
                json,
                evacuates,
            } => self.migrate(moves, &peer, options, json, evacuates).await,
            Effect::PlanMove {
                moves,
                peer,
                options,
            } => self.plan_move(&moves, &peer, &options).await,
            Effect::MoveDisks {
                domain,
                name,
                wanted,
                json,
            } => self.move_disks(domain, &name, wanted, json).await,
            Effect::MoveOffline { configs, peer } => self.move_offline(&configs, &peer).await,
            Effect::ResolveMove { domain, text, yes } => {
                self.resolve_move(&domain, &text, yes).await
            }
            Effect::Recall { peer } => self.recall(&peer).await,
            Effect::DirtyRate { domain, seconds } => self.dirty_rate(domain, seconds).await,
            Effect::DirtyLog { domain, options } => self.dirty_log(domain, options).await,
            Effect::Top {
                delay_s,
                iterations,
                batch,
            } => self.top(delay_s, iterations, batch).await,
            Effect::Ping {
                host,
                count,
                interval_ms,
            } => self.ping(&host, count, interval_ms).await,
            Effect::Ip => self.print(self.ip(), false),
            Effect::DiskList => self.print(self.disk_list(), false),
            Effect::DiskRead {
                disk,
                block,
                blocks,
            } => self.disk_read(&disk, block, blocks).await,
            Effect::Power(action) => power(action).await,
        }
    }

    fn print(&self, mut text: String, is_info: bool) -> bool {
        if is_info {
            pair(&mut text, "boot_ticks", &format!("{}", self.boot_ticks));
        }
        console::write(text.as_bytes());
        true
    }

    /// What `ip` says.
    fn ip(&self) -> String {
        let mut text = match &self.network {
            Some(network) => network.report().text(),
            None => "no network card\n".into(),
        };
        text += &self.networks.text();
        text
    }

    async fn ping(&mut self, host: &str, count: Option<u32>, interval_ms: u32) -> bool {
        let Some(network) = &self.network else {
            console::write(b"ping: there is no network card\n");
            return false;
        };
        let target = match select(network.resolve(host), self.typed.until(interrupts)).await {
            Either::First(Ok(target)) => target,
            Either::First(Err(problem)) => {
                console::write(format!("ping: {problem}\n").as_bytes());
                return false;
            }
            Either::Second(()) => return false,
        };
        let interval = Duration::from_millis(interval_ms.into());
        let begun = Instant::now();
        let mut statistics = PingStatistics::default();
        let pings = ping(network, target, count, interval, &mut statistics);
        let finished = match select(pings, self.typed.until(interrupts)).await {
            Either::First(Ok(())) => true,
            Either::First(Err(problem)) => {
                console::write(format!("ping: {problem}\n").as_bytes());
                false
            }
            Either::Second(()) => {
                console::write(b"^C\n");
                false
            }
        };
        let summary = statistics.summary(target, begun.elapsed().as_micros());
        console::write(summary.as_bytes());
        finished && statistics.received > 0
    }
}

/// Restarts or switches off, once everything written is out. Returns only when it cannot.
async fn power(action: PowerAction) -> bool {
    console::flush().await;
    let status = match HYPERCALLS.host_power(action) {
        Ok(()) => Status::NotSupported,
        Err(status) => status,
    };
    console::write(format!("the machine cannot do it: {status}\n").as_bytes());
    false
}
