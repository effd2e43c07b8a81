//! Disks of a Linux guest: what it writes and flushes is on the volume, and on the NBD server.

use anyhow::{Result, ensure};
use godwit_boot_tests::ensure_all;
use godwit_boot_tests::served::{CREATE, DATA, boot, check_blocks};
use godwit_harness::{Emulator, root};

const NBD_BYTES: u64 = 4 << 20;

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
    let mut site = boot(label, Emulator::Qemu, "")?;
    let server = site.nbd_server(file, NBD_BYTES)?;
    let target = server.target();
    site.create(&format!("'disk=[\"{target},raw,xvda,rw\"]'"))?;
    ensure_all(&site.host.command("xl block-list lin")?, &[&target])?;
    site.shell_succeeds("guest disk path=/dev/vda blocks=256 seed=8")?;
    check_blocks(&server.into_contents()?, 256, 8)?;
    // The server is gone: the next guest is refused as a whole.
    let guest = site.guest();
    guest.clear(&mut site.host)?;
    let line = format!("{CREATE} 'disk=[\"{target},raw,xvda,rw\"]'");
    let said = site.host.command(&line)?;
    ensure!(
        said.contains("nbd://") && !said.contains("created"),
        "{said}"
    );
    site.is_gone()
}
