//! The terminal as the serial console of a running host, or of several in turn.
//!
//! The terminal goes raw, so that every key reaches the host; Ctrl-] is ours.

use anyhow::Result;
use godwit_harness::Host;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use std::io::{IsTerminal, Read, Write, stdin, stdout};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

/// Ctrl-].
const ESCAPE: u8 = 0x1d;
/// How often the hosts are looked at while nobody types.
const NAP: Duration = Duration::from_millis(100);

/// What a key asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Type(u8),
    Show(usize),
    Help,
    Quit,
    Nothing,
}

/// Follows the keys: with one host Ctrl-] ends, with several it begins a two-key command.
struct Keys {
    hosts: usize,
    escaped: bool,
}

impl Keys {
    fn feed(&mut self, key: u8) -> Action {
        if !std::mem::take(&mut self.escaped) {
            return match key {
                ESCAPE if self.hosts == 1 => Action::Quit,
                ESCAPE => {
                    self.escaped = true;
                    Action::Nothing
                }
                key => Action::Type(key),
            };
        }
        match key {
            b'q' | b'Q' => Action::Quit,
            ESCAPE => Action::Type(ESCAPE),
            digit @ b'1'..=b'9' if usize::from(digit - b'1') < self.hosts => {
                Action::Show(usize::from(digit - b'1'))
            }
            _ => Action::Help,
        }
    }

    fn help(&self) -> String {
        match self.hosts {
            1 => "Ctrl-] ends the host".to_owned(),
            n => format!("Ctrl-] then 1 to {n} shows that host, Ctrl-] q ends all of them"),
        }
    }
}

/// Joins this terminal to the hosts' consoles until the user ends them or they end themselves.
pub(crate) fn run(hosts: &mut [Host]) -> Result<()> {
    let mut keys = Keys {
        hosts: hosts.len(),
        escaped: false,
    };
    eprintln!("x: {}", keys.help());
    let _raw = Raw::enter()?;
    let mut shown = 0;
    show(hosts, shown);
    let typed = typed();
    loop {
        match typed.recv_timeout(NAP) {
            Ok(bytes) => {
                for key in bytes {
                    match keys.feed(key) {
                        Action::Type(byte) => hosts[shown].console().send(&[byte])?,
                        Action::Show(index) => {
                            shown = index;
                            show(hosts, shown);
                        }
                        Action::Help => eprint!("\r\nx: {}\r\n", keys.help()),
                        Action::Quit => return Ok(()),
                        Action::Nothing => {}
                    }
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            // No more input (a script's end): watch on.
            Err(RecvTimeoutError::Disconnected) => std::thread::sleep(NAP),
        }
        if all_ended(hosts)? {
            eprint!("\r\nx: no host runs any more\r\n");
            return Ok(());
        }
    }
}

fn show(hosts: &mut [Host], shown: usize) {
    let several = hosts.len() > 1;
    for (index, host) in hosts.iter_mut().enumerate() {
        host.console().mirror(None);
        if index == shown {
            if several {
                eprint!("\r\nx: host {}\r\n", host.name());
            }
            host.console().mirror(Some(Box::new(stdout())));
        }
    }
}

fn all_ended(hosts: &mut [Host]) -> Result<bool> {
    for host in hosts {
        if host.is_running()? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What is typed, from a thread of its own: reading a terminal cannot be interrupted.
fn typed() -> Receiver<Vec<u8>> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut bytes = [0; 256];
        while let Ok(n @ 1..) = stdin().read(&mut bytes) {
            if sender.send(bytes[..n].to_vec()).is_err() {
                return;
            }
        }
    });
    receiver
}

/// The terminal in raw mode; as it was when dropped. Nothing when standard input is no terminal.
struct Raw {
    before: Option<Termios>,
}

impl Raw {
    fn enter() -> Result<Raw> {
        if !stdin().is_terminal() {
            return Ok(Raw { before: None });
        }
        let before = tcgetattr(stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin(), OptionalActions::Flush, &raw)?;
        Ok(Raw {
            before: Some(before),
        })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // A terminal that is gone needs no restoring.
            let _ = tcsetattr(stdin(), OptionalActions::Flush, before);
            let _ = stdout().write_all(b"\r\n");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn actions(hosts: usize, keys: &[u8]) -> Vec<Action> {
        let mut state = Keys {
            hosts,
            escaped: false,
        };
        keys.iter().map(|&key| state.feed(key)).collect()
    }

    #[test]
    fn one_host_ends_at_the_escape_key() {
        assert_eq!(
            actions(1, b"q\x03\x1d"),
            [Action::Type(b'q'), Action::Type(3), Action::Quit]
        );
    }

    #[test]
    fn several_hosts_are_chosen_by_number() {
        use Action::*;
        assert_eq!(
            actions(2, b"1\x1d2\x1d3\x1d\x1d\x1dq"),
            [
                Type(b'1'),
                Nothing,
                Show(1),
                Nothing,
                Help,
                Nothing,
                Type(ESCAPE),
                Nothing,
                Quit
            ]
        );
    }
}
