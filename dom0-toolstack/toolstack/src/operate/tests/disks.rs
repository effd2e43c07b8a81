//! Disks that move between stores of a host, with every refusal, failure and crash.

use super::*;
use crate::config::DiskTarget;
use crate::operate::block_migrate::{BlockMove, Destination, DiskChoice};
use crate::operate::migrate::{Direction, Job};
use crate::registry::Registry;
use crate::site::Stores;
use crate::site::fake::FIRST_SLOT;
use alloc::format;
use alloc::rc::Rc;
use alloc::vec::Vec;
use godwit_backends::fake::RamDisk;
use godwit_backends::storage::mirror::SwitchDisk;

const CONFIG: &str =
    "name='n'\nmemory=5\nkernel='module:s'\ndisk=['main/web,raw,vda','main/db,raw,vdb,ro']\n";
const BYTES: usize = 300 << 10;

/// A domain with two disks that have contents.
struct World {
    tools: Toolstack<FakeSite>,
    domain: DomainId,
}

fn world() -> World {
    let tools = toolstack();
    let files = &tools.site.files.files;
    files.borrow_mut().insert("n.cfg".into(), CONFIG.into());
    let made = block_on(tools.create("n.cfg", &[], false)).unwrap();
    let domain = made.domain;
    for (slot, name, byte) in [(FIRST_SLOT, "web", 7), (FIRST_SLOT + 1, "db", 9)] {
        let memory = tools.site.stores.memory();
        let disk = RamDisk::with_contents(Rc::clone(&memory), std::vec![byte; BYTES], 512);
        let disk = Rc::new(disk);
        let key = ("main".into(), name.into());
        let volumes = &tools.site.stores.volumes;
        volumes.borrow_mut().insert(key, Rc::clone(&disk));
        let switch = SwitchDisk::new(disk, memory, false);
        let mut disks = tools.site.devices.disks.borrow_mut();
        disks.insert((domain, slot), switch);
    }
    World { tools, domain }
}

fn to(choices: &[(u8, &str, Option<&str>)], rest: Option<&str>) -> BlockMove {
    let choice = |(index, store, volume): &(u8, &str, Option<&str>)| DiskChoice {
        index: *index,
        to: match store.starts_with("nbd") {
            true => Destination::Export(DiskTarget::parse(store).unwrap()),
            false => Destination::Store {
                store: (*store).into(),
                volume: volume.map(Into::into),
            },
        },
    };
    BlockMove {
        disks: choices.iter().map(choice).collect(),
        rest: rest.map(Into::into),
        bandwidth_bytes: None,
        delete_source: false,
    }
}

impl World {
    fn job(&self) -> Rc<Job> {
        self.tools.jobs.begin(Direction::Within, "n", "fast", 0)
    }

    fn carry(&self, wanted: &BlockMove) -> (Result<String, String>, Rc<Job>) {
        let job = self.job();
        let moved = block_on(self.tools.block_migrate(&job, self.domain, wanted));
        (moved.map_err(|error| error.to_string()), job)
    }

    fn targets(&self) -> Vec<String> {
        let entry = self.tools.registry.entry(self.domain).unwrap();
        let disks = entry.config.disks.iter();
        disks.map(|disk| disk.target.to_string()).collect()
    }

    fn volumes(&self) -> Vec<String> {
        let volumes = self.tools.site.stores.volumes.borrow();
        let names = volumes.keys();
        names
            .map(|(store, name)| format!("{store}/{name}"))
            .collect()
    }

    fn file(&self) -> String {
        let files = self.tools.site.files.files.borrow();
        String::from_utf8(files["n.cfg"].clone()).unwrap()
    }

    /// Everything is as it was before, and nothing is left over.
    fn assert_untouched(&self) {
        assert_eq!(self.targets(), ["main/web", "main/db"]);
        assert_eq!(self.volumes(), ["main/db", "main/web"]);
        assert_eq!(self.file(), CONFIG);
        let files = self.tools.site.files.files.borrow();
        assert!(files.keys().all(|path| !path.ends_with(".note")));
        let switch = self.tools.site.devices.disk(self.domain, FIRST_SLOT);
        assert!(self.tools.registry.reserve(self.domain).is_some());
        drop(switch);
    }
}

