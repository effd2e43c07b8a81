//! A Debian system on a volume: it boots from its disk, and a minute's worth of stress finds no
//! error in memory, CPU or disk. And the kernel for real machines with the ramdisk that Debian makes for it.

use anyhow::{Result, ensure};
use godwit_boot_tests::linux::{BOOT_TIMEOUT, LinuxGuest, boot};
use godwit_harness::{
    DiskConfig, DiskInterface, Emulator, Flavour, GuestKernel, Host, HostConfig, Image, StoreImage,
    VolumeContents, debian, root, root_disk,
};
use std::path::Path;
use std::time::Duration;

/// For the loads, on QEMU.
const LOAD_TIMEOUT: Duration = Duration::from_secs(400);

/// A store with the volume `root`.
fn store(label: &str, root_disk: &Path) -> Result<StoreImage> {
    let disk = root()?.join(format!("out/guest/{label}.img"));
    let contents = VolumeContents::File(root_disk.to_owned());
    Ok(StoreImage::new(&disk)
        .label("main")
        .volume("root", contents))
}

/// `linux-image-amd64`, compressed by XZ, with more drivers that look for their devices, and Debian's
/// own ramdisk, which finds the root file system by itself.
#[test]
fn linux_generic_qemu() -> Result<()> {
    const CONFIG: &str = "name = 'deb'\nkernel = 'kernels/linux'\nramdisk = 'kernels/initrd'\n\
        memory = 512\nvcpus = 2\ndisk = ['main/root,raw,xvda,rw']\non_poweroff = 'preserve'\n\
        extra = \"console=ttyS0 panic=-1 root=/dev/vda rw \
        godwit.run=dd,if=/dev/zero,of=/var/tmp/f,bs=4k,count=64 \
        godwit.run=guest,disk,path=/var/tmp/f,blocks=64 godwit.end=poweroff\"\n";
    let label = "linux-generic-qemu";
    let debian = debian()?;
    let kernel = GuestKernel::fetch(Flavour::Generic)?;
    let store = store(label, &debian.root)?
        .file("guests/deb.cfg", CONFIG.as_bytes())
        .file("kernels/linux", &std::fs::read(kernel.image())?)
        .file("kernels/initrd", &std::fs::read(&debian.ramdisk)?)
        .write()?;
    // dom0 has kernel and ramdisk in its memory while it makes the guest.
    let image = Image::new(label, "host-a")?
        .hypervisor_options("dom0_mem=128")
        .write()?;
    let config = HostConfig::new(Emulator::Qemu, &image, label)
        .memory_mib(1024)
        .disk(DiskConfig::new(store.path(), DiskInterface::VirtioBlk));
    let mut host = Host::boot(&config)?;
    host.wait_prompt()?;
    let said = host
        .console()
        .command("xl create guests/deb.cfg", BOOT_TIMEOUT)?;
    ensure!(said.contains("created domain 'deb'"), "{said}");
    let guest = LinuxGuest {
        name: "deb",
        vcpus: 2,
        memory_mib: 512,
        words: "",
        settings: "",
    };
    let said = guest.console_until(&mut host, "GUEST end poweroff", LOAD_TIMEOUT)?;
    for wanted in [
        "GUEST system=Debian",
        "GUEST cpus=2",
        "DISK check blocks=64",
    ] {
        ensure!(said.contains(wanted), "no {wanted}:\n{said}");
    }
    for trouble in ["WARNING: CPU:", "BUG:", "rcu_preempt detected stalls"] {
        ensure!(!said.contains(trouble), "the kernel complains:\n{said}");
    }
    guest.wait_state(&mut host, 's', BOOT_TIMEOUT)?;
    guest.clear(&mut host)
}

#[test]
fn linux_root_qemu() -> Result<()> {
    let label = "linux-root-qemu";
    let store = store(label, &root_disk()?)?.write()?;
    let mut bench = boot(label, Emulator::Qemu, Flavour::Cloud, |config| {
        config
            .cpus(1)
            .disk(DiskConfig::new(store.path(), DiskInterface::VirtioBlk))
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
