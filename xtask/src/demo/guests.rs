//! The demo's Linux guests: Debian on a volume of host-a, reached over TCP by a guest of host-b while
//! dom0 of host-a dies under them, then saved and restored.

use super::{heading, show};
use crate::shell;
use crate::task_hosts::{self, HOSTS, Pair};
use anyhow::{Context, Result, bail, ensure};
use godwit_harness::{
    DiskConfig, DiskInterface, Emulator, Flavour, GuestKernel, Host, Ramdisk, Store, StoreImage,
    VolumeContents, root, root_disk,
};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Memory of each host, MiB: a guest of 384 and its boot modules twice.
const HOST_MEMORY_MIB: u32 = 1024;
/// The port of host-a that leads to the guest.
const PORT: u16 = 5001;
/// From `xl create` to a ready guest, and for anything else it is waited for, on QEMU.
const LIMIT: Duration = Duration::from_secs(180);
const LOOK_PERIOD: Duration = Duration::from_millis(500);
const MIB: u64 = 1 << 20;
/// Bytes that the guest of host-b sends at a time.
const SENT_BYTES: u64 = 2_000_000;
/// Blocks of 4 KiB that the guest of host-a writes and checks at a time.
const BLOCKS: u64 = 500;

/// How much guest the emulator can take.
struct Size {
    /// Debian's root file system; else the ramdisk alone.
    debian: bool,
    memory_mib: u32,
}

fn size(emulator: Emulator) -> Size {
    match emulator {
        Emulator::Bochs => Size {
            debian: false,
            memory_mib: 128,
        },
        Emulator::Qemu | Emulator::Kvm => Size {
            debian: true,
            memory_mib: 384,
        },
    }
}

/// Boots the two hosts, host-a with a store.
pub(super) fn boot(emulators: [Emulator; 2]) -> Result<(Pair, Store)> {
    shell::say("fetching Debian's kernel and packages for the guests (kept in out/guest)");
    let kernel = GuestKernel::fetch(Flavour::Cloud)?;
    let ramdisk = Ramdisk::new(&kernel)?.write("demo")?;
    let (path, store) = store(emulators[0])?;
    let mut disk = Some(path);
    let pair = task_hosts::boot_with(
        emulators,
        |image| {
            image
                .module("linux", kernel.image())
                .module("initrd", &ramdisk)
        },
        |config| {
            let config = config.memory_mib(HOST_MEMORY_MIB);
            match disk.take() {
                Some(path) => config.disk(DiskConfig::new(path, interface(emulators[0]))),
                None => config,
            }
        },
    )?;
    Ok((pair, store))
}

fn interface(emulator: Emulator) -> DiskInterface {
    match emulator {
        Emulator::Bochs => DiskInterface::Ide,
        Emulator::Qemu | Emulator::Kvm => DiskInterface::VirtioBlk,
    }
}

fn store(emulator: Emulator) -> Result<(PathBuf, Store)> {
    let path = root()?.join("out/images/demo-store.img");
    let size = size(emulator);
    let mut image = StoreImage::new(&path)
        .label("local")
        .volume("data", VolumeContents::Zeroes(16 * MIB))
        .volume(
            "saved",
            VolumeContents::Zeroes(u64::from(size.memory_mib + 64) * MIB),
        )
        .file("guests/debian.cfg", configuration(&size).as_bytes());
    if size.debian {
        shell::say("making Debian's root file system (debootstrap; kept in out/guest)");
        image = image.volume("root", VolumeContents::File(root_disk()?));
    }
    Ok((path, image.write()?))
}

fn configuration(size: &Size) -> String {
    let (root, disk, load) = match size.debian {
        true => (
            "godwit.root=/dev/vda ",
            "\"local/root,raw,xvda,rw\", ",
            "/dev/vdb",
        ),
        false => ("", "", "/dev/vda"),
    };
    let vdev = if size.debian { "xvdb" } else { "xvda" };
    let rounds = format!(
        "r=0;while,guest,disk,path={load},blocks={BLOCKS},round=$r,mode=both;do,\
         echo,ROUND,$r,verified;r=$((r+1));done"
    );
    format!(
        "name = \"debian\"\n\
         kernel = \"module:linux\"\n\
         ramdisk = \"module:initrd\"\n\
         memory = {memory}\n\
         disk = [{disk}\"local/data,raw,{vdev},rw\"]\n\
         vif = [\"type=nat,forward=tcp:{PORT}:{PORT}\"]\n\
         extra = \"console=ttyS0 quiet {root}godwit.net=dhcp \
         godwit.run=guest,tcp-serve,port={PORT},& godwit.run={rounds}\"\n",
        memory = size.memory_mib
    )
}