use crate::site::DeviceHost;

#[test]
fn all_disks_move_and_the_file_follows() {
    let world = world();
    let (moved, job) = world.carry(&to(&[(1, "fast", Some("data"))], Some("fast")));
    assert_eq!(
        moved.unwrap(),
        "domain 'n': vdb is fast/data, vda is fast/web"
    );
    assert_eq!(world.targets(), ["fast/web", "fast/data"]);
    let want = ["fast/data", "fast/web", "main/db.old", "main/web.old"];
    assert_eq!(world.volumes(), want);
    let file = world.file();
    assert!(
        file.contains("['fast/web,raw,vda','fast/data,raw,vdb,ro']"),
        "{file}"
    );
    let volumes = world.tools.site.stores.volumes.borrow();
    let web = &volumes[&("fast".into(), "web".into())];
    assert_eq!(web.contents(), std::vec![7; BYTES]);
    drop(volumes);
    // What a dom0 that starts now finds.
    let registry = Registry::default();
    let found = registry.recover(&world.tools.site.hypervisor, |_| false);
    assert_eq!(found.unwrap().found, [world.domain]);
    let entry = registry.entry(world.domain).unwrap();
    assert_eq!(entry.config.disks[0].target.to_string(), "fast/web");
    let told = job.lines(0).join("\n");
    for part in [
        "vda: main/web to fast/web, 300 KiB",
        "both equal, switched in",
        "n.cfg names fast/web now",
        "the old volume is kept as main/web.old",
    ] {
        assert!(told.contains(part), "{told}");
    }
    assert!(
        job.disks()
            .iter()
            .all(|disk| disk.switched && disk.percent() == 100)
    );
    let moved = world.tools.site.devices.disks_moved.borrow();
    assert_eq!(moved.len(), 2);
}

#[test]
fn the_old_volume_may_go_and_an_export_is_written_over() {
    let world = world();
    let memory = world.tools.site.stores.memory();
    let export = RamDisk::new(memory, 700, 512);
    let key = ("nbd://h:10809/e".into(), String::new());
    let volumes = &world.tools.site.stores.volumes;
    volumes.borrow_mut().insert(key, Rc::clone(&export));
    let mut wanted = to(&[(0, "nbd://h/e", None)], None);
    wanted.delete_source = true;
    let (moved, _) = world.carry(&wanted);
    assert_eq!(moved.unwrap(), "domain 'n': vda is nbd://h:10809/e");
    assert_eq!(export.contents()[..BYTES], std::vec![7; BYTES]);
    assert_eq!(world.volumes(), ["main/db", "nbd://h:10809/e/"]);
    // And back again, to a volume.
    let (moved, job) = world.carry(&to(&[(0, "main", None)], None));
    assert_eq!(moved.unwrap(), "domain 'n': vda is main/n-vda");
    let told = job.lines(0).join("\n");
    assert!(told.contains("nbd://h:10809/e keeps what it has"), "{told}");
    let is_remote = |moved: &(DomainId, u32, bool)| moved.2;
    let moved = world.tools.site.devices.disks_moved.borrow();
    let remote: Vec<bool> = moved.iter().map(is_remote).collect();
    assert_eq!(remote, [true, false]);
}

#[test]
fn every_reason_is_told_at_once() {
    let world = world();
    let wanted = to(
        &[
            (0, "fast", Some("x")),
            (5, "fast", None),
            (1, "absent", None),
        ],
        None,
    );
    block_on(world.tools.site.stores.create_volume("fast", "x", 512)).unwrap();
    let error = world.carry(&wanted).0.unwrap_err();
    for part in [
        "disk: it has no vdf",
        "volume: fast/x exists already",
        "store: there is no store 'absent'",
    ] {
        assert!(error.contains(part), "{error}");
    }
    let error = world.carry(&to(&[(0, "main", None)], None)).0.unwrap_err();
    assert_eq!(error, "itself: vda is main/web already");
    let error = world
        .carry(&to(&[(0, "nbd://h/e", None)], None))
        .0
        .unwrap_err();
    assert!(error.starts_with("store: "), "{error}");
    let memory = world.tools.site.stores.memory();
    let small = Rc::new(RamDisk::with_contents(memory, std::vec![0; 4096], 4096));
    let key = ("nbd://h:10809/e".into(), String::new());
    let volumes = &world.tools.site.stores.volumes;
    volumes.borrow_mut().insert(key, small);
    let error = world
        .carry(&to(&[(0, "nbd://h/e", None)], None))
        .0
        .unwrap_err();
    assert!(error.contains("sectors: vda has blocks of 512"), "{error}");
    assert!(
        error.contains("size: nbd://h:10809/e has 4096 bytes"),
        "{error}"
    );
    assert_eq!(world.targets(), ["main/web", "main/db"]);
}

