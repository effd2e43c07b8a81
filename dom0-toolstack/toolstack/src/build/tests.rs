//! Making domains on the fake, and failing at every step.

use super::*;
use crate::config;
use crate::host::fake::FakeHypervisor;
use crate::loader::START_INFO_MAGIC;
use alloc::string::ToString;
use godwit_abi::{DomainState, text};

/// A kernel of 3 MiB at 1 MiB: larger than one copy.
fn kernel() -> Vec<u8> {
    let mut file = std::vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0];
    file.resize(16, 0);
    file.extend([2, 0, 62, 0]);
    file.resize(32, 0);
    file.extend(64u64.to_le_bytes());
    file.resize(54, 0);
    file.extend([56, 0, 2, 0]);
    file.resize(64, 0);
    for (kind, offset, bytes) in [(1u64 | 5 << 32, 4096u64, 3u64 << 20), (4, 256, 20)] {
        for long in [kind, offset, 1 << 20, 1 << 20, bytes, bytes, 4] {
            file.extend(long.to_le_bytes());
        }
    }
    file.resize(256, 0);
    for word in [4u32, 4, 18, u32::from_le_bytes(*b"Xen\0"), 0x10_0000] {
        file.extend(word.to_le_bytes());
    }
    file.resize(4096, 0);
    file.extend((0..3u32 << 20).map(|n| (n / 4096) as u8));
    file
}

fn config(settings: &[&str]) -> Config {
    let all: Vec<String> = settings.iter().map(|text| String::from(*text)).collect();
    config::parse("/dev/null", "", &all).unwrap()
}

fn make(host: &FakeHypervisor, settings: &[&str], paused: bool) -> Result<DomainId, BuildError> {
    let kernel = kernel();
    let order = Order {
        config: &config(settings),
        modules: &[BootModule::new("k", &kernel), BootModule::new("r", b"disk")],
        random: [0xff; 16],
        paused,
    };
    create_domain(host, &order)
}

const SETTINGS: [&str; 5] = [
    "name=n",
    "memory=5",
    "kernel=module:k",
    "ramdisk=module:r",
    "extra=hi",
];

#[test]
fn a_domain_is_made_and_runs() {
    let host = FakeHypervisor::new();
    let id = make(&host, &SETTINGS, false).unwrap();
    let info = host.domain_info(id).unwrap();
    assert_eq!(text(&info.name), "n");
    assert_eq!(info.state, DomainState::Running as u32);
    assert_eq!(
        (info.memory_pages, info.vcpus, info.weight),
        (5 * 256, 1, 256)
    );
    assert_eq!((info.uuid[6], info.uuid[8]), (0x4f, 0xbf));
    let mut page = [0; 4096];
    host.memory_read(id, (1 << 20) + 700 * 4096, &mut page)
        .unwrap();
    assert_eq!(page, [700u32 as u8; 4096]);
    let record = host
        .with(id, |domain| domain.vcpu_states[&0].clone())
        .unwrap();
    let state = VcpuState::decode(&record).unwrap();
    host.memory_read(id, state.gprs[3], &mut page).unwrap();
    assert_eq!(page[..4], START_INFO_MAGIC.to_le_bytes());
}

#[test]
fn paused_when_asked_for() {
    let host = FakeHypervisor::new();
    let id = make(&host, &SETTINGS, true).unwrap();
    assert_eq!(host.domain_info(id).unwrap().pauses, 1);
}

#[test]
fn whatever_step_fails_nothing_is_left() {
    let calls = {
        let host = FakeHypervisor::new();
        make(&host, &SETTINGS, false).unwrap();
        host.state.borrow().calls
    };
    assert!(calls > 30, "populating takes many steps: {calls}");
    let mut steps = Vec::new();
    for nth in 0..calls {
        let host = FakeHypervisor::new();
        host.fail_call(nth, Status::NoMemory);
        let error = make(&host, &SETTINGS, false).unwrap_err();
        let BuildError::Refused(step, Status::NoMemory) = error else {
            panic!("{error}");
        };
        steps.push(step);
        assert_eq!(host.domains().count(), 1, "after call {nth}");
    }
    steps.dedup();
    let want = [
        Step::Create,
        Step::Populate,
        Step::Write,
        Step::VcpuState,
        Step::Unpause,
    ];
    assert_eq!(steps, want);
}

#[test]
fn what_cannot_be_destroyed_is_named() {
    let host = FakeHypervisor::new();
    host.state.borrow_mut().host.free_bytes = 0;
    // The calls: create, populate (refused: no memory), destroy.
    host.fail_call(2, Status::Busy);
    let error = make(&host, &SETTINGS, false).unwrap_err().to_string();
    assert!(error.contains("cannot give it memory: NoMemory"), "{error}");
    assert!(error.contains("could not be destroyed: Busy"), "{error}");
}

#[test]
fn nothing_is_touched_before_the_image_is_checked() {
    let host = FakeHypervisor::new();
    let small = ["name=n", "memory=2", "kernel=module:k"];
    let error = make(&host, &small, false).unwrap_err().to_string();
    assert!(error.contains("give it more memory"), "{error}");
    let missing = ["name=n", "kernel=module:x"];
    let error = make(&host, &missing, false).unwrap_err().to_string();
    assert_eq!(error, "kernel: there is no boot module 'x'; there are: k r");
    assert_eq!(host.state.borrow().calls, 0);
}
