//! Commands about the host.

use super::*;
use crate::command::PING_INTERVAL_MS;
use alloc::format;

#[rustfmt::skip]
pub(super) static SPECS: &[Spec] = &[
    spec("xl info", &[], &[], ["the host: CPUs, memory, features, versions", ""], |_, _| Ok(Command::Info)),
    spec("xl dmesg", &[], &[], ["the hypervisor's log", ""], |_, _| Ok(Command::Dmesg)),
    spec("xl debug-keys", &[argument("KEYS", Kind::Text, Count::One)], &[],
        ["press debug keys of the hypervisor (h lists them)", "What they print is on the console and in xl dmesg.\n"],
        debug_keys),
    spec("modules", &[], &[], ["the boot modules, which kernels can come from", ""], |_, _| Ok(Command::Modules)),
    spec("ping", &[argument("HOST", Kind::Text, Count::One)],
        &[option('c', "count", "COUNT", Kind::Text, "end after so many, 1 to 1000000"),
          option('i', "interval", "MS", Kind::Text, "milliseconds between them, 10 to 60000 (1000)")],
        ["ICMP echo to an address", "Ctrl-C ends it.\n"],
        |_, arguments| Ok(Command::Ping {
            count: arguments.number('c', 1..=1_000_000)?,
            interval_ms: arguments.number('i', 10..=60_000)?.unwrap_or(PING_INTERVAL_MS),
            host: arguments.one(),
        })),
    spec("ip", &[], &[], ["network devices and addresses of this host", ""], |_, _| Ok(Command::Ip)),
    spec("uptime", &[], &[], ["how long the host has been up", ""], |_, _| Ok(Command::Uptime)),
    spec("echo", &[argument("TEXT", Kind::Text, Count::Any)], &[], ["print the arguments", ""],
        |_, arguments| Ok(Command::Echo(arguments.positional().join(" ")))),
    spec("reboot", &[], &[], ["restart the machine", "Every domain ends with it.\n"], |_, _| Ok(Command::Reboot)),
    spec("poweroff", &[], &[], ["switch the machine off", "Every domain ends with it.\n"], |_, _| Ok(Command::PowerOff)),
    spec("help", &[argument("COMMAND", Kind::Command, Count::Any)], &[],
        ["this list, or the help of one command", "help keys shows the keys of the line editor.\n"],
        |_, _| unreachable!("help is handled before its arguments are")),
];

fn debug_keys(spec: &'static Spec, arguments: Arguments) -> Result<Command, CommandError> {
    let keys = arguments.one();
    if keys.is_empty() || !keys.bytes().all(|key| key.is_ascii_graphic()) {
        return Err(usage_error(spec, format!("'{keys}' are no debug keys")));
    }
    Ok(Command::DebugKeys {
        keys: keys.into_bytes(),
    })
}
