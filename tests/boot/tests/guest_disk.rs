//! Disks of a Linux guest: what it writes and flushes is on the volume, and on the NBD server; volumes are made of an export and
//! written over one. The host also has a guest that starts with it: Multiboot, with a module, from its store.

use anyhow::{Result, ensure};
use godwit_boot_tests::guest::{clear, console_until};
use godwit_boot_tests::served::{CREATE, DATA, Served, boot, boot_with, check_blocks};
use godwit_boot_tests::{ensure_all, multiboot};
use godwit_harness::{Emulator, StoreImage, VolumeContents, root};

const NBD_BYTES: u64 = 4 << 20;
/// A volume for an export to be written over with, and its bytes.
const GOLDEN: &str = "golden";
const GOLDEN_BYTES: usize = 1 << 20;
/// Starts with the host.
const AUTO: &str = "auto";
const AUTO_WORDS: &str = "one two three";
const AUTO_MODULE: &str = "the module of the guest that starts with its host";

fn volume(label: &str, emulator: Emulator, blocks: u64) -> Result<()> {
    let words = format!("godwit.run=guest,disk,path=/dev/vda,blocks={blocks},seed=7");
    let mut site = boot(label, emulator, &words)?;
    let said = site.create("")?;
    let wrote = format!("DISK write blocks={blocks}");
    ensure_all(&said, &[&wrote, &format!("DISK check blocks={blocks}")])?;
    ensure_all(&site.host.command("xl block-list lin")?, &["main/data"])?;
    // Two writers of one volume would destroy it.
    site.says(
        &format!("{CREATE} name=two vif=[]"),
        "is in use by domain 'lin'",
    )?;
    let guest = site.guest();
    guest.clear(&mut site.host)?;
    let store = site.into_store();
    check_blocks(&store.read_volume(DATA)?, blocks, 7)?;
    store.check()
}

#[test]
fn guest_disk_volume_qemu() -> Result<()> {
    volume("guest-disk-qemu", Emulator::Qemu, 512)
}

#[test]
fn guest_disk_nbd_qemu() -> Result<()> {
    let label = "guest-disk-nbd-qemu";
    let file = root()?.join(format!("out/guest/{label}.nbd"));
    let golden: Vec<u8> = (0..GOLDEN_BYTES).map(|at| (at / 251) as u8).collect();
    let golden_file = root()?.join(format!("out/guest/{label}.golden"));
    std::fs::create_dir_all(root()?.join("out/guest"))?;
    std::fs::write(&golden_file, &golden)?;
    let change = |store: StoreImage| {
        starting_with_the_host(store)
            .volume(GOLDEN, VolumeContents::File(golden_file))
            .free_mib(8)
    };
    let mut site = boot_with(label, Emulator::Qemu, "", change)?;
    started_with_the_host(&mut site)?;
    let server = site.nbd_server(file, NBD_BYTES)?;
    let target = server.target();
    site.create(&format!("'disk=[\"{target},raw,xvda,rw\"]'"))?;
    ensure_all(&site.host.command("xl block-list lin")?, &[&target])?;
    site.shell_succeeds("guest disk path=/dev/vda blocks=256 seed=8")?;
    moved_while_it_writes(&mut site, &target)?;
    let import = format!("xl volume-import main/copy {target}");
    site.says(&import, "is in use by domain 'lin'")?;
    let guest = site.guest();
    guest.clear(&mut site.host)?;
    site.says_in_time(&import, &format!("{} KiB copied", NBD_BYTES >> 10))?;
    site.says("xl volume-list main", "main/copy ")?;
    let export = format!("xl volume-export main/{GOLDEN} {target}");
    site.says_in_time(&export, &format!("{} KiB copied", GOLDEN_BYTES >> 10))?;
    let contents = server.into_contents()?;
    ensure!(contents[..GOLDEN_BYTES] == golden, "not as exported");
    ensure!(contents.len() as u64 == NBD_BYTES, "it has another length");
    // The server is gone: the next guest is refused as a whole.
    let line = format!("{CREATE} 'disk=[\"{target},raw,xvda,rw\"]'");
    let said = site.host.command(&line)?;
    ensure!(
        said.contains("nbd://") && !said.contains("created"),
        "{said}"
    );
    site.is_gone()?;
    site.says(&format!("xl volume-import main/more {target}"), "nbd://")?;
    let list = site.says("xl volume-list main", "main/copy ")?;
    ensure!(
        !list.contains("main/more"),
        "half a volume is left:\n{list}"
    );
    let store = site.into_store();
    check_blocks(&store.read_volume("copy")?, 256, 8)?;
    store.check()
}

/// The guest's disk moves from the server to a volume and back while the guest writes and checks what it wrote.
fn moved_while_it_writes(site: &mut Served, target: &str) -> Result<()> {
    const BUSY: &str = "guest disk path=/dev/vda first=512 blocks=64 seed=9";
    site.says("xl block-migrate lin --disk vdf=main", "it has no vdf")?;
    site.shell_succeeds(&format!(
        "{{ (r=1; while [ ! -e /tmp/stop ] && {BUSY} round=$r; do echo $r >/tmp/round; r=$((r+1)); done; \
         touch /tmp/ended) >/dev/null 2>&1 & }}"
    ))?;
    let there = "xl block-migrate lin --disk vda=main:moved";
    let said = site.says_in_time(there, "domain 'lin': vda is main/moved")?;
    ensure_all(
        &said,
        &[
            "both equal, switched in",
            "make the domain again with main/moved as vda",
        ],
    )?;
    site.says("xl block-list lin", "main/moved")?;
    site.shell_succeeds("guest disk path=/dev/vda blocks=256 seed=8 mode=check")?;
    let back = format!("xl block-migrate lin --disk vda={target} --delete-source");
    let said = site.says_in_time(&back, &format!("domain 'lin': vda is {target}"))?;
    ensure_all(&said, &["main/moved is deleted"])?;
    site.says("xl migrate-history", "moved")?;
    // It has never seen anything else than what it wrote.
    site.shell_succeeds("test ! -e /tmp/ended && touch /tmp/stop")?;
    site.shell_succeeds("while [ ! -e /tmp/ended ]; do sleep 1; done")?;
    site.shell_succeeds(&format!("{BUSY} round=$(cat /tmp/round) mode=check"))?;
    Ok(())
}

fn starting_with_the_host(store: StoreImage) -> StoreImage {
    let config = format!(
        "name = '{AUTO}'\nkernel = 'kernels/multiboot'\nramdisk = 'kernels/module'\nmemory = 8\n\
         extra = '{AUTO_WORDS}'\nautostart = 1\n"
    );
    let off = config
        .replace(AUTO, "off")
        .replace("offstart = 1", "autostart = 0");
    store
        .file("auto.cfg", config.as_bytes())
        .file("off.cfg", off.as_bytes())
        .file("kernels/multiboot", &multiboot::image())
        .file("kernels/module", AUTO_MODULE.as_bytes())
}

/// The domain of `auto.cfg` is there without a command, and found its command line and its module.
fn started_with_the_host(site: &mut Served) -> Result<()> {
    let said = console_until(&mut site.host, AUTO, AUTO_MODULE)?;
    ensure!(
        said.contains(&format!("{AUTO_WORDS}\n{AUTO_MODULE}\n")),
        "{said}"
    );
    let list = site.host.command("xl list")?;
    ensure!(
        !list.contains("\noff "),
        "it did not ask to be started:\n{list}"
    );
    clear(&mut site.host, AUTO)
}
