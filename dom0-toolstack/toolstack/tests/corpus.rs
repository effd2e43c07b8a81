//! Replays the fuzzing corpus of configurations, command lines, kernels, saved domains and the channel.

#[path = "../../../tests/fuzz/bodies/channel.rs"]
mod channel;
#[path = "../../../tests/fuzz/bodies/command_line.rs"]
mod command_line;
#[path = "../../../tests/fuzz/bodies/config.rs"]
mod config;
#[path = "../../../tests/fuzz/bodies/guest_image.rs"]
mod guest_image;
#[path = "../../../tests/fuzz/bodies/replay.rs"]
mod replay;
#[path = "../../../tests/fuzz/bodies/replay_both_kinds.rs"]
mod replay_both_kinds;
#[path = "../../../tests/fuzz/bodies/saved_stream.rs"]
mod saved_stream;

use replay_both_kinds::replay_both_kinds;

#[test]
fn configurations() {
    replay_both_kinds("config", config::judge);
}

#[test]
fn command_lines() {
    replay_both_kinds("command_line", command_line::judge);
}

#[test]
fn kernels_of_guests() {
    replay_both_kinds("guest_image", guest_image::judge);
}

#[test]
fn saved_domains() {
    replay_both_kinds("saved_stream", saved_stream::judge);
}

#[test]
fn channels_keys_and_hosts() {
    replay_both_kinds("channel", channel::judge);
}
