//! The serial console of a host: a transcript that grows, and searching in it.
//!
//! A reader thread appends what arrives; `expect` moves a cursor over the cleaned text (see
//! [`crate::text`]). A line beginning `(godwit) FATAL: ` ends a wait at once, because nothing more
//! will come; errors carry the last lines, because a bare "timed out" helps nobody.

use crate::text::Cleaner;
use anyhow::{Context, Result, bail};
use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// The hypervisor's last words.
const FATAL: &str = "(godwit) FATAL: ";
/// Columns of the terminal that dom0's line editor assumes.
const ROW_COLUMNS: usize = 80;
/// Lines of context in an error.
const CONTEXT_LINES: usize = 30;

#[derive(Default)]
struct Received {
    text: String,
    /// Everything before it has been matched by an `expect`.
    cursor: usize,
    closed: bool,
    mirror: Option<Box<dyn Write + Send>>,
}

struct Shared {
    received: Mutex<Received>,
    arrived: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Received> {
        self.received
            .lock()
            .expect("the reader thread does not panic")
    }
}

/// One end of a host's COM1.
pub struct Console {
    shared: Arc<Shared>,
    stream: TcpStream,
    prompt: String,
    transcript: PathBuf,
}

impl Console {
    /// Takes over a connected serial line; what arrives is also written, as is, to `transcript`.
    pub(crate) fn new(stream: TcpStream, host_name: &str, transcript: &Path) -> Result<Console> {
        let shared = Arc::new(Shared {
            received: Mutex::new(Received::default()),
            arrived: Condvar::new(),
        });
        let file = File::create(transcript)
            .with_context(|| format!("cannot write {}", transcript.display()))?;
        let reader = stream.try_clone()?;
        let for_thread = Arc::clone(&shared);
        std::thread::spawn(move || read(reader, file, &for_thread));
        stream.set_nodelay(true)?;
        Ok(Console {
            shared,
            stream,
            prompt: format!("{host_name}# "),
            transcript: transcript.to_owned(),
        })
    }

    /// Waits for `wanted` in what came after the previous match. Returns the text from there up
    /// to and including it.
    pub fn expect(&mut self, wanted: &str, timeout: Duration) -> Result<String> {
        self.expect_any(&[wanted], timeout).map(|(_, text)| text)
    }

    /// Waits for whichever of `wanted` comes first in the text; also returns its index.
    pub fn expect_any(&mut self, wanted: &[&str], timeout: Duration) -> Result<(usize, String)> {
        self.search(&format!("{wanted:?}"), timeout, |text| {
            wanted
                .iter()
                .enumerate()
                .filter_map(|(i, w)| text.find(w).map(|at| (at, i, at + w.len())))
                .min()
                .map(|(_, i, end)| (i, end))
        })
    }

    /// Waits for the dom0 prompt at the beginning of a line. Returns the text before it.
    pub fn expect_prompt(&mut self, timeout: Duration) -> Result<String> {
        let prompt = self.prompt.clone();
        let what = format!("the prompt {prompt:?}");
        let (_, mut text) = self.search(&what, timeout, |text| {
            prompt_end(text, &prompt).map(|end| ((), end))
        })?;
        text.truncate(text.len() - prompt.len());
        Ok(text)
    }

    /// Types `line` and Enter.
    pub fn send_line(&mut self, line: &str) -> Result<()> {
        self.send(format!("{line}\r").as_bytes())
    }

    /// Types these bytes.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream
            .write_all(bytes)
            .with_context(|| self.failure("cannot type"))
    }

    /// Types a command and returns what it printed: the lines between its echo and the prompt.
    ///
    /// The line editor owns one row and never writes a line feed in it. A line too long for the
    /// row scrolls there and is not echoed whole: then the first line feed ends the echo.
    pub fn command(&mut self, line: &str, timeout: Duration) -> Result<String> {
        let deadline = Instant::now() + timeout;
        self.send_line(line)?;
        let fits = self.prompt.len() + line.len() < ROW_COLUMNS - 1;
        let echo_end = if fits {
            format!("{line}\n")
        } else {
            "\n".to_owned()
        };
        self.expect(&echo_end, timeout)?;
        self.expect_prompt(deadline.saturating_duration_since(Instant::now()))
    }

    /// Everything received so far, cleaned.
    pub fn text(&self) -> String {
        self.shared.lock().text.clone()
    }

    /// The line itself, for a terminal that types into it from another thread.
    pub fn writer(&self) -> Result<TcpStream> {
        Ok(self.stream.try_clone()?)
    }

    /// From now on, also copies what arrives, control sequences included, to `sink`, after the
    /// last lines of what came before; `None` stops that.
    pub fn mirror(&self, sink: Option<Box<dyn Write + Send>>) {
        let mut received = self.shared.lock();
        received.mirror = sink;
        let before = last_lines(&received.text).replace('\n', "\r\n");
        if let Some(sink) = &mut received.mirror {
            // As in `read`: whoever watches may go away.
            let _ = sink
                .write_all(before.as_bytes())
                .and_then(|()| sink.flush());
        }
    }

    /// Runs `find` on the unmatched text whenever it grew; `find` returns a value and where the
    /// match ends.
    fn search<T>(
        &mut self,
        what: &str,
        timeout: Duration,
        find: impl Fn(&str) -> Option<(T, usize)>,
    ) -> Result<(T, String)> {
        let deadline = Instant::now() + timeout;
        let mut received = self.shared.lock();
        let why = loop {
            let start = received.cursor;
            if let Some((value, length)) = find(&received.text[start..]) {
                received.cursor = start + length;
                return Ok((value, received.text[start..start + length].to_owned()));
            }
            // Only a complete line: what is looked for may be part of it.
            if let Some(at) = received.text[start..].find(FATAL)
                && received.text[start + at..].contains('\n')
            {
                break "the hypervisor gave up".to_owned();
            }
            if received.closed {
                break "the emulator ended".to_owned();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break format!("nothing such came in {timeout:?}");
            }
            received = self
                .shared
                .arrived
                .wait_timeout(received, left)
                .expect("the reader thread does not panic")
                .0;
        };
        drop(received);
        bail!(self.failure(&format!("waited for {what}, but {why}")))
    }

    fn failure(&self, what: &str) -> String {
        format!(
            "{what}\nlast lines of the console (all of it: {}):\n  | {}",
            self.transcript.display(),
            last_lines(&self.text()).trim_end().replace('\n', "\n  | ")
        )
    }
}

