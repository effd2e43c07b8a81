//! dom0's network from outside: an address by DHCP, and TCP.

use anyhow::{Context, Result, ensure};
use godwit_boot_tests::{boot, ensure_all};
use godwit_harness::{Emulator, Host, HostConfig, Image, Network, Nic, free_port};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::Duration;

/// The echo service (RFC 862).
const ECHO_PORT: u16 = 7;
const TIMEOUT: Duration = Duration::from_secs(30);
/// More than all buffers on the way together, so that both directions must flow at once.
const ECHO_BYTES: usize = 1 << 20;
/// As many at once as the service takes.
const CONNECTIONS: usize = 4;

/// QEMU's user network gives addresses and a gateway, and lets us in.
fn dhcp(label: &str, nic: Nic) -> Result<()> {
    let image = Image::new(label, "host-a")?.address("dhcp").write()?;
    let host_tcp = free_port()?;
    let config = HostConfig::new(Emulator::Qemu, &image, label)
        .nic(nic)
        .network(Network::UserForward {
            host_tcp,
            guest_tcp: ECHO_PORT,
        });
    let mut host = Host::boot(&config)?;
    host.wait_prompt()?;
    host.command_until("ip", "10.0.2.15/24", TIMEOUT)?;
    ensure_all(&host.command("ip")?, &["10.0.2.2"])?;
    ensure_all(&host.command("ping -c 2 10.0.2.2")?, &[" 0% packet loss"])?;
    let talks: Vec<_> = (0..CONNECTIONS)
        .map(|seed| thread::spawn(move || echo(host_tcp, seed as u8)))
        .collect();
    for talk in talks {
        talk.join().expect("echo does not panic")?;
    }
    // The service serves on after its first visitors.
    echo(host_tcp, 99)?;
    ensure_all(&host.command("ip")?, &["10.0.2.15/24"])
}

/// Sends [`ECHO_BYTES`] and fails unless they all come back in order, and then the end.
fn echo(port: u16, seed: u8) -> Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let sent: Vec<u8> = (0..ECHO_BYTES)
        .map(|at| (at.wrapping_mul(31) >> 3) as u8 ^ seed)
        .collect();
    let mut writer = stream.try_clone()?;
    let to_send = sent.clone();
    let sender = thread::spawn(move || -> Result<()> {
        writer.write_all(&to_send)?;
        Ok(writer.shutdown(Shutdown::Write)?)
    });
    let mut back = Vec::new();
    stream
        .read_to_end(&mut back)
        .with_context(|| format!("after {} bytes", back.len()))?;
    sender.join().expect("the sender does not panic")?;
    ensure!(
        back == sent,
        "{} of {ECHO_BYTES} bytes came back, or changed",
        back.len()
    );
    Ok(())
}

#[test]
fn network_dhcp_and_echo_virtio() -> Result<()> {
    dhcp("network-virtio", Nic::Virtio)
}

#[test]
fn network_dhcp_and_echo_e1000() -> Result<()> {
    dhcp("network-e1000", Nic::E1000)
}

/// Without a card the prompt comes all the same, and says so.
#[test]
fn network_none() -> Result<()> {
    let mut bench = boot("network-none", Emulator::Qemu, |config| {
        config.network(Network::None)
    })?;
    ensure_all(&bench.host.command("ip")?, &["no network card"])?;
    ensure_all(
        &bench.host.command("ping -c 1 10.77.0.254")?,
        &["no network card"],
    )
}
