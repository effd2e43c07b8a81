//! Commands about domains as a whole.

use super::*;
use crate::command::{
    ConsoleKind, DIRTY_LOG_INTERVAL_MS, DIRTY_LOG_ROUNDS, DIRTY_RATE_SECONDS, DirtyLogOptions,
    EMPTY_CONFIG, TOP_DELAY_SECONDS, size,
};
use crate::config::cpus;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

const WAIT: Opt = flag('w', "wait", "wait until it has ended");
const CONFIG: Argument = argument("CONFIG", Kind::Config, Count::One);
const SETTINGS: Argument = argument("KEY=VALUE", Kind::Setting, Count::Any);
const VOLUME: Argument = argument("VOLUME", Kind::Volume, Count::One);

#[rustfmt::skip]
pub(super) static SPECS: &[Spec] = &[
    spec("xl list", &[ANY_DOMAIN],
        &[flag('l', "long", "everything known, one fact a line")],
        ["the domains, their state and CPU time",
         "State letters: r running, b blocked, p paused, s shut down, c crashed, d dying.\n"],
        |_, arguments| Ok(Command::List { long: arguments.has('l'), domain: arguments.positional().pop() })),
    spec("xl create", &[CONFIG, SETTINGS],
        &[flag('p', "paused", "leave the domain paused"),
          flag('c', "console", "show its console then")],
        ["make a domain and start it",
         "CONFIG is a file of the configuration partition (see ls), or /dev/null, an empty one;\n\
          settings over it follow as KEY=VALUE. A value is a number, a text, or what a file may\n\
          hold (\"text\", [list]).\n\
          example: xl create /dev/null name=t1 kernel=module:micro memory=8 extra=\"hello\"\n\
          example: xl create web.cfg disk=main/web,raw,vda vif=type=nat\n"],
        create),
    spec("xl destroy", &[DOMAIN], &[], ["end a domain at once, without asking it", ""],
        |_, arguments| Ok(on(Action::Destroy, arguments))),
    spec("xl shutdown", &[DOMAIN], &[WAIT],
        ["press a domain's power button", "The guest decides what it does; on_poweroff says what then.\n"],
        |_, arguments| Ok(on(Action::Shutdown { again: false, wait: arguments.has('w') }, arguments))),
    spec("xl reboot", &[DOMAIN], &[WAIT],
        ["press a domain's power button and start it again when it is off", ""],
        |_, arguments| Ok(on(Action::Shutdown { again: true, wait: arguments.has('w') }, arguments))),
    spec("xl pause", &[DOMAIN], &[], ["stop a domain's vCPUs; pauses count", ""],
        |_, arguments| Ok(on(Action::Pause, arguments))),
    spec("xl unpause", &[DOMAIN], &[], ["take one pause back", ""],
        |_, arguments| Ok(on(Action::Unpause, arguments))),
    spec("xl console", &[DOMAIN],
        &[flag('n', "no-follow", "show what is kept and return"),
          option('t', "type", "TYPE", Kind::Text, "serial, or pv for the virtio console (serial)")],
        ["a domain's console: what is kept, then what comes", "What is typed goes to the guest. Ctrl-] ends it.\n"],
        console),
    spec("xl save", &[DOMAIN, VOLUME],
        &[flag('c', "checkpoint", "let the domain run on"),
          flag('p', "pause", "leave the domain paused")],
        ["write a whole domain to a volume", "VOLUME is STORE/VOLUME or nbd://HOST[:PORT]/EXPORT; what is on it is lost. Without\n\
          options the domain is gone then.\n"],
        save),
    spec("xl restore", &[VOLUME],
        &[flag('p', "paused", "leave the domain paused"),
          flag('c', "console", "show its console then")],
        ["make a domain from a volume written by xl save", ""],
        |spec, arguments| Ok(Command::Restore {
            paused: arguments.has('p'),
            console: arguments.has('c'),
            target: target(spec, &arguments.one())?,
        })),
    spec("xl rename", &[DOMAIN, argument("NEWNAME", Kind::Text, Count::One)], &[],
        ["give a domain another name", "Files keep the old one: autostart and xl create go by what they say.\n"],
        |_, arguments| {
            let [domain, name] = arguments.all();
            Ok(Command::Domain { domain, action: Action::Rename { name } })
        }),
    spec("xl domid", &[argument("NAME", Kind::Domain, Count::One)], &[], ["the id of a domain", ""],
        |_, arguments| Ok(on(Action::DomId, arguments))),
    spec("xl domname", &[argument("ID", Kind::Text, Count::One)], &[], ["the name of a domain", ""],
        |_, arguments| Ok(on(Action::DomName, arguments))),
    spec("xl uptime", &[ANY_DOMAIN], &[], ["how long domains have been there", ""],
        |_, arguments| Ok(Command::DomainUptime { domain: arguments.positional().pop() })),
    spec("xl config-list", &[DOMAIN], &[],
        ["the configuration of a domain, as a file", ""],
        |_, arguments| Ok(on(Action::ConfigList, arguments))),
    spec("xl config-update", &[DOMAIN, CONFIG, SETTINGS], &[],
        ["give a domain a new configuration", "It takes effect when the domain is started again.\n"],
        config_update),
    spec("xl vcpu-list", &[ANY_DOMAIN], &[],
        ["the vCPUs of one domain or of all, and the CPUs they run on", ""],
        |_, arguments| Ok(Command::VcpuList { domain: arguments.positional().pop() })),
    spec("xl vcpu-pin", &[DOMAIN, argument("VCPU", Kind::Text, Count::One), argument("CPUS", Kind::Text, Count::One)], &[],
        ["say on which CPUs a vCPU may run", "VCPU is a number or all; CPUS is all, a number, a range, a list: 0-3,5,^2.\n"],
        vcpu_pin),
    spec("xl sched-credit2", &[],
        &[option('d', "domain", "DOMAIN", Kind::Domain, "the domain; all are listed without it"),
          option('w', "weight", "WEIGHT", Kind::Text, "share under contention, 1 to 65535 (256)"),
          option('c', "cap", "CAP", Kind::Text, "most CPU time in percent of one CPU, 0 for no limit")],
        ["show or set scheduling weight and cap", ""],
        sched_credit2),
    spec("xl mem-set", &[DOMAIN, argument("MEMORY", Kind::Text, Count::One)], &[],
        ["say how much memory the balloon is to leave a domain", "MEMORY is in MiB, or with b, k, m, g, t. Waits for the guest; Ctrl-C ends the waiting.\n"],
        |spec, arguments| memory(spec, arguments, |mib| Action::MemSet { mib })),
    spec("xl mem-max", &[DOMAIN, argument("MEMORY", Kind::Text, Count::One)], &[],
        ["say how much xl mem-set may ask for", "At most what the domain was started with.\n"],
        |spec, arguments| memory(spec, arguments, |mib| Action::MemMax { mib })),
    spec("xl dirty-rate", &[DOMAIN],
        &[option('t', "time", "SECONDS", Kind::Text, "how long to count, 1 to 60 (5)")],
        ["how many pages a domain writes to in a second", "Each page counts once in each second. Ctrl-C ends it.\n"],
        |_, arguments| {
            let seconds = arguments.number('t', 1..=60)?.unwrap_or(DIRTY_RATE_SECONDS);
            Ok(on(Action::DirtyRate { seconds }, arguments))
        }),
    spec("xl dirty-log", &[DOMAIN],
        &[option('n', "rounds", "COUNT", Kind::Text, "how often to harvest, 1 to 1000 (3)"),
          option('t', "time", "MS", Kind::Text, "milliseconds between them, 10 to 60000 (1000)"),
          option('q', "quota", "PAGES", Kind::Text, "pages a second that each vCPU may write to meanwhile"),
          flag('p', "pause", "pause the domain for each harvest and what is read then"),
          flag('v', "verbose", "name the pages")],
        ["examine the log of a domain's writes", "A diagnostic. Reads all of its memory, then again what the log says was written, round by round;\n\
          at the end the domain is paused, and what is not as it was read last was missed by the log.\n"],
        |_, arguments| Ok(on(Action::DirtyLog(DirtyLogOptions {
            rounds: arguments.number('n', 1..=1000)?.unwrap_or(DIRTY_LOG_ROUNDS),
            interval_ms: arguments.number('t', 10..=60_000)?.unwrap_or(DIRTY_LOG_INTERVAL_MS),
            pages_per_s: arguments.number('q', 1..=u32::MAX)?,
            pauses: arguments.has('p'),
            verbose: arguments.has('v'),
        }), arguments))),
    spec("xl top", &[],
        &[option('d', "delay", "SECONDS", Kind::Text, "time between updates, 1 to 3600 (3)"),
          option('i', "iterations", "COUNT", Kind::Text, "end after so many updates"),
          flag('b', "batch", "write updates below each other, without screen control")],
        ["live view of CPU use and exits, domain by domain", "Q or Ctrl-C ends it.\n"],
        |_, arguments| Ok(Command::Top {
            delay_s: arguments.number('d', 1..=3600)?.unwrap_or(TOP_DELAY_SECONDS),
            iterations: arguments.number('i', 1..=u32::MAX)?,
            batch: arguments.has('b'),
        })),
];