#[test]
fn a_shared_volume_stays() {
    let world = world();
    let other = [
        "name=m",
        "memory=5",
        "kernel=module:s",
        "disk=['main/db,raw,vda,ro']",
    ];
    make(&world.tools, &other).unwrap();
    let error = world.carry(&to(&[(1, "fast", None)], None)).0.unwrap_err();
    assert!(
        error.contains("shared: vdb is main/db, which domain 'm' has too"),
        "{error}"
    );
    assert!(error.contains("move memory only"), "{error}");
}

#[test]
fn what_is_called_off_or_ends_leaves_nothing() {
    let world = world();
    let job = world.job();
    job.cancel();
    let moved = block_on(
        world
            .tools
            .block_migrate(&job, world.domain, &to(&[], Some("fast"))),
    );
    assert!(moved.unwrap_err().to_string().contains("called off"));
    world.assert_untouched();
    host(&world.tools).end(world.domain, ShutdownReason::PowerOff);
    let (moved, _) = world.carry(&to(&[], Some("fast")));
    assert!(moved.unwrap_err().contains("it has ended"));
    world.assert_untouched();
}

#[test]
fn a_note_that_cannot_be_kept_or_a_file_that_cannot_be_changed() {
    let world = world();
    let files = &world.tools.site.files.files;
    let odd = CONFIG.replace("main/web", "main\\x2fweb");
    files
        .borrow_mut()
        .insert("n.cfg".into(), odd.clone().into());
    let (moved, job) = world.carry(&to(&[(0, "fast", None)], None));
    moved.unwrap();
    assert_eq!(world.file(), odd);
    let told = job.lines(0).join("\n");
    assert!(
        told.contains("make the domain again with fast/web as vda"),
        "{told}"
    );
    // Whoever starts from it finds no such volume.
    assert!(!world.volumes().contains(&"main/web".into()));
}

#[test]
fn a_dom0_that_dies_leaves_the_disk_where_the_note_says() {
    let world = world();
    let path = "block-migrate-01010101-vda.note";
    let note = "01010101\nn\nvda\nmain/web\nfast/web\nn.cfg\n";
    let files = &world.tools.site.files.files;
    // While it was copied: there is no volume yet.
    files.borrow_mut().insert(path.into(), note.into());
    let told = block_on(world.tools.recover_disk_moves()).join("\n");
    assert!(told.contains("its disk is main/web as before"), "{told}");
    world.assert_untouched();
    // The volume had been entered, and nothing else was done.
    files.borrow_mut().insert(path.into(), note.into());
    block_on(world.tools.site.stores.create_volume("fast", "web", 512)).unwrap();
    let told = block_on(world.tools.recover_disk_moves()).join("\n");
    assert!(told.contains("fast/web is deleted"), "{told}");
    world.assert_untouched();
    // The file had been changed: a host that has lost its power starts from the new one.
    files.borrow_mut().insert(path.into(), note.into());
    let changed = CONFIG.replace("main/web", "fast/web");
    files.borrow_mut().insert("n.cfg".into(), changed.into());
    block_on(world.tools.site.stores.create_volume("fast", "web", 512)).unwrap();
    let told = block_on(world.tools.recover_disk_moves()).join("\n");
    assert!(told.contains("had been moved to fast/web"), "{told}");
    assert!(world.volumes().contains(&"fast/web".into()));
}
