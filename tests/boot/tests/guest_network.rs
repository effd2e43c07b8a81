//! A Linux guest behind NAT: its address comes by DHCP, it reaches the network, and the network
//! reaches it through a forwarded port. And one behind a router: it is reached by its own address.

use anyhow::{Result, ensure};
use godwit_boot_tests::linux::{self, BOOT_TIMEOUT, LinuxGuest};
use godwit_boot_tests::served::{GATEWAY, USER_GATEWAY, boot};
use godwit_boot_tests::{HOST, PEER, ensure_all};
use godwit_harness::{Emulator, Flavour};
use std::net::Ipv4Addr;
use std::time::Duration;

const STREAM_BYTES: u64 = 2 << 20;
/// The address of the guest behind the router.
const ROUTED: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 77);
/// For a line typed into the guest's shell, and for a ping.
const TIMEOUT: Duration = Duration::from_secs(60);

#[test]
fn guest_network_nat_qemu() -> Result<()> {
    let mut site = boot("guest-network-qemu", Emulator::Qemu, "")?;
    let said = site.create("")?;
    ensure_all(&said, &["10.99.0."])?;
    let said = site.host.command("xl network-list lin")?;
    ensure_all(&said, &["nat", "in use"])?;
    site.guest_pings(GATEWAY)?;
    site.guest_pings(USER_GATEWAY)?;
    site.exchange(STREAM_BYTES)?;
    // Without its guest the port leads nowhere.
    let guest = site.guest();
    guest.clear(&mut site.host)?;
    ensure!(site.exchange(1).is_err(), "someone answers for the guest");
    Ok(())
}

#[test]
fn guest_network_routed_qemu() -> Result<()> {
    let label = "guest-routed-qemu";
    let mut bench = linux::boot(label, Emulator::Qemu, Flavour::Cloud, |config| config)?;
    let settings = format!("'vif=[\"type=routed,ip={ROUTED}\"]'");
    let guest = LinuxGuest {
        name: "lin",
        vcpus: 1,
        memory_mib: 128,
        words: "godwit.net=dhcp",
        settings: &settings,
    };
    guest.create(&mut bench.host)?;
    let said = guest.console_until(&mut bench.host, "GUEST end shell", BOOT_TIMEOUT)?;
    ensure_all(&said, &[&ROUTED.to_string()])?;
    let said = bench.host.command("xl network-list lin")?;
    ensure_all(&said, &["routed", "in use"])?;
    // The station answers to the address it sees, which is the guest's.
    let line = format!("ping -c 3 {PEER}");
    let said = bench.host.guest_shell("lin", &line, TIMEOUT)?;
    ensure!(!said.contains("100% packet loss"), "{said}");
    bench.peer.ping_by(HOST, ROUTED, TIMEOUT)?;
    guest.clear(&mut bench.host)?;
    let after = bench.peer.ping_by(HOST, ROUTED, Duration::from_secs(2));
    ensure!(after.is_err(), "someone answers for the guest");
    Ok(())
}