/// CONFIG and settings over it.
fn config(
    spec: &'static Spec,
    mut words: Vec<String>,
) -> Result<(String, Vec<String>), CommandError> {
    let config = words.remove(0);
    if config.contains('=') {
        let what = format!("CONFIG comes before '{config}' ({EMPTY_CONFIG} is an empty one)");
        return Err(usage_error(spec, what));
    }
    match words.iter().find(|setting| !setting.contains('=')) {
        Some(word) => Err(usage_error(spec, format!("'{word}' is no KEY=VALUE"))),
        None => Ok((config, words)),
    }
}

fn create(spec: &'static Spec, arguments: Arguments) -> Result<Command, CommandError> {
    let (paused, console) = (arguments.has('p'), arguments.has('c'));
    let (config, settings) = config(spec, arguments.positional())?;
    Ok(Command::Create {
        config,
        settings,
        paused,
        console,
    })
}

fn console(spec: &'static Spec, arguments: Arguments) -> Result<Command, CommandError> {
    let kind = match arguments.value('t') {
        None | Some("serial") => ConsoleKind::Serial,
        Some("pv") => ConsoleKind::Virtio,
        Some(other) => {
            return Err(usage_error(
                spec,
                format!("TYPE is serial or pv, not '{other}'"),
            ));
        }
    };
    let follow = !arguments.has('n');
    Ok(on(Action::Console { kind, follow }, arguments))
}

