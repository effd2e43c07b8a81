//! What a distribution's session manager does with the power button: switches the machine off.

use crate::arguments::Arguments;
use std::fs::{self, File};
use std::io::Read;
use std::process::Command;

/// Bytes of an input event (Linux, `struct input_event`): two 64-bit times, type, code, value.
const EVENT_BYTES: usize = 24;
/// Type and code of a press of the power key.
const KEY: u16 = 1;
const POWER: u16 = 116;

pub(crate) fn run(_: &Arguments) -> Result<(), String> {
    let mut devices = Vec::new();
    for entry in fs::read_dir("/dev/input").map_err(|error| format!("/dev/input: {error}"))? {
        let path = entry.map_err(|error| error.to_string())?.path();
        devices.extend(File::open(path));
    }
    if devices.is_empty() {
        return Err("no input device: the machine has no power button".to_owned());
    }
    println!("POWER button watched");
    let watchers: Vec<_> = devices
        .into_iter()
        .map(|device| std::thread::spawn(move || watch(device)))
        .collect();
    for watcher in watchers {
        // A device that went away has nothing more to say.
        let _ = watcher.join();
    }
    Err("all input devices are gone".to_owned())
}

fn watch(mut device: File) {
    let mut event = [0; EVENT_BYTES];
    while device.read_exact(&mut event).is_ok() {
        if is_power_press(&event) {
            println!("POWER button pressed");
            // By its path: neither ramdisk nor root disk has its applets as files. It returns only
            // when it fails; the guest stays on then, and whoever pressed sees that.
            let tried = Command::new("/bin/busybox")
                .args(["poweroff", "-f"])
                .status();
            println!("POWER off failed: {tried:?}");
        }
    }
}

fn is_power_press(event: &[u8; EVENT_BYTES]) -> bool {
    let half = |at: usize| u16::from_le_bytes([event[at], event[at + 1]]);
    half(16) == KEY && half(18) == POWER && event[20] == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_press_counts() {
        let mut event = [0; EVENT_BYTES];
        event[16..22].copy_from_slice(&[1, 0, 116, 0, 1, 0]);
        assert!(is_power_press(&event));
        event[20] = 0;
        assert!(!is_power_press(&event), "the release");
    }
}
