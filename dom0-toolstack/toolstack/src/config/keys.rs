//! The keys of a configuration: what each may hold, and the limits they keep between them.

mod devices;

use super::report::{Place, Places, Problem};
use super::text::{Setting, Value};
use super::{
    BALLOON_DEFAULT, CAP_PERCENT_MAX, CMDLINE_BYTES_MAX, Config, CpuPolicy, EndAction, EndActions,
    Image, MEMORY_MIB_DEFAULT, MEMORY_MIB_MAX, MODULE_PREFIX, NAME_BYTES_MAX, PATH_BYTES_MAX,
    RNG_DEFAULT, VCPUS_MAX, WEIGHT_DEFAULT, cpus,
};
use crate::operate::migrate::INCOMING;
use crate::suggest::nearest;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::RangeInclusive;

/// The keys that are understood.
pub const KEYS: &[&str] = &[
    "name",
    "uuid",
    "memory",
    "maxmem",
    "vcpus",
    "kernel",
    "ramdisk",
    "extra",
    "cmdline",
    "root",
    "cpu_weight",
    "cap",
    "cpus",
    "cpu_policy",
    "disk",
    "vif",
    "serial",
    "console",
    "rng",
    "balloon",
    "autostart",
    "on_poweroff",
    "on_reboot",
    "on_crash",
    "type",
];

/// Keys of `xl.cfg` that Godwit knows and does not have yet.
const KEYS_LATER: &[&str] = &[
    "bootloader",
    "builder",
    "cpuid",
    "maxvcpus",
    "nic",
    "on_soft_reset",
    "on_watchdog",
    "pci",
    "pool",
    "vfb",
];

/// Other values of `on_…` that `xl.cfg` knows.
const ACTIONS_LATER: &[&str] = &[
    "rename-restart",
    "coredump-destroy",
    "coredump-restart",
    "soft-reset",
];

/// Keys whose bare value on a command line is a text even if it looks like a number.
pub(super) fn is_text(key: &str) -> bool {
    ![
        "memory",
        "maxmem",
        "vcpus",
        "cpu_weight",
        "cap",
        "console",
        "rng",
        "balloon",
        "autostart",
    ]
    .contains(&key)
}

/// Checks settings, of which no two have the same key, and makes a configuration of them. `None`
/// only with a problem.
pub(super) fn check(
    settings: Vec<Setting>,
    problems: &mut Vec<Problem>,
) -> Option<(Config, Places)> {
    for setting in &settings {
        if !KEYS.contains(&setting.key.as_str()) {
            problems.push(unknown_key(setting));
        }
    }
    let end_of_first = Place {
        source: 0,
        offset: 0,
    };
    let places = Places {
        keys: settings
            .iter()
            .map(|setting| (setting.key.clone(), setting.value_place))
            .collect(),
        ..Places::default()
    };
    let mut keys = Keys {
        settings,
        problems,
        nowhere: end_of_first,
        places,
    };
    let config = keys.config()?;
    Some((config, keys.places))
}

/// Why a text, after "the name", can be no domain's name.
pub fn name_problem(name: &str) -> Option<&'static str> {
    if name.len() > NAME_BYTES_MAX {
        Some("is longer than 63 bytes")
    } else if name.chars().any(char::is_control) {
        Some("contains a control character")
    } else if name.trim().is_empty() {
        Some("is empty")
    } else if name.bytes().all(|byte| byte.is_ascii_digit()) {
        Some("is a number, which would be taken for a domain's id")
    } else if name.ends_with(INCOMING) {
        Some("ends in --incoming, as only copies of domains that move to localhost do")
    } else {
        None
    }
}

const _: () = assert!(NAME_BYTES_MAX == 63, "as the sentence says");

fn unknown_key(setting: &Setting) -> Problem {
    let key = setting.key.as_str();
    let what = if KEYS_LATER.contains(&key) {
        format!("not implemented: the key '{key}'")
    } else {
        match nearest(key, KEYS.iter().chain(KEYS_LATER).copied()) {
            Some(near) => format!("unknown key '{key}': did you mean '{near}'?"),
            None => format!("unknown key '{key}'; there are: {}", KEYS.join(" ")),
        }
    };
    Problem {
        place: setting.key_place,
        what,
    }
}

struct Keys<'a> {
    settings: Vec<Setting>,
    problems: &'a mut Vec<Problem>,
    /// Where something missing is reported.
    nowhere: Place,
    places: Places,
}