/// The end of a text, from the beginning of a line.
fn last_lines(text: &str) -> &str {
    let mut starts = text
        .rmatch_indices('\n')
        .map(|(at, _)| at + 1)
        .filter(|&at| at < text.len());
    starts.nth(CONTEXT_LINES - 1).map_or(text, |at| &text[at..])
}

/// Where the first prompt at the beginning of a line ends.
fn prompt_end(text: &str, prompt: &str) -> Option<usize> {
    text.match_indices(prompt)
        .find(|&(at, _)| at == 0 || text[..at].ends_with('\n'))
        .map(|(at, _)| at + prompt.len())
}

fn read(mut stream: TcpStream, mut transcript: File, shared: &Shared) {
    let mut cleaner = Cleaner::default();
    let mut bytes = [0; 4096];
    loop {
        let n = match stream.read(&mut bytes) {
            Ok(0) | Err(_) => break,
            Ok(n) => n,
        };
        // A full disk must not stop the run; the text in memory is what tests look at.
        let _ = transcript.write_all(&bytes[..n]);
        let mut received = shared.lock();
        cleaner.feed(&bytes[..n], &mut received.text);
        if let Some(sink) = &mut received.mirror {
            // Whoever watches may go away; the host goes on.
            let _ = sink.write_all(&bytes[..n]).and_then(|()| sink.flush());
        }
        drop(received);
        shared.arrived.notify_all();
    }
    shared.lock().closed = true;
    shared.arrived.notify_all();
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    const SHORT: Duration = Duration::from_millis(200);
    const LONG: Duration = Duration::from_secs(10);

    fn pair() -> (Console, TcpStream, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let ours = listener.accept().unwrap().0;
        (
            Console::new(ours, "host-a", &dir.path().join("log")).unwrap(),
            host,
            dir,
        )
    }

    #[test]
    fn a_command_returns_what_stands_between_echo_and_prompt() {
        let (mut console, mut host, _dir) = pair();
        let echo = std::thread::spawn(move || {
            let mut line = [0; 8];
            host.read_exact(&mut line).unwrap();
            assert_eq!(&line, b"xl info\r");
            // As a line editor echoes: every key redraws the line.
            host.write_all(b"\r\x1b[Khost-a# x\r\x1b[Khost-a# xl info\r\n")
                .unwrap();
            host.write_all(b"host: host-a# x\r\nend\r\nhost-a# ")
                .unwrap();
            host
        });
        let output = console.command("xl info", LONG).unwrap();
        assert_eq!(output, "host: host-a# x\nend\n");
        echo.join().unwrap();
    }

    #[test]
    fn the_first_of_several_in_the_text_wins_and_moves_the_cursor() {
        let (mut console, mut host, _dir) = pair();
        host.write_all(b"one two three two").unwrap();
        assert_eq!(console.expect_any(&["three", "two"], LONG).unwrap().0, 1);
        assert_eq!(console.expect_any(&["three", "two"], LONG).unwrap().0, 0);
        assert_eq!(console.expect("two", LONG).unwrap(), " two");
    }

    #[test]
    fn failures_say_why_and_show_the_last_lines() {
        let (mut console, mut host, _dir) = pair();
        host.write_all(b"booting\n").unwrap();
        let slow = console.expect("prompt", SHORT).unwrap_err().to_string();
        assert!(
            slow.contains("nothing such came") && slow.contains("| booting"),
            "{slow}"
        );
        host.write_all(b"(godwit) FATAL: no dom0 module\n").unwrap();
        let fatal = console.expect("prompt", LONG).unwrap_err().to_string();
        assert!(fatal.contains("gave up"), "{fatal}");
        console.expect("FATAL: no dom0", LONG).unwrap();
        drop(host);
        let ended = console.expect("prompt", LONG).unwrap_err().to_string();
        assert!(ended.contains("the emulator ended"), "{ended}");
    }
}
