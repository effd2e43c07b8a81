//! Entries survive, and what cannot be read is said.

use super::*;
use crate::config::{self, Config, Disk, Vif};
use crate::host::fake::FakeHypervisor;
use crate::site::{Device, Link};
use alloc::string::{String, ToString};
use proptest::prelude::*;

fn config(settings: &[&str]) -> Config {
    let uuid = "uuid=00000000-0000-0000-0000-000000000001";
    let common = ["name=n", "kernel=module:k", uuid];
    let all = common.iter().chain(settings);
    let all: Vec<String> = all.map(|text| String::from(*text)).collect();
    config::parse("/dev/null", "", &all).unwrap()
}

fn entry(settings: &[&str]) -> Entry {
    let mut entry = Entry::new(config(settings), Some("a b.cfg".into()));
    let device = Device::Disk(Disk::parse("main/web,raw,vda").unwrap());
    entry.links.push(Link { slot: 4, device });
    let vif = Vif::parse("type=nat,mac=02:00:00:00:00:01,forward=tcp:1:2").unwrap();
    let device = Device::Vif(vif);
    entry.links.push(Link { slot: 5, device });
    for device in [Device::Console, Device::Rng, Device::Balloon] {
        entry.links.push(Link { slot: 6, device });
    }
    (entry.made_ns, entry.restarts, entry.reboot_asked) = (u64::MAX, 3, true);
    entry.phase = Phase::Live;
    entry
}

#[test]
fn an_entry_reads_back() {
    let entry = entry(&[
        "extra=\"a\\\\\\\"b\"",
        "memory=32",
        "maxmem=64",
        "balloon=1",
    ]);
    assert_eq!(Entry::decode(entry.encode().as_bytes()), Ok(entry.clone()));
    let next = Some(config(&["memory=7"]));
    let entry = Entry { next, ..entry };
    assert_eq!(Entry::decode(entry.encode().as_bytes()), Ok(entry));
}

#[test]
fn the_largest_entry_fits_its_blob() {
    let disk = |n: u8| {
        let part = "x".repeat(128);
        std::format!("'{part}/{part},raw,vd{}'", char::from(b'a' + n))
    };
    let disks: Vec<String> = (0..16)
        .map(|n| disk(n).replace("xx/", &std::format!("{n:02}/")))
        .collect();
    let forwards = ",forward=tcp:65535:65535".repeat(16);
    let vifs = std::vec![std::format!("'type=nat,ip=100.100.100.100{forwards}'"); 8];
    let mut entry = entry(&[
        "rng=1",
        "balloon=1",
        "console=1",
        &std::format!("cmdline=\"{}\"", "\\\\".repeat(4095)),
        &std::format!("disk=[{}]", disks.join(",")),
        &std::format!("vif=[{}]", vifs.join(",")),
    ]);
    let devices = Entry::devices(&entry.config).into_iter();
    entry.links = devices.map(|device| Link { slot: 31, device }).collect();
    assert!(entry.links.len() <= LINKS_MAX);
    assert!((entry.encode().len() as u64) < godwit_abi::BLOB_BYTES_MAX / 2);
}

#[test]
fn what_cannot_be_read_is_named() {
    let good = entry(&[]).encode();
    for (from, to, part) in [
        ("godwit-domain 1", "godwit-domain 2", "another version"),
        ("phase live", "phase lively", "'phase lively'"),
        ("target_mib 64", "target_mib lots", "'target_mib lots'"),
        ("restarts 3", "restarts", "'restarts'"),
        ("reboot_asked 1", "reboot_asked 2", "'reboot_asked 2'"),
        ("link 4 disk", "link four disk", "'link four disk"),
        ("link 6 rng", "link 6 gnr", "'link 6 gnr'"),
        ("mac=02:00:00:00:00:01", "mac=02", "'link 5 vif"),
        ("vcpus = 1", "vcpus = 0", "configuration is refused"),
        ("\n\n", "\n", "no empty line"),
    ] {
        assert!(good.contains(from), "{from}");
        let error = Entry::decode(good.replacen(from, to, 1).as_bytes()).expect_err(from);
        assert!(error.to_string().contains(part), "{from}: {error}");
    }
    assert!(Entry::decode(b"\xff").is_err());
}