/// What there is to see.
pub(super) fn run(pair: &mut Pair, store: Store) -> Result<()> {
    let [host, other] = &mut pair.hosts[..] else {
        bail!("the demo has two hosts");
    };
    heading("A store of volumes, and a Debian guest on it");
    show(host, "xl volume-list")?;
    show(host, "cat guests/debian.cfg")?;
    show(host, "xl create guests/debian.cfg")?;
    let said = console_until(host, "debian", "ROUND 0 verified")?;
    print_last(&said, 12);
    show(host, "xl block-list debian; xl network-list debian")?;
    heading("A guest of the other host sends it a checked stream over TCP, again and again");
    show(other, &sender())?;
    let said = console_until(other, "sender", "TCP sent")?;
    print_last(&said, 4);
    heading("dom0 of host-a dies in the middle of this, and is built anew");
    let before = rounds(host)?;
    let said = host.command("xl debug-keys D")?;
    ensure!(said.contains("built anew"), "dom0 did not die:\n{said}");
    said.lines()
        .filter(|line| line.contains("dom0"))
        .for_each(|line| println!("    {line}"));
    show(
        host,
        "xl list; xl block-list debian; xl network-list debian",
    )?;
    let said = console_until(host, "debian", &format!("ROUND {} verified", before + 3))?;
    print_last(&said, 4);
    let sent = count(other, "sender", "TCP sent")?;
    let said = console_count(other, "sender", "TCP sent", sent + 2)?;
    print_last(&said, 4);
    heading("It is saved to a volume, and restored from there; the stream waits meanwhile");
    let before = rounds(host)?;
    // To a port that leads nowhere the host would answer with a reset.
    show(other, "xl pause sender")?;
    show(host, "xl save debian local/saved")?;
    show(host, "xl list")?;
    show(host, "xl restore local/saved")?;
    let sent = count(other, "sender", "TCP sent")?;
    show(other, "xl unpause sender")?;
    let said = console_count(other, "sender", "TCP sent", sent + 2)?;
    print_last(&said, 4);
    let said = console_until(host, "debian", &format!("ROUND {} verified", before + 3))?;
    print_last(&said, 4);
    show(other, "xl destroy sender")?;
    show(host, "xl destroy debian")?;
    heading("The disk from outside: sgdisk and fsck.fat look at host-a's store");
    store.check()?;
    println!("no problems found");
    Ok(())
}

fn sender() -> String {
    let address = HOSTS[0].1;
    let stream = format!(
        "while,true;do,guest,tcp-send,address={address}:{PORT},bytes={SENT_BYTES},seed=7,direction=send;\
         sleep,1;done"
    );
    format!(
        "xl create /dev/null name=sender kernel=module:linux ramdisk=module:initrd memory=128 \
         'vif=[\"type=nat\"]' extra=\"console=ttyS0 quiet godwit.net=dhcp godwit.run={stream}\""
    )
}

/// The last round the guest has verified.
fn rounds(host: &mut Host) -> Result<u64> {
    let said = console(host, "debian")?;
    let last = said.lines().rev().find_map(|line| {
        let number = line.trim().strip_prefix("ROUND ")?;
        number.strip_suffix(" verified")?.parse().ok()
    });
    last.with_context(|| format!("no round was verified:\n{said}"))
}

fn console(host: &mut Host, guest: &str) -> Result<String> {
    host.command(&format!("xl console -n {guest}"))
}

fn count(host: &mut Host, guest: &str, what: &str) -> Result<usize> {
    Ok(console(host, guest)?.matches(what).count())
}

fn console_until(host: &mut Host, guest: &str, wanted: &str) -> Result<String> {
    console_count(host, guest, wanted, 1)
}

/// The guest's console once it holds `wanted` so often.
fn console_count(host: &mut Host, guest: &str, wanted: &str, times: usize) -> Result<String> {
    let deadline = Instant::now() + LIMIT * host.emulator().slowness();
    loop {
        let said = console(host, guest)?;
        if said.matches(wanted).count() >= times {
            return Ok(said);
        }
        ensure!(!said.contains(" BAD "), "{guest} found wrong data:\n{said}");
        ensure!(
            Instant::now() < deadline,
            "{guest} never said {wanted:?}:\n{said}"
        );
        std::thread::sleep(LOOK_PERIOD);
    }
}

fn print_last(said: &str, lines: usize) {
    let all: Vec<&str> = said.lines().collect();
    for line in &all[all.len().saturating_sub(lines)..] {
        println!("    {line}");
    }
}
