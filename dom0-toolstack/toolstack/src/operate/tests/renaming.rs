//! Another name for a domain: refused as a whole, kept over everything that makes the domain anew.

use super::*;
use crate::command::AfterSave;
use crate::config::DiskTarget;
use crate::site::{Site, Stores};

fn name_of(toolstack: &Toolstack<FakeSite>, id: DomainId) -> (String, String) {
    let info = host(toolstack).domain_info(id).unwrap();
    let entry = toolstack.registry.entry(id).unwrap();
    (text(&info.name).into(), entry.config.name)
}

fn both(name: &str) -> (String, String) {
    (name.into(), name.into())
}

fn put(toolstack: &Toolstack<FakeSite>, path: &str, text: &str) {
    let mut files = toolstack.site.files.files.borrow_mut();
    files.insert(path.into(), text.into());
}

/// dom0 died: only the hypervisor knows.
fn again(before: Toolstack<FakeSite>) -> Toolstack<FakeSite> {
    let site = FakeSite {
        hypervisor: before.site.hypervisor,
        ..FakeSite::default()
    };
    let after = Toolstack::new(site, before.modules);
    block_on(after.recover()).unwrap();
    after
}

#[test]
fn names_that_cannot_be_are_refused_and_nothing_changes() {
    let toolstack = toolstack();
    let id = make(&toolstack, &SETTINGS).unwrap();
    let other = make(&toolstack, &["name=m", "memory=5", "kernel=module:k"]).unwrap();
    let long = "x".repeat(64);
    let refusals = [
        ("m", "there is a domain 'm' already (id 2)"),
        ("Domain-0", "there is a domain 'Domain-0' already (id 0)"),
        ("", "the name is empty"),
        (
            "12",
            "the name is a number, which would be taken for a domain's id",
        ),
        ("a\nb", "the name contains a control character"),
        (&long, "the name is longer than 63 bytes"),
    ];
    for (name, why) in refusals {
        let error = toolstack.domain_rename(id, name).unwrap_err();
        assert_eq!(error.to_string(), why);
    }
    assert!(toolstack.domain_rename(DomainId::CONTROL, "zero").is_err());
    let busy = toolstack.registry.reserve(id);
    assert_eq!(
        toolstack.domain_rename(id, "new"),
        Err(OperateError::Busy(id))
    );
    drop(busy);
    // The note fails, or even the first question.
    for nth in 0..3 {
        host(&toolstack).fail_call(nth, Status::NoMemory);
        let error = toolstack.domain_rename(id, "new").unwrap_err();
        assert_eq!(error, OperateError::Refused(Status::NoMemory), "{nth}");
    }
    host(&toolstack).fail_call(usize::MAX / 2, Status::NoMemory);
    assert_eq!(name_of(&toolstack, id), both("n"));
    assert_eq!(name_of(&toolstack, other), both("m"));
    assert_eq!(
        toolstack.domain_rename(id, "n"),
        Ok(String::new()),
        "its own name"
    );
}

#[test]
fn a_name_stays_over_a_reboot_and_a_new_dom0() {
    let before = toolstack();
    let id = make(&before, &SETTINGS).unwrap();
    assert_eq!(before.domain_rename(id, "new"), Ok(String::new()));
    assert_eq!(name_of(&before, id), both("new"));
    make(&before, &["name=n", "memory=5", "kernel=module:k"]).unwrap();
    let after = again(before);
    assert_eq!(name_of(&after, id), both("new"));
    host(&after).end(id, ShutdownReason::Reboot);
    let successor = block_on(after.settle(None))[0].successor.unwrap();
    assert_eq!(name_of(&after, successor), both("new"));
    // dom0 dies after the hypervisor knows and before it is noted.
    host(&after).domain_rename(successor, "newer").unwrap();
    let last = again(after);
    assert_eq!(name_of(&last, successor), both("newer"));
}

#[test]
fn a_name_stays_over_save_and_restore() {
    let toolstack = toolstack();
    let stores = toolstack.site.stores();
    block_on(stores.create_volume("main", "saved", 1 << 20)).unwrap();
    let target = DiskTarget::parse("main/saved").unwrap();
    let id = make(&toolstack, &["name=n", "memory=2", "kernel=module:s"]).unwrap();
    toolstack.domain_rename(id, "new").unwrap();
    block_on(toolstack.save(id, &target, AfterSave::Destroy)).unwrap();
    let (made, _) = block_on(toolstack.restore(&target, false)).unwrap();
    assert_eq!(made.name, "new");
    assert_eq!(name_of(&toolstack, made.domain), both("new"));
}

#[test]
fn what_a_file_says_is_told_and_a_new_configuration_has_its_own_name() {
    let toolstack = toolstack();
    let good = "name='f'\nmemory=8\nkernel='boot/k'\n";
    put(&toolstack, "f.cfg", &std::format!("{good}autostart=1\n"));
    put(&toolstack, "g.cfg", &good.replace('f', "g"));
    let create = |file| block_on(toolstack.create(file, &[], false)).unwrap();
    let (f, g) = (create("f.cfg").domain, create("g.cfg").domain);
    assert_eq!(
        toolstack.domain_rename(f, "new").unwrap(),
        "f.cfg names it 'f' still: autostart with the host makes it by that name until the file is changed\n"
    );
    let told = toolstack.domain_rename(g, "other").unwrap();
    assert!(
        told.starts_with("g.cfg names it 'g' still: xl create makes"),
        "{told}"
    );
    // Its next start is by the new configuration: one with its name follows a rename, another stays.
    put(&toolstack, "n.cfg", &good.replace("'f'", "'new'"));
    block_on(toolstack.config_update(f, "n.cfg", &[])).unwrap();
    toolstack.domain_rename(f, "third").unwrap();
    put(&toolstack, "n.cfg", &good.replace("'f'", "'fourth'"));
    block_on(toolstack.config_update(g, "n.cfg", &[])).unwrap();
    toolstack.domain_rename(g, "fifth").unwrap();
    let next = |id| toolstack.registry.entry(id).unwrap().next.unwrap().name;
    assert_eq!((next(f).as_str(), next(g).as_str()), ("third", "fourth"));
}
