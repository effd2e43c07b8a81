//! A booted host: its emulator process and its console.

use crate::config::{Emulator, HostConfig};
use crate::console::Console;
use crate::process::Process;
use crate::{bochs, paths, qemu};
use anyhow::{Context, Result, bail};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

/// From the start of an emulator until it connects its serial port.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// From power-on to the dom0 prompt on QEMU; Bochs gets [`Emulator::slowness`] times as long.
const BOOT_TIMEOUT: Duration = Duration::from_secs(90);
/// For one command at the prompt on QEMU.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(20);

/// A host that runs; dropping it ends its emulator.
///
/// The console comes after the process on purpose: fields drop in order.
pub struct Host {
    process: Process,
    console: Console,
    emulator: Emulator,
    name: String,
    /// Lines typed into guests so far.
    guest_lines: u32,
    /// OVMF's variables, Bochs' configuration: needed as long as the emulator runs.
    _work: tempfile::TempDir,
}

impl Host {
    /// Starts the emulator and connects its serial console; does not wait for anything to be
    /// printed, so several hosts boot side by side.
    pub fn boot(config: &HostConfig) -> Result<Host> {
        let logs = paths::root()?.join("out/logs");
        std::fs::create_dir_all(&logs)?;
        let log = |suffix: &str| logs.join(format!("{}.{suffix}", config.label));
        let work = tempfile::tempdir()?;
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let emulator_log = log("emulator.log");
        let mut process = start(config, port, &emulator_log, work.path())?;
        let stream = accept(&listener, &mut process, &emulator_log).with_context(|| {
            format!(
                "{} did not start host {}",
                config.emulator.name(),
                config.name
            )
        })?;
        Ok(Host {
            process,
            console: Console::new(stream, &config.name, &log("serial.log"))?,
            emulator: config.emulator,
            name: config.name.clone(),
            guest_lines: 0,
            _work: work,
        })
    }

    /// Its name: the prompt is `<name># `.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Which machine plays it.
    pub fn emulator(&self) -> Emulator {
        self.emulator
    }

    /// The emulator's process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Its serial console.
    pub fn console(&mut self) -> &mut Console {
        &mut self.console
    }

    /// Waits for `text` on the console, with a boot's time-out. Returns what led up to it.
    pub fn expect(&mut self, text: &str) -> Result<String> {
        let timeout = BOOT_TIMEOUT * self.emulator.slowness();
        self.console
            .expect(text, timeout)
            .with_context(|| self.who())
    }

    /// Waits for the dom0 prompt after power-on. Returns what was printed before it.
    pub fn wait_prompt(&mut self) -> Result<String> {
        let timeout = BOOT_TIMEOUT * self.emulator.slowness();
        self.console
            .expect_prompt(timeout)
            .with_context(|| self.who())
    }

    /// Runs one command at the prompt and returns its output.
    pub fn command(&mut self, line: &str) -> Result<String> {
        let timeout = COMMAND_TIMEOUT * self.emulator.slowness();
        self.console
            .command(line, timeout)
            .with_context(|| format!("{}: command {line:?}", self.who()))
    }

    /// Runs a command until its output contains `wanted`, or fails after `timeout` with the last
    /// output. For state that changes on its own, such as a guest's end.
    pub fn command_until(&mut self, line: &str, wanted: &str, timeout: Duration) -> Result<String> {
        let deadline = Instant::now() + timeout * self.emulator.slowness();
        loop {
            let output = self.command(line)?;
            if output.contains(wanted) {
                return Ok(output);
            }
            if Instant::now() > deadline {
                bail!(
                    "{}: {line:?} never said {wanted:?}, last:\n{output}",
                    self.who()
                );
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// The fingerprint of its key, by which other hosts are to know it.
    pub fn fingerprint(&mut self) -> Result<String> {
        let said = self.command("xl host-key")?;
        let mut lines = said.lines();
        let line = lines.find_map(|line| line.strip_prefix("fingerprint"));
        let value = line.and_then(|line| line.split_once(": "));
        let (_, value) = value.with_context(|| format!("no fingerprint:\n{said}"))?;
        Ok(value.trim().into())
    }

    /// Types a line into the shell on a guest's console. What the guest printed until it was done,
    /// and `status=N` of the line's last command.
    pub fn guest_shell(&mut self, guest: &str, line: &str, timeout: Duration) -> Result<String> {
        self.guest_lines += 1;
        // The shell's arithmetic tells the answer from the echo of the question.
        let timeout = timeout * self.emulator.slowness();
        let (asked, done) = (
            format!("A$(({0}))Z", self.guest_lines),
            format!("A{0}Z", self.guest_lines),
        );
        let console = &mut self.console;
        console.send_line(&format!("xl console {guest}"))?;
        console.expect(&format!("xl console {guest}\n"), timeout)?;
        console.send(format!("{line}; echo status=$? {asked}\r").as_bytes())?;
        let said = console
            .expect(&done, timeout)
            .with_context(|| format!("in guest {guest}: {line}"))?;
        console.send(b"\x1d")?;
        console.expect_prompt(timeout)?;
        let start = said.rfind(&asked).map_or(0, |at| at + asked.len());
        Ok(said[start..].to_owned())
    }

    /// Whether the emulator still runs.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.process.ended()?.is_none())
    }

    /// Waits until the emulator ends by itself (power off, or a reset, which ends it too).
    pub fn wait_exit(&mut self, timeout: Duration) -> Result<ExitStatus> {
        self.process
            .wait(timeout * self.emulator.slowness())
            .with_context(|| self.who())
    }

    fn who(&self) -> String {
        format!("host {} on {}", self.name, self.emulator.name())
    }
}

fn start(config: &HostConfig, port: u16, log: &Path, work: &Path) -> Result<Process> {
    match config.emulator {
        Emulator::Qemu | Emulator::Kvm => {
            let arguments = qemu::arguments(config, port, work)?;
            Process::start("qemu-system-x86_64", &arguments, log)
        }
        Emulator::Bochs => {
            let own_log: PathBuf = log.with_extension("bochs.log");
            let files = bochs::write_files(config, port, &own_log, work)?;
            let file = |path: &Path| path.to_string_lossy().into_owned();
            let arguments = [
                "-q",
                "-f",
                &file(&files.config),
                "-rc",
                &file(&files.debugger),
            ];
            Process::start_on_terminal("bochs-bin", &arguments.map(str::to_owned), work, log)
        }
    }
}

/// The emulator connects to us, so that no port is guessed and no output is lost.
fn accept(listener: &TcpListener, process: &mut Process, log: &Path) -> Result<TcpStream> {
    listener.set_nonblocking(true)?;
    let deadline = Instant::now() + CONNECT_TIMEOUT;
    while Instant::now() < deadline {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                return Ok(stream);
            }
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(e.into()),
        }
        if let Some(status) = process.ended()? {
            let said = std::fs::read_to_string(log).unwrap_or_default();
            bail!(
                "it ended at once ({status}), saying:\n{said}(log: {})",
                log.display()
            );
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    bail!(
        "it did not connect its serial port in {CONNECT_TIMEOUT:?} (log: {})",
        log.display()
    )
}