impl Keys<'_> {
    fn config(&mut self) -> Option<Config> {
        self.check_word("type", &["pvh"], &["hvm"]);
        self.check_word("serial", &["pty"], &["none"]);
        let memory_mib = self.number("memory", 1..=MEMORY_MIB_MAX);
        let memory_mib = memory_mib.unwrap_or(MEMORY_MIB_DEFAULT);
        let name = self.name();
        let uuid = self.uuid();
        let balloon = self.flag("balloon").unwrap_or(BALLOON_DEFAULT);
        let memory_max_mib = self.memory_max(memory_mib, balloon);
        let vcpus = self.number("vcpus", 1..=u64::from(VCPUS_MAX));
        let vcpus = vcpus.unwrap_or(1) as u32;
        let kernel = self.image("kernel");
        if kernel.is_none() && !self.is_set("kernel") {
            self.missing("kernel", "kernel=\"module:NAME\" or a path");
        }
        let ramdisk = self.image("ramdisk");
        let cmdline = self.cmdline();
        let weight = self.number("cpu_weight", 1..=65535);
        let cap = self.number("cap", 0..=u64::from(CAP_PERCENT_MAX));
        Some(Config {
            uuid,
            memory_mib,
            memory_max_mib,
            vcpus,
            ramdisk,
            cmdline,
            weight: weight.map_or(WEIGHT_DEFAULT, |weight| weight as u32),
            cap_percent: cap.unwrap_or(0) as u32,
            cpus: self.cpus(vcpus),
            cpu_policy: self.cpu_policy(),
            disks: self.disks(),
            vifs: self.vifs(),
            console: self.flag("console").unwrap_or(false),
            rng: self.flag("rng").unwrap_or(RNG_DEFAULT),
            balloon,
            autostart: self.flag("autostart").unwrap_or(false),
            end: self.end(),
            name: name?,
            kernel: kernel?,
        })
    }

    fn end(&mut self) -> EndActions {
        let end = EndActions::default();
        EndActions {
            on_poweroff: self.action("on_poweroff").unwrap_or(end.on_poweroff),
            on_reboot: self.action("on_reboot").unwrap_or(end.on_reboot),
            on_crash: self.action("on_crash").unwrap_or(end.on_crash),
        }
    }

    fn flag(&mut self, key: &str) -> Option<bool> {
        self.number(key, 0..=1).map(|number| number == 1)
    }

    fn is_set(&self, key: &str) -> bool {
        self.settings.iter().any(|setting| setting.key == key)
    }

    fn complain(&mut self, place: Place, what: String) {
        self.problems.push(Problem { place, what });
    }

    fn missing(&mut self, key: &str, example: &str) {
        let what = format!("'{key}' is missing: set {example}");
        self.complain(self.nowhere, what);
    }

    fn number(&mut self, key: &str, range: RangeInclusive<u64>) -> Option<u64> {
        let setting = self.settings.iter().find(|setting| setting.key == key)?;
        let place = setting.value_place;
        let (least, most) = (range.start(), range.end());
        match setting.value {
            Value::Number(number) if range.contains(&number) => Some(number),
            Value::Number(_) | Value::Text(_) | Value::List(_) => {
                let what = format!("'{key}' is a number from {least} to {most}");
                self.complain(place, what);
                None
            }
        }
    }

    /// A text without control characters.
    fn text(&mut self, key: &str, bytes_max: usize) -> Option<(String, Place)> {
        let setting = self.settings.iter().find(|setting| setting.key == key)?;
        let place = setting.value_place;
        let what = match &setting.value {
            Value::Text(text) if text.len() > bytes_max => {
                format!("'{key}' is longer than {bytes_max} bytes")
            }
            Value::Text(text) if text.chars().any(char::is_control) => {
                format!("'{key}' contains a control character")
            }
            Value::Text(text) => return Some((text.clone(), place)),
            Value::Number(_) | Value::List(_) => format!("'{key}' is a \"text\""),
        };
        self.complain(place, what);
        None
    }

    fn name(&mut self) -> Option<String> {
        if !self.is_set("name") {
            self.missing("name", "name=\"NAME\"");
        }
        let (name, place) = self.text("name", NAME_BYTES_MAX)?;
        let Some(what) = name_problem(&name) else {
            return Some(name);
        };
        self.complain(place, format!("'name' {what}"));
        None
    }

    fn uuid(&mut self) -> Option<[u8; 16]> {
        let (text, place) = self.text("uuid", 36)?;
        let uuid = uuid(&text);
        if uuid.is_none() {
            let what = "'uuid' has the form 01234567-89ab-cdef-0123-456789abcdef";
            self.complain(place, what.into());
        }
        uuid
    }

    fn memory_max(&mut self, memory_mib: u64, balloon: bool) -> u64 {
        let Some(most) = self.number("maxmem", 1..=MEMORY_MIB_MAX) else {
            return memory_mib;
        };
        let place = self.place_of("maxmem");
        if most < memory_mib {
            let what = format!("'maxmem' ({most}) is less than 'memory' ({memory_mib})");
            self.complain(place, what);
        } else if most > memory_mib && !balloon {
            let what = "'maxmem' above 'memory' needs balloon=1";
            self.complain(place, what.into());
        }
        most
    }

    /// Where a key that is set has its value.
    fn place_of(&self, key: &str) -> Place {
        let found = self.settings.iter().find(|setting| setting.key == key);
        found.expect("it was just read").value_place
    }

    fn image(&mut self, key: &str) -> Option<Image> {
        let (text, place) = self.text(key, PATH_BYTES_MAX)?;
        let what = match text.strip_prefix(MODULE_PREFIX) {
            Some("") => format!("'{key}' names no module after '{MODULE_PREFIX}'"),
            Some(name) => return Some(Image::Module(name.into())),
            None if text.is_empty() => format!("'{key}' is empty"),
            None => return Some(Image::File(text)),
        };
        self.complain(place, what);
        None
    }

    fn cpu_policy(&mut self) -> CpuPolicy {
        let Some((text, place)) = self.text("cpu_policy", 32) else {
            return CpuPolicy::default();
        };
        let all = [CpuPolicy::Portable, CpuPolicy::Host];
        let found = all.into_iter().find(|policy| policy.word() == text);
        found.unwrap_or_else(|| {
            let what = format!("'cpu_policy' cannot be '{text}'; use \"portable\" or \"host\"");
            self.complain(place, what);
            CpuPolicy::default()
        })
    }

    /// As `xl` does it: `cmdline` as it stands, or `root=` and `extra` put together.
    fn cmdline(&mut self) -> String {
        let whole = self.text("cmdline", CMDLINE_BYTES_MAX);
        let root = self.text("root", CMDLINE_BYTES_MAX);
        let extra = self.text("extra", CMDLINE_BYTES_MAX);
        let line = match (whole, root, extra) {
            (Some((line, place)), root, extra) => {
                if root.is_some() || extra.is_some() {
                    let what = "'cmdline' cannot be joined with 'root' or 'extra'";
                    self.complain(place, what.into());
                }
                return line;
            }
            (None, Some(root), Some(extra)) => (format!("root={} {}", root.0, extra.0), extra.1),
            (None, Some(root), None) => (format!("root={}", root.0), root.1),
            (None, None, Some(extra)) => extra,
            (None, None, None) => return String::new(),
        };
        if line.0.len() > CMDLINE_BYTES_MAX {
            let what = format!("the command line is longer than {CMDLINE_BYTES_MAX} bytes");
            self.complain(line.1, what);
        }
        line.0
    }

    fn action(&mut self, key: &str) -> Option<EndAction> {
        let (text, place) = self.text(key, 32)?;
        let use_others = "use \"destroy\", \"restart\" or \"preserve\"";
        let what = match text.as_str() {
            "destroy" => return Some(EndAction::Destroy),
            "restart" => return Some(EndAction::Restart),
            "preserve" => return Some(EndAction::Preserve),
            later if ACTIONS_LATER.contains(&later) => {
                format!("not implemented: {key}=\"{later}\"; {use_others}")
            }
            other => format!("'{key}' cannot be '{other}'; {use_others}"),
        };
        self.complain(place, what);
        None
    }

    /// A key that changes nothing: one of `known` is accepted, `later` is refused by name.
    fn check_word(&mut self, key: &str, known: &[&str], later: &[&str]) {
        let Some((word, place)) = self.text(key, 32) else {
            return;
        };
        let word = word.as_str();
        if known.contains(&word) {
            return;
        }
        let known = known.join("\", \"");
        let what = match later.contains(&word) {
            true => format!("not implemented: {key}=\"{word}\"; use \"{known}\""),
            false => format!("'{key}' cannot be '{word}'; use \"{known}\""),
        };
        self.complain(place, what);
    }
}

/// A UUID in its usual form.
fn uuid(text: &str) -> Option<[u8; 16]> {
    let groups: Vec<&str> = text.split('-').collect();
    if !groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12]) {
        return None;
    }
    let digits: Vec<u8> = groups.concat().bytes().collect();
    let mut bytes = [0; 16];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let high = char::from(pair[0]).to_digit(16)?;
        let low = char::from(pair[1]).to_digit(16)?;
        *byte = (high << 4 | low) as u8;
    }
    Some(bytes)
}
