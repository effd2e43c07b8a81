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

/// The same for the long form.
const SOAK_TIMEOUT: Duration = Duration::from_secs(1800);
/// Between two deaths of dom0.
const CRASH_PAUSE: Duration = Duration::from_secs(5);

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

/// How much load a Debian guest gets.
struct Load {
    stress_s: u32,
    fio_mib: u32,
    fio_loops: u32,
    /// How often dom0 dies while fio writes and verifies.
    crashes: u32,
}

impl Load {
    fn words(&self) -> String {
        let Self {
            stress_s,
            fio_mib,
            fio_loops,
            ..
        } = self;
        format!(
            "godwit.root=/dev/vda \
             godwit.run=stress-ng,--verify,--cpu,2,--vm,2,--vm-bytes,64M,--switch,1,-t,{stress_s} \
             godwit.run=fio,--name=f,--filename=/var/tmp/f,--size={fio_mib}M,--loops={fio_loops},--bs=4k,\
             --rw=randwrite,--direct=1,--verify=crc32c,--verify_fatal=1,--output=/tmp/fio \
             godwit.run=guest,disk,path=/var/tmp/f,blocks=512 godwit.end=poweroff"
        )
    }
}

fn loaded_root(label: &str, load: &Load, timeout: Duration) -> Result<()> {
    let store = store(label, &root_disk()?)?.write()?;
    let mut bench = boot(label, Emulator::Qemu, Flavour::Cloud, |config| {
        config
            .cpus(1)
            .disk(DiskConfig::new(store.path(), DiskInterface::VirtioBlk))
    })?;
    let host = &mut bench.host;
    let words = load.words();
    let guest = LinuxGuest {
        name: "deb",
        vcpus: 2,
        memory_mib: 512,
        words: &words,
        settings: "disk='[\"main/root,raw,vda,w\"]'",
    };
    guest.create(host)?;
    let said = guest.console_until(host, "GUEST ready", BOOT_TIMEOUT)?;
    ensure!(
        said.contains("GUEST system=Debian"),
        "not from its disk:\n{said}"
    );
    for number in 1..=load.crashes {
        guest.console_until(host, "GUEST run fio", timeout)?;
        std::thread::sleep(CRASH_PAUSE);
        let said = host.command("xl console -n deb")?;
        ensure!(
            !said.contains("GUEST run guest disk"),
            "fio was too fast:\n{said}"
        );
        let console = host.console();
        console.send_line("xl debug-keys D")?;
        console.expect(&format!("built anew (restart {number})"), BOOT_TIMEOUT)?;
        host.wait_prompt()?;
    }
    let said = guest.console_until(host, "GUEST end poweroff", timeout)?;
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

#[test]
fn linux_root_qemu() -> Result<()> {
    let load = Load {
        stress_s: 60,
        fio_mib: 8,
        fio_loops: 1,
        crashes: 0,
    };
    loaded_root("linux-root-qemu", &load, LOAD_TIMEOUT)
}

/// The long form: `./x test soak`.
#[test]
#[ignore = "takes ten minutes"]
fn soak_root_qemu() -> Result<()> {
    let load = Load {
        stress_s: 180,
        fio_mib: 32,
        fio_loops: 2,
        crashes: 3,
    };
    loaded_root("soak-root-qemu", &load, SOAK_TIMEOUT)
}
