//! A dry run measures, predicts and leaves nothing behind; a move is told with what was predicted.

use super::*;

fn plan(world: &World, options: &MoveOptions) -> Result<String, OperateError> {
    let planning = world
        .here
        .plan_move(&world.wire, "there", world.domain, options);
    let mut step = 0;
    world.drive(planning, &mut |world| world.scribble(&mut step))
}

/// The source is as it was, and nothing is at the destination.
fn untouched(world: &World) {
    assert!(!world.only_one_runs("a dry run"));
    assert!(world.here.jobs.all().is_empty() && world.there.jobs.all().is_empty());
}

#[test]
fn a_dry_run_predicts_each_mode_and_changes_nothing() {
    let world = world();
    let told = plan(&world, &MoveOptions::default()).unwrap();
    untouched(&world);
    let lines: Vec<&str> = told.lines().collect();
    assert!(lines[0].contains("'n' can move to there"), "{told}");
    let row = |mode: &str| {
        let row = lines.iter().find(|line| line.starts_with(mode)).unwrap();
        let cells: Vec<String> = row.split_whitespace().map(String::from).collect();
        cells
    };
    let (live, stopped) = (row("live"), row("stop-and-copy"));
    assert_eq!((live.len(), stopped.len()), (6, 6), "{told}");
    assert_eq!(stopped[2], "0");
    // Some of the pages that the guest scribbles on were seen.
    let dirty = lines.iter().find(|line| line.contains("written to:"));
    assert!(!dirty.unwrap().contains(" 0 in "), "{told}");
    // And the move itself can follow.
    world.migrate(World::options(), |_| {}).unwrap();
    assert!(world.only_one_runs("the move after its dry run"));
}

#[test]
fn a_dry_run_tells_every_objection_and_fails_cleanly() {
    let world = world();
    host(&world.there).state.borrow_mut().wall_clock = Ok(1);
    let why = plan(&world, &MoveOptions::default()).unwrap_err();
    assert!(why.to_string().starts_with("there: clock: "), "{why}");
    untouched(&world);
    let calls = {
        let world = self::world();
        let before = host(&world.here).state.borrow().calls;
        plan(&world, &MoveOptions::default()).unwrap();
        host(&world.here).state.borrow().calls - before
    };
    for nth in (0..calls).step_by(5) {
        let world = self::world();
        host(&world.here).fail_call(nth, Status::NoMemory);
        let _ = plan(&world, &MoveOptions::default());
        untouched(&world);
    }
    let writes = world.wire.weather.writes.get();
    for cut in 0..writes + 8 {
        let world = self::world();
        world.wire.weather.left.set(Some(cut));
        let _ = plan(&world, &MoveOptions::default());
        untouched(&world);
    }
}

#[test]
fn a_move_is_told_with_what_was_predicted_and_the_next_knows_the_host() {
    let world = world();
    let mut step = 0;
    let told = world.migrate(World::options(), |world| world.scribble(&mut step));
    let told = told.unwrap();
    assert!(told.contains("\npredicted and actual: "), "{told}");
    let jobs = world.here.jobs.all();
    let (foreseen, actual) = (jobs[0].foreseen().unwrap(), jobs[0].actual().unwrap());
    assert!(actual.bytes > 0 && actual.rounds > 0 && actual.duration_us > 0);
    let within = |spread: crate::operate::migrate::Spread, value: u64| {
        // A rough prediction, of the right size.
        (spread.least / 2..=spread.most * 2).contains(&value)
    };
    assert!(within(foreseen.bytes, actual.bytes), "{told}");
    assert!(
        told.contains(&std::format!("and {} rounds", actual.rounds)),
        "{told}"
    );
}

#[test]
fn a_restart_of_dom0_ends_neither_history_nor_what_was_learned() {
    let has_file = [true, false];
    for has_file in has_file {
        let world = world();
        world.here.site.files.absent.set(!has_file);
        world.migrate(World::options(), |_| {}).unwrap();
        world.here.jobs.set_limit(5);
        block_on(world.here.remember_moves());
        let shown = crate::show::history(&world.here.jobs.all());
        let here = Toolstack::new(world.here.site, toolstack().modules);
        block_on(here.recover()).unwrap();
        assert_eq!(here.jobs.limit(), 5);
        assert_eq!(crate::show::history(&here.jobs.all()), shown, "{has_file}");
        // It knows the host it has moved to.
        let domain = make(&here, &small()).unwrap();
        let mut there = self::world().there;
        there.site.clock_us = Rc::clone(&here.site.clock_us);
        let wire = world.wire;
        let world = World {
            here,
            there,
            wire,
            domain,
        };
        let told = plan(&world, &MoveOptions::default()).unwrap();
        assert!(told.contains("as in the last move there"), "{told}");
    }
}

#[test]
fn a_damaged_memory_of_moves_is_told_of_and_begun_anew() {
    let world = world();
    let mut files = world.here.site.files.files.borrow_mut();
    files.insert(
        "moves.state".into(),
        b"godwit-moves 1\nlimit\t9999\n".to_vec(),
    );
    drop(files);
    let told = block_on(world.here.recover()).unwrap().join("\n");
    assert!(told.contains("begins anew"), "{told}");
    assert_eq!(world.here.jobs.limit(), crate::operate::migrate::LIMIT);
    block_on(world.here.remember_moves());
    let again = Toolstack::new(world.here.site, Vec::new());
    let told = block_on(again.recover()).unwrap().join("\n");
    assert!(!told.contains("begins anew"), "{told}");
}
