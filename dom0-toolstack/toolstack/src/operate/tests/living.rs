//! Ends, restarts, changes, and a dom0 that starts again.

use super::*;
use crate::config::{Disk, EndAction, Mac, Vif};
use crate::names;

fn only(toolstack: &Toolstack<FakeSite>) -> DomainId {
    let all = names::all(host(toolstack)).unwrap();
    assert_eq!(all.len(), 2);
    names::id_of(&all[1])
}

#[test]
fn a_reboot_makes_the_same_domain_anew() {
    let toolstack = toolstack();
    let old = make(&toolstack, &SETTINGS).unwrap();
    let before = toolstack.registry.entry(old).unwrap();
    assert!(block_on(toolstack.settle(None)).is_empty());
    host(&toolstack).end(old, ShutdownReason::Reboot);
    assert!(
        block_on(toolstack.settle(Some(old))).is_empty(),
        "somebody looks at it"
    );
    // Nearly all memory is the old one's: it counts as free.
    host(&toolstack).state.borrow_mut().host.free_bytes = 3 << 20;
    let ended = block_on(toolstack.settle(None));
    let new = only(&toolstack);
    assert_eq!((ended.len(), ended[0].successor), (1, Some(new)));
    assert!(
        ended[0]
            .to_string()
            .ends_with("reboot; started again (id 1024)")
            || new != old
    );
    let after = toolstack.registry.entry(new).unwrap();
    assert_eq!((after.config, after.restarts), (before.config, 1));
    assert!(toolstack.site.devices.of(old).is_empty());
    assert_eq!(toolstack.site.devices.of(new).len(), 5);
    assert_eq!(
        host(&toolstack).domain_info(new).unwrap().state,
        DomainState::Running as u32
    );
}

#[test]
fn a_restart_that_cannot_be_leaves_the_domain_to_be_looked_at() {
    let toolstack = toolstack();
    let text = b"name='f'\nmemory=8\nkernel='boot/k'\non_crash='restart'".to_vec();
    toolstack
        .site
        .files
        .files
        .borrow_mut()
        .insert("f.cfg".into(), text);
    let id = block_on(toolstack.create("f.cfg", &[], false))
        .unwrap()
        .domain;
    toolstack.site.files.files.borrow_mut().clear();
    host(&toolstack).end(id, ShutdownReason::TripleFault);
    let ended = block_on(toolstack.settle(None));
    assert!(
        ended[0].to_string().contains("there is no file 'boot/k'"),
        "{}",
        ended[0]
    );
    assert_eq!(only(&toolstack), id);
    assert!(block_on(toolstack.settle(None)).is_empty(), "told once");
    block_on(toolstack.destroy(id)).unwrap();
}

#[test]
fn a_domain_that_switches_itself_off_is_taken_apart() {
    let toolstack = toolstack();
    let id = make(&toolstack, &SETTINGS).unwrap();
    host(&toolstack).end(id, ShutdownReason::PowerOff);
    let ended = block_on(toolstack.settle(None));
    assert_eq!(
        ended[0].to_string(),
        "domain 'n' (id 1) has ended: poweroff"
    );
    assert_eq!(host(&toolstack).domains().count(), 1);
    assert!(toolstack.site.devices.attached.borrow().is_empty());
}

#[test]
fn asked_to_end_and_to_come_back() {
    let toolstack = toolstack();
    let id = make(&toolstack, &SETTINGS).unwrap();
    toolstack.ask_to_end(id, true).unwrap();
    assert_eq!(host(&toolstack).with(id, |domain| domain.buttons), Ok(1));
    host(&toolstack).end(id, ShutdownReason::PowerOff);
    assert!(block_on(toolstack.settle(None))[0].successor.is_some());
    let id = only(&toolstack);
    toolstack.ask_to_end(id, false).unwrap();
    host(&toolstack).end(id, ShutdownReason::PowerOff);
    assert!(block_on(toolstack.settle(None))[0].successor.is_none());
    let foreign = host(&toolstack).add_domain("x", 8);
    assert_eq!(
        toolstack.ask_to_end(foreign, true),
        Err(OperateError::Foreign(foreign))
    );
}