#[test]
fn a_restarted_dom0_finds_what_it_had() {
    let host = FakeHypervisor::new();
    let all: Vec<DomainId> = ["live", "half", "none", "bad", "new"]
        .map(|name| host.add_domain(name, 8))
        .into();
    let before = Registry::default();
    before.set(&host, all[0], entry(&[])).unwrap();
    before
        .set(&host, all[1], Entry::new(config(&[]), None))
        .unwrap();
    host.blob_write(all[3], ENTRY_BLOB, b"rubbish").unwrap();
    host.with(all[4], |domain| {
        domain.info.state = DomainState::Building as u32
    })
    .unwrap();
    let after = Registry::default();
    let recovered = after.recover(&host, |_| false).unwrap();
    assert_eq!(recovered.found, [all[0]]);
    assert_eq!(recovered.unfinished, [all[1], all[4]]);
    let unknown: Vec<_> = recovered.unknown.iter().map(|(id, _)| *id).collect();
    assert_eq!(unknown, [all[2], all[3]]);
    assert_eq!(after.entry(all[0]), before.entry(all[0]));
    assert_eq!(after.all().len(), 1);
}

#[test]
fn one_operation_at_a_time() {
    let registry = Registry::default();
    let first = registry.reserve(DomainId::CONTROL).unwrap();
    assert!(registry.reserve(DomainId::CONTROL).is_none());
    // Who was refused has taken nothing away.
    assert!(registry.reserve(DomainId::CONTROL).is_none());
    drop(first);
    assert!(registry.reserve(DomainId::CONTROL).is_some());
}

#[test]
fn each_way_to_end_has_its_action() {
    let host = FakeHypervisor::new();
    let registry = Registry::default();
    let actions = [
        "on_poweroff=preserve",
        "on_reboot=restart",
        "on_crash=destroy",
    ];
    let domain = host.add_domain("n", 8);
    registry
        .set(
            &host,
            domain,
            Entry {
                reboot_asked: false,
                ..entry(&actions)
            },
        )
        .unwrap();
    let due = |held| {
        registry
            .due(&host, held)
            .into_iter()
            .map(|(_, action)| action)
            .collect::<Vec<_>>()
    };
    assert_eq!(due(None), []);
    host.end(domain, ShutdownReason::PowerOff);
    assert_eq!(due(None), []);
    registry
        .change(&host, domain, |entry| entry.reboot_asked = true)
        .unwrap();
    assert_eq!(due(None), [EndAction::Restart]);
    host.end(domain, ShutdownReason::Reboot);
    assert_eq!(due(None), [EndAction::Restart]);
    host.end(domain, ShutdownReason::TripleFault);
    assert_eq!(due(None), [EndAction::Destroy]);
    assert_eq!(due(Some(domain)), []);
    let busy = registry.reserve(domain);
    assert_eq!(due(None), []);
    drop(busy);
    host.fail_call(0, Status::Busy);
    assert_eq!(due(None), []);
    host.domain_destroy(domain).unwrap();
    assert_eq!(due(None), []);
    assert!(registry.entry(domain).is_none());
}

proptest! {
    #[test]
    fn any_bytes_are_an_entry_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..80), at in 0usize..400) {
        let _ = Entry::decode(&bytes);
        let mut good = entry(&[]).encode().into_bytes();
        let at = at.min(good.len());
        good.splice(at..at, bytes);
        let _ = Entry::decode(&good);
    }
}

#[test]
fn who_is_refused_a_domain_does_not_free_it() {
    let registry = Registry::default();
    let held = registry.reserve(DomainId::new(3, 0)).unwrap();
    assert!(registry.reserve(DomainId::new(3, 0)).is_none());
    assert!(registry.reserve(DomainId::new(3, 0)).is_none());
    drop(held);
    assert!(registry.reserve(DomainId::new(3, 0)).is_some());
}
