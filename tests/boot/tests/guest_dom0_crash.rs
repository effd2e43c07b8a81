//! dom0 dies under a Linux guest that works on its disk and its network: the guest goes on with the
//! next dom0, and nothing it wrote is lost. On Bochs this is also the test of a guest's disk and its
//! network (DHCP, the network beyond, a forwarded port): a boot takes minutes there. A second disk is on
//! an NBD server, whose connection dies with dom0.

use anyhow::{Context, Result, ensure};
use godwit_boot_tests::linux::BOOT_TIMEOUT;
use godwit_boot_tests::served::{DATA, GATEWAY, Served, USER_GATEWAY, boot, check_blocks};
use godwit_boot_tests::{PEER, ensure_all};
use godwit_harness::{Emulator, root};
use std::io::{ErrorKind, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

const NBD_BYTES: u64 = 4 << 20;
const STREAM_BYTES: u64 = 256 << 10;
/// Writes and checks other contents in each round, for ever. A failed check prints `BAD`.
const LOAD: &str = "(r=0; while guest disk path=/dev/vda blocks=16 first=64 round=$r >/tmp/out; do \
                    r=$((r+1)); echo LOAD $r; done; cat /tmp/out) & true";
const TIMEOUT: Duration = Duration::from_secs(120);
const LOOK_PERIOD: Duration = Duration::from_millis(500);

/// Rounds of the load so far: 0 before the first has ended.
fn rounds(site: &mut Served) -> Result<u64> {
    let said = site.host.command("xl console -n lin")?;
    ensure!(!said.contains(" BAD"), "the load failed:\n{said}");
    let last = said
        .lines()
        .filter_map(|line| line.strip_prefix("LOAD "))
        .next_back();
    last.map_or(Ok(0), |last| last.trim().parse().context("a number"))
}

fn goes_on(site: &mut Served) -> Result<()> {
    let before = rounds(site)?;
    let deadline = Instant::now() + TIMEOUT * site.host.emulator().slowness();
    while rounds(site)? < before + 3 {
        ensure!(Instant::now() < deadline, "the load stands still");
        // Showing a console takes the CPU that the guest is to have.
        std::thread::sleep(LOOK_PERIOD);
    }
    Ok(())
}

/// A connection that the guest opens to the build machine, by QEMU's user network; what comes is in `/tmp/heard`.
fn call_out(site: &mut Served) -> Result<TcpStream> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    let line = format!("sleep 100000 | nc {USER_GATEWAY} {port} >/tmp/heard & true");
    site.shell_succeeds(&line)?;
    listener.set_nonblocking(true)?;
    let deadline = Instant::now() + TIMEOUT;
    loop {
        match listener.accept() {
            Ok((stream, _)) => return Ok(stream),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        ensure!(Instant::now() < deadline, "the guest does not call");
        std::thread::sleep(LOOK_PERIOD);
    }
}

/// The far end sends first: the gateway must know whose connection it is.
fn still_heard(site: &mut Served, far: &mut TcpStream, number: u32) -> Result<()> {
    far.write_all(format!("news {number}\n").as_bytes())?;
    let line = format!(
        "n=0; until grep -q 'news {number}' /tmp/heard || test $n = 60; do sleep 1; n=$((n+1)); done; \
         grep 'news {number}' /tmp/heard"
    );
    site.shell_succeeds(&line).map(drop)
}

fn crash(label: &str, emulator: Emulator, beyond: Ipv4Addr, restarts: u32) -> Result<()> {
    let mut site = boot(label, emulator, "")?;
    let file = root()?.join(format!("out/guest/{label}.nbd"));
    let server = site.nbd_server(file, NBD_BYTES)?;
    let far = server.target();
    let said = site.create(&format!(
        "'disk=[\"main/{DATA},raw,xvda,rw\",\"{far},raw,xvdb,rw\"]'"
    ))?;
    ensure_all(&said, &["10.99.0."])?;
    site.guest_pings(beyond)?;
    site.exchange(STREAM_BYTES)?;
    site.shell_succeeds("guest disk path=/dev/vda blocks=32 seed=9")?;
    site.shell_succeeds("guest disk path=/dev/vdb blocks=16 seed=3")?;
    let mut far = match emulator {
        Emulator::Qemu | Emulator::Kvm => Some(call_out(&mut site)?),
        // Nothing there lets the guest reach the build machine, but the disk's server.
        Emulator::Bochs => None,
    };
    site.shell_succeeds(LOAD)?;
    site.shell_succeeds(&format!("ping -i 0.2 {GATEWAY} >/tmp/pings & true"))?;
    goes_on(&mut site)?;
    for number in 1..=restarts {
        let timeout = BOOT_TIMEOUT * emulator.slowness();
        let console = site.host.console();
        console.send_line("xl debug-keys D")?;
        console.expect(&format!("built anew (restart {number})"), timeout)?;
        site.host.wait_prompt()?;
        site.host
            .command_until("xl block-list lin", "main/data", TIMEOUT)?;
        site.host
            .command_until("xl network-list lin", "nat", TIMEOUT)?;
        goes_on(&mut site)?;
        ensure_all(&site.host.command("xl console -n lin")?, &["LOAD "])?;
        site.guest_pings(GATEWAY)?;
        site.exchange(STREAM_BYTES)?;
        if let Some(far) = &mut far {
            still_heard(&mut site, far, number)?;
        }
    }
    site.shell_succeeds("guest disk path=/dev/vda blocks=32 seed=9 mode=check")?;
    site.shell_succeeds("guest disk path=/dev/vdb blocks=16 seed=3 mode=check")?;
    site.shell_succeeds("guest disk path=/dev/vdb blocks=16 first=16 seed=4")?;
    let guest = site.guest();
    guest.clear(&mut site.host)?;
    let store = site.into_store();
    check_blocks(&store.read_volume(DATA)?, 32, 9)?;
    check_blocks(&server.into_contents()?, 16, 3)?;
    store.check()
}

#[test]
fn guest_dom0_crash_qemu() -> Result<()> {
    crash("guest-dom0-crash-qemu", Emulator::Qemu, USER_GATEWAY, 2)
}

#[test]
fn guest_dom0_crash_bochs() -> Result<()> {
    crash("guest-dom0-crash-bochs", Emulator::Bochs, PEER, 1)
}
