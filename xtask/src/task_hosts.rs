//! `./x hosts`: two hosts joined by a link, in the terminal; `./x link` changes the link.

use crate::task_host::EmulatorName;
use crate::{bridge, shell, task_image, task_link};
use anyhow::Result;
use godwit_harness::{Control, Emulator, Host, HostConfig, Image, Link, Network};
use std::sync::Arc;

/// Name and address of each host.
pub(crate) const HOSTS: [(&str, &str); 2] = [("host-a", "10.77.0.1"), ("host-b", "10.77.0.2")];

/// The hosts to boot.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Which machine plays each host; give it twice for one of each
    #[arg(long, value_enum, default_values = ["qemu"])]
    emulator: Vec<EmulatorName>,
    /// Logical CPUs of each
    #[arg(long, default_value_t = 1)]
    cpus: u32,
    /// Memory of each in MiB
    #[arg(long, default_value_t = 512)]
    memory: u32,
}

/// Two running hosts and what joins them. Hosts first: they end before their link.
pub(crate) struct Pair {
    pub(crate) hosts: Vec<Host>,
    pub(crate) link: Arc<Link>,
    _control: Control,
}

pub(crate) fn run(args: Args) -> Result<()> {
    let emulators = EmulatorName::pair(&args.emulator)?;
    task_image::build_checked()?;
    let mut pair = boot(emulators, args.cpus, args.memory)?;
    shell::say("in another terminal, ./x link looks at and changes the link between them");
    bridge::run(&mut pair.hosts)
}

/// Boots both and opens the link's control socket; waits for nothing.
pub(crate) fn boot(emulators: [Emulator; 2], cpus: u32, memory_mib: u32) -> Result<Pair> {
    boot_with(
        emulators,
        |image| image,
        |config| config.cpus(cpus).memory_mib(memory_mib),
    )
}

/// As [`boot`], with images and machines dressed up, in turn.
pub(crate) fn boot_with(
    emulators: [Emulator; 2],
    mut dress: impl FnMut(Image) -> Image,
    mut equip: impl FnMut(HostConfig) -> HostConfig,
) -> Result<Pair> {
    let link = Arc::new(Link::start(&emulators.map(Into::into), 1)?);
    let control = Control::open(&task_link::control_socket()?, Arc::clone(&link))?;
    let mut hosts = Vec::new();
    for (index, (emulator, (name, address))) in emulators.into_iter().zip(HOSTS).enumerate() {
        shell::say(&format!(
            "booting {name} ({address}) on {}",
            emulator.name()
        ));
        let mut image = Image::new(name, name)?.address(&format!("{address}/24"));
        if emulator == Emulator::Bochs {
            // Its card receives nothing for others, and cannot say so.
            image = image.dom0_options("bridge=off");
        }
        let image = dress(image).write()?;
        let config = HostConfig::new(emulator, &image, &format!("hosts-{name}"))
            .mac_suffix(index as u8 + 1)
            .network(Network::Link(link.port(index)));
        hosts.push(Host::boot(&equip(config))?);
    }
    Ok(Pair {
        hosts,
        link,
        _control: control,
    })
}
