//! A configuration as text, in the syntax it is read from: reading it back gives the same.

use super::Config;
use crate::show::uuid_text;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::{Display, Write};

impl Config {
    /// The configuration as a file.
    pub fn render(&self) -> String {
        let mut out = String::new();
        let mut say = |key: &str, value: String| {
            let _ = writeln!(out, "{key} = {value}");
        };
        say("name", quoted(&self.name));
        if let Some(uuid) = &self.uuid {
            say("uuid", quoted(&uuid_text(uuid)));
        }
        say("memory", format!("{}", self.memory_mib));
        say("maxmem", format!("{}", self.memory_max_mib));
        say("vcpus", format!("{}", self.vcpus));
        say("kernel", quoted(&format!("{}", self.kernel)));
        if let Some(ramdisk) = &self.ramdisk {
            say("ramdisk", quoted(&format!("{ramdisk}")));
        }
        say("cmdline", quoted(&self.cmdline));
        say("cpu_weight", format!("{}", self.weight));
        say("cap", format!("{}", self.cap_percent));
        if !self.cpus.is_empty() {
            let sets: Vec<String> = self
                .cpus
                .iter()
                .map(|set| super::cpus::show(*set))
                .collect();
            say("cpus", list(&sets));
        }
        say("cpu_policy", quoted(self.cpu_policy.word()));
        say("disk", list(&self.disks));
        say("vif", list(&self.vifs));
        let flags = [
            ("console", self.console),
            ("rng", self.rng),
            ("balloon", self.balloon),
            ("autostart", self.autostart),
        ];
        for (key, on) in flags {
            say(key, format!("{}", u8::from(on)));
        }
        say("on_poweroff", quoted(self.end.on_poweroff.word()));
        say("on_reboot", quoted(self.end.on_reboot.word()));
        say("on_crash", quoted(self.end.on_crash.word()));
        out
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn list(entries: &[impl Display]) -> String {
    let texts: Vec<String> = entries
        .iter()
        .map(|entry| quoted(&format!("{entry}")))
        .collect();
    format!("[{}]", texts.join(", "))
}
