//! A Linux guest behind NAT: its address comes by DHCP, it reaches the network, and the network
//! reaches it through a forwarded port.

use anyhow::{Result, ensure};
use godwit_boot_tests::ensure_all;
use godwit_boot_tests::served::{GATEWAY, USER_GATEWAY, boot};
use godwit_harness::Emulator;

const STREAM_BYTES: u64 = 2 << 20;

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
