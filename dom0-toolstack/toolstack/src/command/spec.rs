//! The table of commands: from it come the parser's checks, usage, help and completion.

/// A command that exists.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "each is described in its row of SPECS")]
pub enum Verb {
    Help,
    Info,
    List,
    VcpuList,
    Top,
    Dmesg,
    Create,
    Destroy,
    Pause,
    Unpause,
    Console,
    SchedCredit2,
    DebugKeys,
    DiskList,
    DiskRead,
    Modules,
    Ping,
    Ip,
    Uptime,
    Echo,
    Reboot,
    PowerOff,
}

/// What an argument is, for completion.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A domain's name or id.
    Domain,
    /// A configuration file.
    Config,
    /// `key=value`.
    Setting,
    /// A command.
    Command,
    /// Anything else.
    Text,
}

/// How many of an argument.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Count {
    /// Exactly one.
    One,
    /// One or none.
    Optional,
    /// Any number.
    Any,
}

/// An argument.
#[derive(Clone, Copy, Debug)]
pub struct Argument {
    /// As usage shows it.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// How many.
    pub count: Count,
}

/// An option.
#[derive(Clone, Copy, Debug)]
pub struct Opt {
    /// `-x`.
    pub short: char,
    /// `--xyz`.
    pub long: &'static str,
    /// Name of its value, if it takes one.
    pub value: Option<(&'static str, Kind)>,
    /// What it does.
    pub text: &'static str,
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// The command.
    pub verb: Verb,
    /// How it is typed.
    pub name: &'static str,
    /// Its arguments, in order.
    pub arguments: &'static [Argument],
    /// Its options.
    pub options: &'static [Opt],
    /// One line of help.
    pub summary: &'static str,
    /// More help, in full lines; empty when the summary says it all.
    pub details: &'static str,
}

const fn argument(name: &'static str, kind: Kind, count: Count) -> Argument {
    Argument { name, kind, count }
}

const fn flag(short: char, long: &'static str, text: &'static str) -> Opt {
    Opt {
        short,
        long,
        value: None,
        text,
    }
}

const fn option(
    short: char,
    long: &'static str,
    value: &'static str,
    kind: Kind,
    text: &'static str,
) -> Opt {
    Opt {
        short,
        long,
        value: Some((value, kind)),
        text,
    }
}

const fn spec(
    verb: Verb,
    name: &'static str,
    arguments: &'static [Argument],
    options: &'static [Opt],
    [summary, details]: [&'static str; 2],
) -> Spec {
    Spec {
        verb,
        name,
        arguments,
        options,
        summary,
        details,
    }
}

const DOMAIN: Argument = argument("DOMAIN", Kind::Domain, Count::One);
const ANY_DOMAIN: Argument = argument("DOMAIN", Kind::Domain, Count::Optional);

/// Every command, in the order help lists them.
#[rustfmt::skip]
pub static SPECS: &[Spec] = &[
    spec(Verb::Info, "xl info", &[], &[], ["the host: CPUs, memory, features, versions", ""]),
    spec(Verb::List, "xl list", &[ANY_DOMAIN],
        &[flag('l', "long", "everything known, one fact a line")],
        ["the domains, their state and CPU time",
         "State letters: r running, b blocked, p paused, s shut down, c crashed, d dying.\n"]),
    spec(Verb::VcpuList, "xl vcpu-list", &[ANY_DOMAIN], &[],
        ["the vCPUs of one domain or of all, and the CPUs they run on", ""]),
    spec(Verb::Top, "xl top", &[],
        &[option('d', "delay", "SECONDS", Kind::Text, "time between updates, 1 to 3600 (3)"),
          option('i', "iterations", "COUNT", Kind::Text, "end after so many updates"),
          flag('b', "batch", "write updates below each other, without screen control")],
        ["live view of CPU use and exits, domain by domain", "Q or Ctrl-C ends it.\n"]),
    spec(Verb::Dmesg, "xl dmesg", &[], &[], ["the hypervisor's log", ""]),
    spec(Verb::Create, "xl create",
        &[argument("CONFIG", Kind::Config, Count::One), argument("KEY=VALUE", Kind::Setting, Count::Any)],
        &[flag('p', "paused", "leave the domain paused")],
        ["make a domain and start it",
         "CONFIG is /dev/null, an empty configuration; settings follow as KEY=VALUE. A value is\n\
          a number, a text, or what a configuration file may hold (\"text\", [list]).\n\
          example: xl create /dev/null name=t1 kernel=module:micro memory=8 extra=\"hello\"\n"]),
    spec(Verb::Destroy, "xl destroy", &[DOMAIN], &[], ["end a domain at once, without asking it", ""]),
    spec(Verb::Pause, "xl pause", &[DOMAIN], &[], ["stop a domain's vCPUs; pauses count", ""]),
    spec(Verb::Unpause, "xl unpause", &[DOMAIN], &[], ["take one pause back", ""]),
    spec(Verb::Console, "xl console", &[DOMAIN],
        &[flag('n', "no-follow", "show what is kept and return")],
        ["a domain's debug console: what is kept, then what comes", "Ctrl-] or Ctrl-C ends it.\n"]),
    spec(Verb::SchedCredit2, "xl sched-credit2", &[],
        &[option('d', "domain", "DOMAIN", Kind::Domain, "the domain; all are listed without it"),
          option('w', "weight", "WEIGHT", Kind::Text, "share under contention, 1 to 65535 (256)"),
          option('c', "cap", "CAP", Kind::Text, "most CPU time in percent of one CPU, 0 for no limit")],
        ["show or set scheduling weight and cap", ""]),
    spec(Verb::DebugKeys, "xl debug-keys", &[argument("KEYS", Kind::Text, Count::One)], &[],
        ["press debug keys of the hypervisor (h lists them)", "What they print is on the console and in xl dmesg.\n"]),
    spec(Verb::DiskList, "xl disk-list", &[], &[], ["the host's own disks", ""]),
    spec(Verb::DiskRead, "xl disk-read",
        &[argument("DISK", Kind::Text, Count::One), argument("BLOCK", Kind::Text, Count::One)],
        &[option('c', "count", "BLOCKS", Kind::Text, "how many blocks, 1 to 65536 (1)")],
        ["read blocks of a disk: the first bytes, and the CRC-32 of all", ""]),
    spec(Verb::Modules, "modules", &[], &[], ["the boot modules, which kernels can come from", ""]),
    spec(Verb::Ping, "ping", &[argument("HOST", Kind::Text, Count::One)],
        &[option('c', "count", "COUNT", Kind::Text, "end after so many, 1 to 1000000"),
          option('i', "interval", "MS", Kind::Text, "milliseconds between them, 10 to 60000 (1000)")],
        ["ICMP echo to an address", "Ctrl-C ends it.\n"]),
    spec(Verb::Ip, "ip", &[], &[], ["network devices and addresses of this host", ""]),
    spec(Verb::Uptime, "uptime", &[], &[], ["how long the host has been up", ""]),
    spec(Verb::Echo, "echo", &[argument("TEXT", Kind::Text, Count::Any)], &[], ["print the arguments", ""]),
    spec(Verb::Reboot, "reboot", &[], &[], ["restart the machine", "Every domain ends with it.\n"]),
    spec(Verb::PowerOff, "poweroff", &[], &[], ["switch the machine off", "Every domain ends with it.\n"]),
    spec(Verb::Help, "help", &[argument("COMMAND", Kind::Command, Count::Any)], &[],
        ["this list, or the help of one command", "help keys shows the keys of the line editor.\n"]),
];

/// `xl` verbs that Godwit knows and does not have yet; they answer "not implemented" by name.
pub static LATER: &[&str] = &[
    "block-attach",
    "block-detach",
    "block-list",
    "cd-eject",
    "cd-insert",
    "channel-list",
    "config-update",
    "cpupool-create",
    "cpupool-list",
    "domid",
    "domname",
    "dump-core",
    "mem-max",
    "mem-set",
    "migrate",
    "migrate-receive",
    "network-attach",
    "network-detach",
    "network-list",
    "pci-attach",
    "pci-detach",
    "pci-list",
    "reboot",
    "remus",
    "rename",
    "restore",
    "save",
    "shutdown",
    "sysrq",
    "trigger",
    "uptime",
    "vcpu-pin",
    "vcpu-set",
    "vncviewer",
];

/// Prefix of the commands that are verbs of `xl`.
pub const XL: &str = "xl ";

impl Spec {
    /// The row of a command by its full name.
    pub fn find(name: &str) -> Option<&'static Spec> {
        SPECS.iter().find(|spec| spec.name == name)
    }

    /// The verb alone, without `xl`.
    pub fn short_name(&self) -> &'static str {
        self.name.strip_prefix(XL).unwrap_or(self.name)
    }
}
