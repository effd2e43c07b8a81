//! Micro-VMs from the operator's side: the commands that make, watch and end them.

use anyhow::{Result, ensure};
use godwit_harness::Host;
use std::time::Duration;

/// For one self-judging guest on QEMU.
pub const GUEST_TIMEOUT: Duration = Duration::from_secs(40);

/// The command that makes a guest named `name` for `test` and keeps it after its end.
pub fn create_line(name: &str, test: &str) -> String {
    format!(
        "xl create /dev/null name={name} kernel=module:micro memory=8 balloon=1 on_poweroff=preserve \
         on_reboot=preserve on_crash=preserve extra=\"{test}\""
    )
}

/// Makes a guest and starts it.
pub fn create(host: &mut Host, name: &str, test: &str) -> Result<()> {
    let line = create_line(name, test);
    let output = host.command(&line)?;
    ensure!(
        output.contains(&format!("created domain '{name}'")),
        "{line}:\n{output}"
    );
    Ok(())
}

/// The guest's console, once it holds `wanted`.
pub fn console_until(host: &mut Host, name: &str, wanted: &str) -> Result<String> {
    host.command_until(&format!("xl console -n {name}"), wanted, GUEST_TIMEOUT)
}

/// The one-letter states of a domain, `None` when it is not listed.
pub fn state(host: &mut Host, name: &str) -> Result<Option<String>> {
    let list = host.command("xl list")?;
    let row = list
        .lines()
        .find(|line| line.split_whitespace().next() == Some(name));
    Ok(row.and_then(|row| row.split_whitespace().nth(4).map(str::to_owned)))
}

/// Destroys a domain unless it has gone by itself.
pub fn clear(host: &mut Host, name: &str) -> Result<()> {
    if state(host, name)?.is_some() {
        host.command(&format!("xl destroy {name}"))?;
    }
    let gone = state(host, name)?;
    ensure!(gone.is_none(), "{name} is still there in state {gone:?}");
    Ok(())
}

/// Fails unless the guest's own verdict for `test`, waited for, is a pass; a guest may skip what
/// the machine does not offer.
pub fn passes(host: &mut Host, name: &str, test: &str) -> Result<()> {
    let mark = format!("MICRO {test} ");
    let said = console_until(host, name, &mark)?;
    let verdict = said.lines().find(|line| line.starts_with(&mark));
    ensure!(
        verdict.is_some_and(|line| line.ends_with("PASS") || line.contains(" SKIP ")),
        "{verdict:?}\n{said}"
    );
    Ok(())
}

/// The value on the line `key : value` of `xl info` or `xl list -l`.
pub fn fact(text: &str, key: &str) -> Result<String> {
    let value = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.trim() == key)
        .map(|(_, value)| value.trim().to_owned());
    value.ok_or_else(|| anyhow::anyhow!("no {key} in:\n{text}"))
}
