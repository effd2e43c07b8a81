//! Making, ending, changing and finding domains again on the fake, and failing at every step.

mod disks;
mod failing;
mod living;
mod moving;
mod renaming;
mod saving;
mod updating;

use super::*;
use crate::host::Hypervisor;
use crate::host::fake::FakeHypervisor;
use crate::loader::START_INFO_MAGIC;
use crate::registry::Phase;
use crate::site::Device;
pub(crate) use crate::site::fake::kernel;
use crate::site::fake::{FakeSite, block_on};
use alloc::boxed::Box;
use alloc::string::{String, ToString};
use godwit_abi::{DomainId, DomainState, ShutdownReason, Status, text};
use godwit_records::{Record, VcpuState};

/// A toolstack with a kernel of 3 MiB, larger than one copy, as module `k` and as file `boot/k`, a small
/// kernel as module `s`, a ramdisk as module `r`.
pub(crate) fn toolstack() -> Toolstack<FakeSite> {
    let leaked = |bytes| -> &'static [u8] { Box::leak(kernel(bytes).into_boxed_slice()) };
    let kernel = leaked(3 << 20);
    let site = FakeSite::default();
    site.files
        .files
        .borrow_mut()
        .insert("boot/k".into(), kernel.into());
    let modules = std::vec![
        BootModule::new("k", kernel),
        BootModule::new("r", b"disk"),
        BootModule::new("s", leaked(1 << 16))
    ];
    Toolstack::new(site, modules)
}

pub(crate) fn make(
    toolstack: &Toolstack<FakeSite>,
    settings: &[&str],
) -> Result<DomainId, OperateError> {
    let all: Vec<String> = settings.iter().map(|text| String::from(*text)).collect();
    let made = block_on(toolstack.create("/dev/null", &all, false));
    made.map(|made| made.domain)
}

fn host(toolstack: &Toolstack<FakeSite>) -> &FakeHypervisor {
    &toolstack.site.hypervisor
}

pub(crate) const SETTINGS: [&str; 11] = [
    "name=n",
    "memory=5",
    "maxmem=6",
    "rng=1",
    "balloon=1",
    "kernel=module:k",
    "ramdisk=module:r",
    "extra=hi",
    "cpus=1",
    "disk=['main/web,raw,xvda', 'nbd://h/e,raw,xvdb,ro']",
    "vif=['type=nat,forward=tcp:22:22']",
];

#[test]
fn a_domain_is_made_and_runs() {
    let toolstack = toolstack();
    let host = host(&toolstack);
    let id = make(&toolstack, &SETTINGS).unwrap();
    let info = host.domain_info(id).unwrap();
    assert_eq!(text(&info.name), "n");
    assert_eq!(info.state, DomainState::Running as u32);
    assert_eq!(
        (info.memory_pages, info.vcpus, info.weight),
        (6 * 256, 1, 256)
    );
    assert_eq!((info.uuid[6] >> 4, info.uuid[8] >> 6), (4, 2));
    let mut page = [0; 4096];
    host.memory_read(id, (1 << 20) + 700 * 4096, &mut page)
        .unwrap();
    assert_eq!(page, [700u32 as u8; 4096]);
    let (record, affinity, clock) = host
        .with(id, |domain| {
            let record = domain.vcpu_states[&0].clone();
            (record, domain.affinity.clone(), domain.clock_ns)
        })
        .unwrap();
    let state = VcpuState::decode(&record).unwrap();
    host.memory_read(id, state.gprs[3], &mut page).unwrap();
    assert_eq!(page[..4], START_INFO_MAGIC.to_le_bytes());
    assert_eq!(
        (affinity[&0], clock),
        (0b10, Some(1_700_000_000_000_000_000))
    );
    let devices: Vec<String> = toolstack
        .site
        .devices
        .of(id)
        .iter()
        .map(Device::to_string)
        .collect();
    assert_eq!(devices.len(), 5);
    assert_eq!(devices[..2], ["disk vda", "disk vdb"]);
    assert!(devices[2].starts_with("vif 00:16:3e:"));
    assert_eq!(devices[3..], ["rng", "balloon"]);
    assert_eq!(toolstack.site.devices.targets.borrow()[&id], 5 * 256);
    let entry = toolstack.registry.entry(id).unwrap();
    assert_eq!((entry.phase, entry.links.len()), (Phase::Live, 5));
    assert_eq!((entry.links[0].slot, entry.target_mib), (4, 5));
    assert!(
        toolstack.registry.reserve(id).is_some(),
        "the operation has ended"
    );
}

