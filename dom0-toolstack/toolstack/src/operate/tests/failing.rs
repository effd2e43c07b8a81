//! Whatever step fails, nothing is left.

use super::*;
use crate::build::{BuildError, Step};

#[test]
fn in_the_hypervisor() {
    let calls = {
        let toolstack = toolstack();
        make(&toolstack, &SETTINGS).unwrap();
        host(&toolstack).state.borrow().calls
    };
    assert!(calls > 40, "populating takes many steps: {calls}");
    let mut steps = Vec::new();
    for nth in 0..calls {
        let toolstack = toolstack();
        let free = host(&toolstack).state.borrow().host.free_bytes;
        host(&toolstack).fail_call(nth, Status::NoMemory);
        match make(&toolstack, &SETTINGS) {
            // When it was made is not known then.
            Ok(id) => {
                let entry = toolstack.registry.entry(id).unwrap();
                assert_eq!(entry.made_ns, 0);
                continue;
            }
            Err(OperateError::Build(BuildError::Refused(step, Status::NoMemory))) => {
                steps.push(step);
            }
            Err(OperateError::Refused(Status::NoMemory)) => assert!(steps.is_empty()),
            Err(error) => panic!("{error}"),
        }
        assert_eq!(host(&toolstack).domains().count(), 1, "after call {nth}");
        assert_eq!(host(&toolstack).state.borrow().host.free_bytes, free);
        assert!(
            toolstack.site.devices.attached.borrow().is_empty(),
            "after call {nth}"
        );
        assert!(toolstack.registry.all().is_empty());
    }
    steps.dedup();
    let want = [
        Step::Create,
        Step::Register,
        Step::Populate,
        Step::Write,
        Step::VcpuState,
        Step::Pin,
        Step::Clock,
        Step::Register,
        Step::Unpause,
    ];
    assert_eq!(steps, want);
}

#[test]
fn in_the_devices() {
    let calls = {
        let toolstack = toolstack();
        make(&toolstack, &SETTINGS).unwrap();
        toolstack.site.devices.calls.get()
    };
    assert_eq!(calls, 5 + 5 + 1, "checked, attached, balloon told");
    for nth in 0..calls {
        let toolstack = toolstack();
        toolstack.site.devices.fail.set(Some(nth));
        let error = make(&toolstack, &SETTINGS).unwrap_err();
        let by_check = matches!(error, OperateError::Config(_));
        assert_eq!(by_check, nth < 5, "{error}");
        assert_eq!(host(&toolstack).domains().count(), 1, "after call {nth}");
        assert!(
            toolstack.site.devices.attached.borrow().is_empty(),
            "after call {nth}"
        );
        assert!(toolstack.registry.all().is_empty());
    }
}

#[test]
fn memory_that_goes_after_the_check() {
    let toolstack = toolstack();
    let settings: Vec<String> = SETTINGS.iter().map(|text| String::from(*text)).collect();
    let document = block_on(toolstack.document("/dev/null", &settings)).unwrap();
    let checked = block_on(toolstack.check(&document, None)).unwrap();
    host(&toolstack).state.borrow_mut().host.free_bytes = 3 << 20;
    let entry = crate::registry::Entry::new(checked.config.clone(), None);
    let error = block_on(toolstack.make(&checked, entry, false)).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("cannot give it memory: NoMemory"),
        "{error}"
    );
    assert_eq!(host(&toolstack).domains().count(), 1);
    assert_eq!(host(&toolstack).state.borrow().host.free_bytes, 3 << 20);
}

#[test]
fn what_cannot_be_destroyed_is_named() {
    let toolstack = toolstack();
    let settings: Vec<String> = SETTINGS.iter().map(|text| String::from(*text)).collect();
    let document = block_on(toolstack.document("/dev/null", &settings)).unwrap();
    let checked = block_on(toolstack.check(&document, None)).unwrap();
    host(&toolstack).state.borrow_mut().host.free_bytes = 0;
    let entry = crate::registry::Entry::new(checked.config.clone(), None);
    // The calls: create, note, populate (refused: no memory), destroy.
    host(&toolstack).fail_call(3, Status::Busy);
    let error = block_on(toolstack.make(&checked, entry, false))
        .unwrap_err()
        .to_string();
    assert!(error.contains("cannot give it memory: NoMemory"), "{error}");
    assert!(error.contains("could not be destroyed: Busy"), "{error}");
}

#[test]
fn a_kernel_larger_than_the_memory_of_dom0_is_refused_at_its_place() {
    let toolstack = toolstack();
    let text = b"name='f'\nmemory=8\nkernel='boot/k'\n";
    let files = &toolstack.site.files;
    files.files.borrow_mut().insert("f.cfg".into(), text.into());
    files.free_bytes.set(Some(1 << 20));
    let error = block_on(toolstack.create("f.cfg", &[], false)).unwrap_err();
    let said = error.to_string();
    assert!(
        said.starts_with("f.cfg:3:8: 'boot/k' cannot be read: 3")
            && said.contains("more than dom0 has memory for: boot with a larger dom0_mem="),
        "{said}"
    );
    assert_eq!(host(&toolstack).domains().count(), 1);
    files.free_bytes.set(None);
    block_on(toolstack.create("f.cfg", &[], false)).unwrap();
}
