//! A domain that does not run: its configuration is never on both hosts, whatever is lost.

use super::*;
use crate::site::fake::kernel;

const PATH: &str = "guests/web.cfg";
const MOVING: &str = "guests/web.cfg.moving";
const TEXT: &str =
    "name=\"web\"\nkernel=\"module:s\"\nmemory=2\ndisk=[\"nbd://10.0.0.9/w,raw,vda,rw\"]\n";

fn files(toolstack: &Toolstack<FakeSite>) -> std::cell::RefMut<'_, BTreeMap<String, Vec<u8>>> {
    toolstack.site.files.files.borrow_mut()
}

fn has(toolstack: &Toolstack<FakeSite>, path: &str) -> bool {
    files(toolstack).contains_key(path)
}

fn ready() -> World {
    let world = world();
    files(&world.here).insert(PATH.into(), TEXT.into());
    world
}

fn go(world: &World, path: &str) -> Result<String, OperateError> {
    let moving = world.here.migrate_offline(&world.wire, "there", path);
    world.drive(moving, &mut |_| {})
}

#[test]
fn a_configuration_moves_and_makes_a_domain_there() {
    let world = ready();
    assert_eq!(go(&world, PATH).unwrap(), "guests/web.cfg is on there now");
    assert!(!has(&world.here, PATH) && !has(&world.here, MOVING));
    block_on(world.there.create(PATH, &[], false)).unwrap();
    let error = go(&world, PATH).unwrap_err().to_string();
    assert!(error.contains("there is no such file"), "{error}");
}

#[test]
fn what_cannot_move_stays_and_says_why() {
    let refused = |world: &World, path: &str, wanted: &str| {
        let error = go(world, path).unwrap_err().to_string();
        assert!(error.contains(wanted), "{error}");
        assert!(has(&world.here, PATH) && !has(&world.here, MOVING));
    };
    let world = ready();
    refused(&world, "keys/host.key", "ends in .cfg");
    host(&world.there).state.borrow_mut().host.free_bytes = 1 << 20;
    refused(&world, PATH, "MiB are needed");
    assert!(!has(&world.there, PATH));
    let world = ready();
    files(&world.there).insert(PATH.into(), b"name=\"x\"".into());
    refused(&world, PATH, "another file");
    let world = ready();
    block_on(world.here.create(PATH, &[], false)).unwrap();
    refused(&world, PATH, "busy: domain 'web'");
    let world = ready();
    let local = TEXT.replace("nbd://10.0.0.9/w", "main/w");
    files(&world.here).insert(PATH.into(), local.into());
    refused(&world, PATH, "disk: vda is on main/w");
}

#[test]
fn wherever_the_link_is_cut_it_is_never_on_both_and_the_second_time_settles_it() {
    let writes = {
        let world = ready();
        go(&world, PATH).unwrap();
        world.wire.weather.writes.get()
    };
    let mut unknown = 0;
    for cut in 0..writes {
        let world = ready();
        let weather = Rc::clone(&world.wire.weather);
        weather.left.set(Some(cut));
        let _ = go(&world, PATH);
        assert!(
            !(has(&world.here, PATH) && has(&world.there, PATH)),
            "{cut}"
        );
        unknown += u32::from(has(&world.here, MOVING));
        weather.left.set(None);
        weather.is_down.set(false);
        if has(&world.here, PATH) || has(&world.here, MOVING) {
            go(&world, PATH).unwrap();
        }
        assert!(has(&world.there, PATH), "{cut}");
        assert!(
            !has(&world.here, PATH) && !has(&world.here, MOVING),
            "{cut}"
        );
    }
    assert!(unknown > 0);
}

/// A configuration whose images are files.
fn with_images() -> World {
    let world = ready();
    let text = TEXT.replace("module:s", "boot/kernel-7") + "ramdisk=\"boot/ramdisk-7\"\n";
    files(&world.here).insert(PATH.into(), text.into());
    files(&world.here).insert("boot/kernel-7".into(), kernel(4096));
    files(&world.here).insert("boot/ramdisk-7".into(), std::vec![9; 300_000]);
    world
}

#[test]
fn kernels_that_are_files_go_with_it_and_are_made_a_domain_of() {
    let world = with_images();
    go(&world, PATH).unwrap();
    for image in ["boot/kernel-7", "boot/ramdisk-7"] {
        assert_eq!(files(&world.there)[image], files(&world.here)[image]);
    }
    block_on(world.there.create(PATH, &[], false)).unwrap();
    // What is there already is not sent, and not written over.
    let sent = world.wire.weather.writes.get();
    let world = with_images();
    files(&world.there).insert("boot/ramdisk-7".into(), std::vec![9; 300_000]);
    go(&world, PATH).unwrap();
    assert!(world.wire.weather.writes.get() < sent);
    let world = with_images();
    files(&world.there).insert("boot/ramdisk-7".into(), b"another".to_vec());
    let why = go(&world, PATH).unwrap_err().to_string();
    assert!(
        why.contains("boot/ramdisk-7: there is another file"),
        "{why}"
    );
    assert!(
        has(&world.here, PATH) && !has(&world.there, "boot/kernel-7"),
        "left over"
    );
}

#[test]
fn wherever_the_link_is_cut_no_image_is_left_without_its_configuration() {
    let world = with_images();
    go(&world, PATH).unwrap();
    for cut in 0..world.wire.weather.writes.get() {
        let world = with_images();
        world.wire.weather.left.set(Some(cut));
        let _ = go(&world, PATH);
        let image = has(&world.there, "boot/kernel-7") || has(&world.there, "boot/ramdisk-7");
        assert_eq!(image, has(&world.there, PATH), "cut {cut}");
    }
}