#[test]
fn from_a_file_and_paused() {
    let toolstack = toolstack();
    let text = b"name = 'f'\nmemory = 8\nkernel = 'boot/k'\n";
    toolstack
        .site
        .files
        .files
        .borrow_mut()
        .insert("f.cfg".into(), text.into());
    let settings = ["vcpus=2".into(), "rng=0".into(), "balloon=0".into()];
    let made = block_on(toolstack.create("f.cfg", &settings, true)).unwrap();
    let info = host(&toolstack).domain_info(made.domain).unwrap();
    assert_eq!((made.name.as_str(), info.pauses, info.vcpus), ("f", 1, 2));
    assert!(toolstack.site.devices.of(made.domain).is_empty());
    let entry = toolstack.registry.entry(made.domain).unwrap();
    assert_eq!(entry.source.as_deref(), Some("f.cfg"));
    let absent = block_on(toolstack.create("g.cfg", &[], false)).unwrap_err();
    assert_eq!(absent.to_string(), "g.cfg: there is no such file");
    toolstack.site.files.absent.set(true);
    let absent = block_on(toolstack.create("f.cfg", &[], false)).unwrap_err();
    assert!(
        absent
            .to_string()
            .contains("no disk has a partition GODWIT"),
        "{absent}"
    );
}

#[test]
fn everything_that_is_wrong_is_said_at_its_place_and_nothing_is_touched() {
    let toolstack = toolstack();
    make(
        &toolstack,
        &[
            "name=n",
            "memory=5",
            "kernel=module:k",
            "disk=a/b,,vda",
            "vif=['type=nat,mac=02:00:00:00:00:01,forward=tcp:22:22']",
        ],
    )
    .unwrap();
    let text = "name='n'\nmemory=400\nkernel='module:x'\nramdisk='boot/r'\ncpus='7'\n\
        disk=['a/b,,vdb,ro',\n 'a/absent,,vda']\n\
        vif=['mac=02:00:00:00:00:01',\n 'type=nat,forward=tcp:22:2']\n";
    toolstack
        .site
        .files
        .files
        .borrow_mut()
        .insert("f.cfg".into(), text.into());
    let domains = host(&toolstack).domains().count();
    let error = block_on(toolstack.create("f.cfg", &[], false))
        .unwrap_err()
        .to_string();
    let said: Vec<&str> = error
        .lines()
        .filter(|line| !line.starts_with(' '))
        .collect();
    let want = [
        "f.cfg:1:6: there is a domain 'n' already (id 1)",
        "f.cfg:2:8: 404 MiB are needed and 295 MiB are free",
        "f.cfg:3:8: there is no boot module 'x'; there are: k r s",
        "f.cfg:4:9: there is no file 'boot/r'",
        "f.cfg:5:6: the host has only the CPUs 0 to 1",
        "f.cfg:6:7: 'a/b' is in use by domain 'n'",
        "f.cfg:7:2: there is no volume 'absent'",
        "f.cfg:8:6: the domain 'n' has this mac already",
        "f.cfg:9:2: 'tcp:22:2': domain 'n' has this port of the host",
    ];
    assert_eq!(said, want);
    assert_eq!(host(&toolstack).domains().count(), domains);
    let small = ["name=m", "memory=2", "kernel=module:k"];
    let error = make(&toolstack, &small).unwrap_err().to_string();
    assert!(error.contains("give it more memory"), "{error}");
}
