//! A Debian system on a volume: it boots from its disk, and a minute's worth of stress finds no
//! error in memory, CPU or disk.

use anyhow::{Result, ensure};
use godwit_boot_tests::linux::{BOOT_TIMEOUT, LinuxGuest, boot};
use godwit_harness::{
    DiskConfig, DiskInterface, Emulator, Flavour, StoreImage, VolumeContents, root, root_disk,
};
use std::time::Duration;

/// For the loads, on QEMU.
const LOAD_TIMEOUT: Duration = Duration::from_secs(400);

#[test]
fn linux_root_qemu() -> Result<()> {
    let label = "linux-root-qemu";
    let disk = root()?.join(format!("out/guest/{label}.img"));
    StoreImage::new(&disk)
        .label("main")
        .volume("root", VolumeContents::File(root_disk()?))
        .write()?;
    let mut bench = boot(label, Emulator::Qemu, Flavour::Cloud, |config| {
        config
            .cpus(1)
            .disk(DiskConfig::new(&disk, DiskInterface::VirtioBlk))
    })?;
    let host = &mut bench.host;
    let guest = LinuxGuest {
        name: "deb",
        vcpus: 2,
        memory_mib: 512,
        words: "godwit.root=/dev/vda \
                godwit.run=stress-ng,--verify,--cpu,2,--vm,2,--vm-bytes,64M,--switch,1,-t,60 \
                godwit.run=fio,--name=f,--filename=/var/tmp/f,--size=8M,--bs=4k,--rw=randwrite,\
                --direct=1,--verify=crc32c,--output=/tmp/fio \
                godwit.run=guest,disk,path=/var/tmp/f,blocks=512 godwit.end=poweroff",
        settings: "disk='[\"main/root,raw,vda,w\"]'",
    };
    guest.create(host)?;
    let said = guest.console_until(host, "GUEST ready", BOOT_TIMEOUT)?;
    ensure!(
        said.contains("GUEST system=Debian"),
        "not from its disk:\n{said}"
    );
    let said = guest.console_until(host, "GUEST end poweroff", LOAD_TIMEOUT)?;
    ensure!(
        said.matches("GUEST ran status=0").count() == 3,
        "a load failed:\n{said}"
    );
    ensure!(
        said.contains("successful run completed"),
        "stress-ng did not finish:\n{said}"
    );
    guest.wait_state(host, 's', BOOT_TIMEOUT)?;
    guest.clear(host)
}