#[test]
fn disks_come_and_go() {
    let toolstack = toolstack();
    let id = make(&toolstack, &SETTINGS).unwrap();
    let attach = |text: &str| block_on(toolstack.attach_disk(id, Disk::parse(text).unwrap()));
    attach("a/b,,vdc").unwrap();
    assert_eq!(toolstack.site.devices.of(id).len(), 6);
    for (text, part) in [
        ("a/x,,vda", "has a disk vda"),
        ("a/b,,vdd,ro", "in use by domain 'n'"),
        ("a/absent,,vdd", "no volume"),
    ] {
        let error = attach(text).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
    let entry = toolstack.registry.entry(id).unwrap();
    assert_eq!((entry.config.disks.len(), entry.links.len()), (3, 6));
    // A note that cannot be written takes the device back.
    host(&toolstack).fail_call(1, Status::NoMemory);
    assert!(
        attach("a/e,,vde")
            .unwrap_err()
            .to_string()
            .contains("cannot be noted")
    );
    assert_eq!(toolstack.site.devices.of(id).len(), 6);
    let is_vdc = |device: &Device| matches!(device, Device::Disk(disk) if disk.index == 2);
    block_on(toolstack.detach(id, is_vdc)).unwrap();
    assert!(block_on(toolstack.detach(id, is_vdc)).is_err());
    let entry = toolstack.registry.entry(id).unwrap();
    assert_eq!((entry.config.disks.len(), entry.links.len()), (2, 5));
}

#[test]
fn network_devices_have_addresses_of_their_own() {
    let toolstack = toolstack();
    let id = make(&toolstack, &SETTINGS).unwrap();
    let first = toolstack.registry.entry(id).unwrap().config.vifs[0]
        .mac
        .unwrap();
    // Chance that repeats itself does not give an address twice.
    toolstack.site.randoms.set(first.0[5] - 1);
    let second = block_on(toolstack.attach_vif(id, Vif::parse("").unwrap())).unwrap();
    assert_ne!(first, second);
    let taken = Vif {
        mac: Some(first),
        ..Vif::parse("").unwrap()
    };
    let error = block_on(toolstack.attach_vif(id, taken)).unwrap_err();
    assert_eq!(error.to_string(), std::format!("{first} is in use"));
    assert!(Mac::parse(&second.to_string()).is_ok());
}

#[test]
fn memory_is_set_within_its_bounds() {
    let toolstack = toolstack();
    let id = make(&toolstack, &SETTINGS).unwrap();
    toolstack.memory_set(id, 6).unwrap();
    assert_eq!(toolstack.site.devices.targets.borrow()[&id], 6 * 256);
    let state = toolstack.memory(id).unwrap();
    assert_eq!((state.now_mib, state.target_mib), (6, 6));
    assert!(
        toolstack
            .memory_set(id, 7)
            .unwrap_err()
            .to_string()
            .contains("its maximum, 6 MiB")
    );
    assert!(toolstack.memory_max(id, 5).is_err());
    toolstack.memory_set(id, 4).unwrap();
    toolstack.memory_max(id, 5).unwrap();
    assert!(toolstack.memory_set(id, 6).is_err());
    let busy = toolstack.registry.reserve(id);
    assert_eq!(toolstack.memory_set(id, 4), Err(OperateError::Busy(id)));
    drop(busy);
}

#[test]
fn a_restarted_dom0_serves_its_domains_again() {
    let before = toolstack();
    let id = make(&before, &SETTINGS).unwrap();
    // Something was following its writes.
    assert_eq!(host(&before).dirty_arm(id), Ok(0));
    let settings = ["name=m", "memory=5", "kernel=module:k"];
    let half = make(&before, &settings).unwrap();
    before
        .registry
        .change(host(&before), half, |entry| entry.phase = Phase::Building)
        .unwrap();
    let after = Toolstack::new(
        FakeSite {
            hypervisor: before.site.hypervisor,
            ..FakeSite::default()
        },
        before.modules,
    );
    let told = block_on(after.recover()).unwrap();
    assert_eq!(
        told,
        [
            "domain 2 was half-made or half-destroyed: destroyed",
            "domain 'n' (id 1) found again, 5 devices"
        ]
    );
    assert_eq!(only(&after), id);
    let tracked = host(&after).dirty_harvest(id, 0, 64, &mut [0]);
    assert_eq!(tracked, Err(Status::BadState));
    assert_eq!(after.site.devices.reattached.borrow().len(), 5);
    host(&after).end(id, ShutdownReason::Reboot);
    assert!(block_on(after.settle(None))[0].successor.is_some());
    let end = after.registry.entry(only(&after)).unwrap().config.end;
    assert_eq!(end.on_reboot, EndAction::Restart);
}

#[test]
fn what_one_domain_lacks_leaves_the_others_served() {
    let mut not_whole = 0;
    for nth in 0.. {
        let before = toolstack();
        make(&before, &SETTINGS).unwrap();
        make(&before, &["name=m", "memory=5", "kernel=module:k"]).unwrap();
        let after = Toolstack::new(
            FakeSite {
                hypervisor: before.site.hypervisor,
                ..FakeSite::default()
            },
            before.modules,
        );
        let calls = host(&after).state.borrow().calls;
        host(&after).fail_call(nth, Status::NoMemory);
        let told = block_on(after.recover());
        if host(&after).state.borrow().calls <= calls + nth {
            assert!(not_whole > 0);
            break;
        }
        // Which domains there are was not to be known: nothing was touched, and dom0 says so.
        let Ok(told) = told else {
            assert!(after.site.devices.reattached.borrow().is_empty());
            continue;
        };
        let lacking = told.iter().any(|line| line.contains("not served whole"));
        not_whole += usize::from(lacking);
        let found = told.iter().filter(|line| line.contains("found again"));
        assert!(found.count() >= 1, "call {nth}: {told:?}");
    }
}
