//! Control of a running link from another process: one line in, some lines back, over a unix
//! socket. `./x link` is the client.

use crate::link::Link;
use crate::shaper::Settings;
use anyhow::{Context, Result, bail};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// A client must say its line and take its answer in this time.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest line of a client, in bytes.
const LINE_BYTES_MAX: u64 = 4096;

const HELP: &str = "status | set [to=PORT] rate=100M delay=2ms loss=1% queue=256k | cut | \
                    restore | pcap FILE | pcap off";

/// A control socket that serves a link; dropping it removes the socket.
pub struct Control {
    path: PathBuf,
}

impl Control {
    /// Opens the socket at `path`, replacing one whose process is gone.
    pub fn open(path: &Path, link: Arc<Link>) -> Result<Control> {
        if UnixStream::connect(path).is_ok() {
            bail!(
                "another link is running: its control socket is {}",
                path.display()
            );
        }
        // Absent or left behind; if it cannot be removed, bind says so.
        let _ = std::fs::remove_file(path);
        let listener = UnixListener::bind(path)
            .with_context(|| format!("cannot open the control socket {}", path.display()))?;
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A client that went away does not matter to the link.
                let _ = serve(&stream, &link);
            }
        });
        Ok(Control {
            path: path.to_owned(),
        })
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // Its thread keeps the listener until the process ends; without its name nobody comes.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Sends one command to a control socket and returns the answer.
pub fn request(path: &Path, line: &str) -> Result<String> {
    let mut stream = UnixStream::connect(path).with_context(|| {
        format!(
            "no link is running ({}): start one with ./x hosts or ./x demo",
            path.display()
        )
    })?;
    stream.set_read_timeout(Some(PATIENCE))?;
    writeln!(stream, "{line}")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    match answer.strip_prefix("error: ") {
        Some(reason) => bail!("{}", reason.trim_end()),
        None => Ok(answer),
    }
}

fn serve(mut stream: &UnixStream, link: &Link) -> Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut line = String::new();
    BufReader::new(stream.take(LINE_BYTES_MAX)).read_line(&mut line)?;
    let answer = execute(link, line.trim()).unwrap_or_else(|e| format!("error: {e:#}\n"));
    Ok(stream.write_all(answer.as_bytes())?)
}

/// Runs one command line on a link.
fn execute(link: &Link, line: &str) -> Result<String> {
    let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
    match (verb, rest.trim()) {
        ("status", "") => {}
        ("set", words) if !words.is_empty() => set(link, words)?,
        ("cut", "") => link.cut(),
        ("restore", "") => link.restore(),
        ("pcap", "off") => link.capture(None)?,
        ("pcap", file) if !file.is_empty() => link.capture(Some(Path::new(file)))?,
        _ => bail!("{line:?} is not understood; say one of: {HELP}"),
    }
    Ok(link.table())
}

/// All words are checked before any takes effect.
fn set(link: &Link, words: &str) -> Result<()> {
    let mut words: Vec<&str> = words.split_whitespace().collect();
    let mut towards = None;
    if let Some(index) = words[0].strip_prefix("to=") {
        towards = Some(
            index
                .parse()
                .with_context(|| format!("{index:?} is no port number"))?,
        );
        words.remove(0);
    }
    for word in &words {
        Settings::default().apply(word)?;
    }
    let change = |settings: &mut Settings| {
        for word in &words {
            settings.apply(word).expect("checked above");
        }
    };
    match towards {
        None => link.configure(change),
        Some(index) => link.configure_towards(index, change)?,
    }
    Ok(())
}

impl Link {
    /// A table of settings and counters for people, one line a port.
    pub fn table(&self) -> String {
        let mut text = format!(
            "{:<7}{:>10}{:>10}{:>9}{:>6}{:>10}{:>10}{:>12}{:>8}{:>8}{:>8}\n",
            "toward",
            "rate",
            "delay",
            "loss",
            "cut",
            "offered",
            "arrived",
            "bytes",
            "lost",
            "full",
            "cut off"
        );
        for (index, port) in self.report().iter().enumerate() {
            let Settings {
                rate_bps,
                delay,
                loss_ppm,
                cut,
                queue_bytes: _,
            } = port.settings;
            let rate = rate_bps.map_or("any".to_owned(), |bps| format!("{} kb/s", bps / 1000));
            let t = port.towards;
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "{:<7}{:>10}{:>10}{:>8.2}%{:>6}{:>10}{:>10}{:>12}{:>8}{:>8}{:>8}",
                format!("port {index}"),
                rate,
                format!("{delay:?}"),
                f64::from(loss_ppm) / 10_000.0,
                if cut { "yes" } else { "no" },
                t.offered_frames,
                t.delivered_frames,
                t.delivered_bytes,
                t.lost_frames,
                t.overflow_frames,
                t.cut_frames
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::PortKind;

    #[test]
    fn a_client_sets_cuts_and_reads() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("link.sock");
        let link = Arc::new(Link::start(&[PortKind::Prompt; 2], 1).unwrap());
        assert!(
            request(&path, "status")
                .unwrap_err()
                .to_string()
                .contains("no link is running")
        );
        let control = Control::open(&path, Arc::clone(&link)).unwrap();
        assert!(Control::open(&path, Arc::clone(&link)).is_err());

        request(&path, "set rate=100M delay=2ms loss=1%").unwrap();
        let settings = link.report()[0].settings;
        assert_eq!(
            (settings.rate_bps, settings.loss_ppm),
            (Some(100_000_000), 10_000)
        );
        request(&path, "set to=1 rate=off").unwrap();
        assert_eq!(link.report()[1].settings.rate_bps, None);
        assert!(request(&path, "cut").unwrap().contains("yes"));
        assert!(request(&path, "restore").unwrap().contains("100000 kb/s"));

        let before = link.report()[0].settings;
        for wrong in [
            "set delay=9ms rate=x",
            "set",
            "jump",
            "set to=7 rate=1M",
            "pcap",
        ] {
            assert!(request(&path, wrong).is_err(), "{wrong}");
        }
        assert_eq!(link.report()[0].settings, before);
        drop(control);
        assert!(!path.exists());
    }
}
