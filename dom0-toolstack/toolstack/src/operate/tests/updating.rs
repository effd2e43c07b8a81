//! Configurations that change, and those that are started with the host.

use super::*;

fn put(toolstack: &Toolstack<FakeSite>, path: &str, text: &str) {
    toolstack
        .site
        .files
        .files
        .borrow_mut()
        .insert(path.into(), text.into());
}

#[test]
fn a_new_configuration_waits_for_the_next_start() {
    let toolstack = toolstack();
    let id = make(&toolstack, &SETTINGS).unwrap();
    let before = toolstack.registry.entry(id).unwrap().config;
    put(
        &toolstack,
        "n.cfg",
        "name='n'\nmemory=7\nkernel='module:k'\nvif=['type=nat']\n",
    );
    let update = |settings: &[String]| block_on(toolstack.config_update(id, "n.cfg", settings));
    assert!(update(&["uuid=00000000-0000-0000-0000-000000000009".into()]).is_err());
    assert!(matches!(
        update(&["vcpus=0".into()]),
        Err(OperateError::Config(_))
    ));
    update(&[]).unwrap();
    assert_eq!(
        toolstack.registry.entry(id).unwrap().config.disks,
        before.disks
    );
    host(&toolstack).end(id, ShutdownReason::Reboot);
    let new = block_on(toolstack.settle(None))[0].successor.unwrap();
    let after = toolstack.registry.entry(new).unwrap();
    assert_eq!((after.config.memory_mib, after.config.disks.len()), (7, 0));
    assert_eq!(
        (after.config.uuid, after.config.vifs[0].mac),
        (before.uuid, before.vifs[0].mac)
    );
    assert_eq!(after.next, None);
}

#[test]
fn domains_that_say_so_are_started_with_the_host() {
    let toolstack = toolstack();
    let good = |name: &str| std::format!("name='{name}'\nmemory=8\nkernel='boot/k'\n");
    put(&toolstack, "b.cfg", &(good("b") + "autostart=1\n"));
    put(&toolstack, "a.cfg", &(good("a") + "autostart=1\nrubbish\n"));
    put(&toolstack, "c.cfg", &good("c"));
    put(&toolstack, "d.cfg", &(good("b") + "autostart=1\n"));
    put(&toolstack, "e.txt", &(good("e") + "autostart=1\n"));
    let told = block_on(toolstack.autostart());
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(
        told[0].starts_with("a.cfg is not started: a.cfg:5:8: '=' is expected"),
        "{}",
        told[0]
    );
    assert_eq!(told[1], "started domain 'b' (id 1)");
    assert!(
        told[2].contains("d.cfg:1:6: there is a domain 'b' already"),
        "{}",
        told[2]
    );
    toolstack.site.files.absent.set(true);
    assert!(block_on(toolstack.autostart()).is_empty());
}
