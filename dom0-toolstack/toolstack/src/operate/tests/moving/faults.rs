//! A move whose link is cut, or one of whose calls fails, wherever it is.

use super::*;

/// After everything has healed, somebody who waits has an answer: the future ends by itself.
#[test]
fn wherever_the_link_is_cut_one_copy_runs() {
    cut_everywhere(world, MoveOptions::default());
}

pub(super) fn cut_everywhere(world: impl Fn() -> World, options: MoveOptions) {
    let whole = {
        let world = world();
        world.migrate(options, |_| {}).unwrap();
        world.wire.weather.writes.get()
    };
    let mut moved = 0;
    for cut in 0..whole {
        let world = world();
        let weather = Rc::clone(&world.wire.weather);
        weather.left.set(Some(cut));
        let mut down = 0;
        let _ = world.migrate(options, |_| {
            down += u32::from(weather.is_down.get());
            // It heals after a while.
            if down == 40_000 {
                weather.left.set(None);
                weather.is_down.set(false);
            }
        });
        moved += u32::from(world.only_one_runs(&std::format!("cut at write {cut}")));
    }
    assert!(moved > 0 && (moved as usize) < whole, "{moved} of {whole}");
}

#[test]
fn whatever_call_fails_one_copy_runs() {
    fail_everything(|| world_of(40), MoveOptions::default());
}

fn fail_everything(world: impl Fn() -> World, options: MoveOptions) {
    let calls = |which: fn(&World) -> usize| {
        let world = world();
        let before = which(&world);
        world.migrate(options, |_| {}).unwrap();
        which(&world) - before
    };
    let here = calls(|world| host(&world.here).state.borrow().calls);
    let there = calls(|world| host(&world.there).state.borrow().calls);
    let devices_here = calls(|world| world.here.site.devices.calls.get());
    let devices_there = calls(|world| world.there.site.devices.calls.get());
    assert!(here > 100 && there > 30 && devices_here > 3 && devices_there > 3);
    for nth in 0..here {
        let world = world();
        host(&world.here).fail_call(nth, Status::NoMemory);
        let _ = world.migrate(options, |_| {});
        world.only_one_runs(&std::format!("call {nth} here"));
    }
    for nth in 0..there {
        let world = world();
        host(&world.there).fail_call(nth, Status::NoMemory);
        let _ = world.migrate(options, |_| {});
        world.only_one_runs(&std::format!("call {nth} there"));
    }
    for nth in 0..devices_here {
        let world = world();
        let now = world.here.site.devices.calls.get();
        world.here.site.devices.fail.set(Some(now + nth));
        let _ = world.migrate(options, |_| {});
        world.only_one_runs(&std::format!("device call {nth} here"));
    }
    for nth in 0..devices_there {
        let world = world();
        let now = world.there.site.devices.calls.get();
        world.there.site.devices.fail.set(Some(now + nth));
        let _ = world.migrate(options, |_| {});
        world.only_one_runs(&std::format!("device call {nth} there"));
    }
}
