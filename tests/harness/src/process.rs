//! Emulator processes: started so that they cannot outlive us, ended by their own pid.
//!
//! Every emulator is our direct child. `setpriv --pdeathsig KILL` makes the kernel end it when
//! the thread that started it ends, however we die; so all are started by one thread that lives
//! as long as the process. Bochs' `term` display wants a terminal: it gets a pseudo-terminal
//! whose output nobody looks at. It may ignore TERM, so the end is always KILL.
//!
//! That is where Bochs' debugger talks. Its screen Bochs shows on a second pseudo-terminal, which it
//! opens itself and names in its log. Somebody must read there: when what is written fills the
//! kernel's buffer, the emulator stands still, for ever.

use anyhow::{Context, Result, bail};
use rustix::fs::OFlags;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

/// A running emulator; dropping it ends it.
pub(crate) struct Process {
    child: Child,
    program: String,
}

impl Process {
    /// Starts `program`; its standard output and error go to `log`.
    pub(crate) fn start(program: &str, arguments: &[String], log: &Path) -> Result<Process> {
        let log = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = wrapped(program, arguments);
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        Process::spawn(command, program)
    }

    /// Starts `program` on a terminal of its own, in `directory`, where it may leave files; only
    /// its standard error is kept, in `log`.
    pub(crate) fn start_on_terminal(
        program: &str,
        arguments: &[String],
        directory: &Path,
        log_path: &Path,
    ) -> Result<Process> {
        let log = File::create(log_path)
            .with_context(|| format!("cannot write {}", log_path.display()))?;
        let terminal = terminal().context("cannot open a pseudo-terminal")?;
        let mut command = wrapped(program, arguments);
        command
            .current_dir(directory)
            .env("TERM", "xterm")
            .env("LINES", "50")
            .env("COLUMNS", "132");
        command
            .stdin(terminal.try_clone()?)
            .stdout(terminal)
            .stderr(log);
        let process = Process::spawn(command, program)?;
        let log = log_path.to_owned();
        std::thread::spawn(move || swallow_screen(&log));
        Ok(process)
    }

    fn spawn(command: Command, program: &str) -> Result<Process> {
        let child = spawn_from_lasting_thread(command)
            .with_context(|| format!("cannot start {program}: is it installed? ./x installs it"))?;
        Ok(Process {
            child,
            program: program.to_owned(),
        })
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Waits for it to end by itself.
    pub(crate) fn wait(&mut self, timeout: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + timeout;
        while Instant::now() < deadline {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("{} still runs after {timeout:?}", self.program)
    }

    /// Ends it.
    pub(crate) fn kill(&mut self) {
        // Either it is gone already or KILL works; there is no third case to report.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn wrapped(program: &str, arguments: &[String]) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "--", program])
        .args(arguments);
    command
}

type Request = (Command, Sender<io::Result<Child>>);

fn spawn_from_lasting_thread(command: Command) -> Result<Child> {
    static SPAWNER: OnceLock<Sender<Request>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, receiver) = channel::<Request>();
        std::thread::spawn(move || {
            for (mut command, answer) in receiver {
                // A requester that is gone drops the Child unwaited; it asked and left.
                let _ = answer.send(command.spawn());
            }
        });
        sender
    });
    let (answer, child) = channel();
    spawner
        .send((command, answer))
        .expect("the spawner thread never ends");
    Ok(child.recv().expect("the spawner answers every request")?)
}

/// Opens a pseudo-terminal, starts a thread that swallows what is written to it, and returns the
/// end for the child. The thread ends when the last holder of that end is gone.
fn terminal() -> Result<File> {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&ours)?;
    unlockpt(&ours)?;
    let name = ptsname(&ours, Vec::new())?;
    let theirs = OpenOptions::new()
        .read(true)
        .write(true)
        .open(name.to_str()?)?;
    let ours = File::from(ours);
    std::thread::spawn(move || swallow(ours));
    Ok(theirs)
}

/// Reads until the other side is gone.
fn swallow(mut terminal: File) {
    let mut swallowed = [0; 4096];
    loop {
        match terminal.read(&mut swallowed) {
            Ok(count) if count > 0 => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(_) | Err(_) => return,
        }
    }
}

/// How Bochs says in its log where its screen is: a quoted path follows.
const SCREEN: &str = "connected to screen \"";
/// From its start until it says so.
const SCREEN_TIMEOUT: Duration = Duration::from_secs(120);
const SCREEN_LOOK_PERIOD: Duration = Duration::from_millis(50);

/// Waits until the log names a screen, and reads what is shown there.
fn swallow_screen(log: &Path) {
    let deadline = Instant::now() + SCREEN_TIMEOUT;
    while Instant::now() < deadline {
        let Ok(said) = std::fs::read(log) else {
            return;
        };
        if let Some(screen) = screen(&String::from_utf8_lossy(&said)) {
            // It cannot be opened when Bochs has gone already.
            if let Ok(terminal) = open_raw(screen) {
                swallow(terminal);
            }
            return;
        }
        std::thread::sleep(SCREEN_LOOK_PERIOD);
    }
}

/// The screen's path in Bochs' log, once it is there in full.
fn screen(log: &str) -> Option<&str> {
    let (_, path) = log.split_once(SCREEN)?;
    let (path, _) = path.split_once('"')?;
    path.starts_with("/dev/pts/").then_some(path)
}

/// Opens a terminal, and without an echo, which nobody reads at the other side.
fn open_raw(path: &str) -> io::Result<File> {
    let terminal = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(OFlags::NOCTTY.bits().cast_signed())
        .open(path)?;
    let mut settings = tcgetattr(&terminal)?;
    settings.make_raw();
    tcsetattr(&terminal, OptionalActions::Now, &settings)?;
    Ok(terminal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_dies_with_its_handle() {
        let dir = tempfile::tempdir().unwrap();
        let args = ["60".to_owned()];
        let mut process = Process::start("sleep", &args, &dir.path().join("log")).unwrap();
        assert!(process.ended().unwrap().is_none());
        let proc = format!("/proc/{}", process.id());
        assert!(Path::new(&proc).exists());
        drop(process);
        assert!(!Path::new(&proc).exists());
    }

    #[test]
    fn a_screen_is_known_when_its_path_is_whole() {
        let log = "x\nBochs connected to screen \"/dev/pts/17\"\n==";
        assert_eq!(screen(log), Some("/dev/pts/17"));
        assert_eq!(screen("Bochs connected to screen \"/dev/pts/1"), None);
        assert_eq!(screen("connected to screen \"/etc/passwd\""), None);
    }

    #[test]
    fn a_terminal_is_a_terminal() {
        let dir = tempfile::tempdir().unwrap();
        let args = ["-c", "test -t 0 && test -t 1"].map(str::to_owned);
        let mut process =
            Process::start_on_terminal("sh", &args, dir.path(), &dir.path().join("log")).unwrap();
        assert!(process.wait(Duration::from_secs(10)).unwrap().success());
    }
}
