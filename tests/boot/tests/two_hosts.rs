//! Two hosts on one link: they ping each other, lose each other when it is cut, and find each
//! other again.

use anyhow::Result;
use godwit_boot_tests::{HOST, OTHER, boot_two, ping_loses_all, ping_until_clean};
use godwit_harness::Emulator;

fn two_hosts_ping(label: &str, emulators: [Emulator; 2]) -> Result<()> {
    let ([mut a, mut b], link) = boot_two(label, emulators)?;
    ping_until_clean(&mut a, OTHER)?;
    ping_until_clean(&mut b, HOST)?;
    link.cut();
    ping_loses_all(&mut a, OTHER)?;
    link.restore();
    ping_until_clean(&mut a, OTHER)
}

#[test]
fn two_hosts_ping_qemu() -> Result<()> {
    two_hosts_ping("two-qemu", [Emulator::Qemu; 2])
}

#[test]
fn two_hosts_ping_bochs() -> Result<()> {
    two_hosts_ping("two-bochs", [Emulator::Bochs; 2])
}

#[test]
fn two_hosts_ping_mixed() -> Result<()> {
    two_hosts_ping("two-mixed", [Emulator::Qemu, Emulator::Bochs])
}