fn config_update(spec: &'static Spec, arguments: Arguments) -> Result<Command, CommandError> {
    let mut words = arguments.positional();
    let domain = words.remove(0);
    let (config, settings) = config(spec, words)?;
    let action = Action::ConfigUpdate { config, settings };
    Ok(Command::Domain { domain, action })
}

fn save(spec: &'static Spec, arguments: Arguments) -> Result<Command, CommandError> {
    let after = match (arguments.has('c'), arguments.has('p')) {
        (false, false) => AfterSave::Destroy,
        (true, false) => AfterSave::Run,
        (false, true) => AfterSave::Pause,
        (true, true) => return Err(usage_error(spec, "'-c' and '-p' exclude each other".into())),
    };
    let [domain, text] = arguments.all();
    let target = target(spec, &text)?;
    let action = Action::Save { target, after };
    Ok(Command::Domain { domain, action })
}

fn vcpu_pin(spec: &'static Spec, arguments: Arguments) -> Result<Command, CommandError> {
    let [domain, vcpu, set] = arguments.all();
    let vcpu = match vcpu.as_str() {
        "all" => None,
        number => match number.parse() {
            Ok(number) => Some(number),
            Err(_) => {
                return Err(usage_error(
                    spec,
                    format!("'{number}' is no vCPU and not 'all'"),
                ));
            }
        },
    };
    let cpus = cpus::parse(&set).map_err(|what| usage_error(spec, what))?;
    let action = Action::VcpuPin { vcpu, cpus };
    Ok(Command::Domain { domain, action })
}

fn memory(
    spec: &'static Spec,
    arguments: Arguments,
    action: fn(u64) -> Action,
) -> Result<Command, CommandError> {
    let [domain, amount] = arguments.all();
    let mib = size::mib(&amount).map_err(|what| usage_error(spec, what))?;
    let action = action(mib);
    Ok(Command::Domain { domain, action })
}

fn sched_credit2(spec: &'static Spec, arguments: Arguments) -> Result<Command, CommandError> {
    let domain = arguments.value('d').map(String::from);
    let weight = arguments.number('w', 1..=65535)?;
    let cap_percent = arguments.number('c', 0..=6400)?;
    if domain.is_none() && (weight.is_some() || cap_percent.is_some()) {
        return Err(usage_error(spec, "weight and cap need -d DOMAIN".into()));
    }
    Ok(Command::SchedCredit2(SchedulerSet {
        domain,
        weight,
        cap_percent,
    }))
}
