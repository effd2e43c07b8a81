//! Replays the fuzzing corpora of disks and NBD servers.

#[path = "../../../tests/fuzz/bodies/fat.rs"]
mod fat;
#[path = "../../../tests/fuzz/bodies/gpt.rs"]
mod gpt;
#[path = "../../../tests/fuzz/bodies/journal.rs"]
mod journal;
#[path = "../../../tests/fuzz/bodies/nbd.rs"]
mod nbd;
#[path = "../../../tests/fuzz/bodies/patches.rs"]
mod patches;
#[path = "../../../tests/fuzz/bodies/replay.rs"]
mod replay;
#[path = "../../../tests/fuzz/bodies/replay_both_kinds.rs"]
mod replay_both_kinds;

use proptest::prelude::*;
use replay_both_kinds::replay_both_kinds;

#[test]
fn partition_tables() {
    replay_both_kinds("gpt", gpt::judge);
}

#[test]
fn file_systems() {
    replay_both_kinds("fat", fat::judge);
}

#[test]
fn journals() {
    replay_both_kinds("journal", journal::judge);
}

#[test]
fn nbd_servers() {
    replay_both_kinds("nbd", nbd::judge);
}

/// Patches where the structures are, rather than anywhere.
fn patch(places: &'static [u32], within: u32) -> impl Strategy<Value = Vec<u8>> {
    let offset = (proptest::sample::select(places), 0..within);
    let one = (offset, proptest::collection::vec(any::<u8>(), 1..5));
    proptest::collection::vec(one, 1..6).prop_map(|patches| {
        let mut input = Vec::new();
        for ((place, within), bytes) in patches {
            input.extend((place + within).to_le_bytes());
            input.push(bytes.len() as u8);
            input.extend(bytes);
        }
        input
    })
}

proptest! {
    /// Headers and first entries of both copies.
    #[test]
    fn partition_tables_of_anything(input in patch(&[0, 512, 1024, 0x3f_be00, 0x3f_fe00], 200)) {
        gpt::judge(&input);
    }

    #[test]
    fn nbd_servers_of_anything(input in proptest::collection::vec(any::<u8>(), 0..200)) {
        nbd::judge(&input);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Boot sector, table and root directory.
    #[test]
    fn file_systems_of_anything(input in patch(&[0, 512, 17920, 18320], 400)) {
        fat::judge(&input);
    }
}
