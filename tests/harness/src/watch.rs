//! How long a guest is out of reach, as seen by who talks with it over the link: a TCP connection on
//! which each piece must come back as it was sent, and pings.

use crate::Peer;
use anyhow::{Result, bail, ensure};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Between two questions.
const PERIOD: Duration = Duration::from_millis(10);
/// Bytes of a piece.
const PIECE_BYTES: usize = 512;
/// The header that asks `guest tcp-serve` to send everything back.
const ECHO: [u64; 3] = [2, 0, 0];
/// A connection that is silent for so long counts as broken.
const SILENCE: Duration = Duration::from_secs(120);
/// After a ping that was not answered within this, another is sent.
const PING_TIMEOUT: Duration = Duration::from_millis(40);

struct Seen {
    last: Instant,
    longest: Duration,
    answers: u64,
    broken: Option<String>,
}

impl Seen {
    fn answered(&mut self) {
        self.longest = self.longest.max(self.last.elapsed());
        self.last = Instant::now();
        self.answers += 1;
    }
}

/// Somebody who talks with a guest all the time; dropping it ends that.
pub struct Watch {
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Talks with `guest tcp-serve` over one connection, through a port of loopback.
    pub fn tcp(port: u16) -> Result<Watch> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SILENCE))?;
        stream.write_all(&ECHO.map(u64::to_le_bytes).concat())?;
        let mut number = 0u64;
        Ok(Watch::start(move || {
            number += 1;
            let mut piece = [0; PIECE_BYTES];
            for (at, byte) in piece.iter_mut().enumerate() {
                *byte = (number.wrapping_mul(at as u64 + 31) >> 3) as u8;
            }
            stream.write_all(&piece)?;
            let mut back = [0; PIECE_BYTES];
            stream.read_exact(&mut back)?;
            ensure!(back == piece, "piece {number} came back changed");
            Ok(true)
        }))
    }

    /// Pings an address.
    pub fn ping(peer: Peer, address: Ipv4Addr) -> Watch {
        // An answer that does not come is what is measured.
        Watch::start(move || Ok(peer.ping(address, PING_TIMEOUT).is_ok()))
    }

    /// Asks again and again; `Ok(false)` is no answer, an error the end.
    fn start(mut ask: impl FnMut() -> Result<bool> + Send + 'static) -> Watch {
        let seen = Arc::new(Mutex::new(Seen {
            last: Instant::now(),
            longest: Duration::ZERO,
            answers: 0,
            broken: None,
        }));
        let stop = Arc::new(AtomicBool::new(false));
        let (in_thread, stopped) = (Arc::clone(&seen), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let answer = ask();
                let mut seen = in_thread.lock().expect("nobody panics with this");
                match answer {
                    Ok(true) => seen.answered(),
                    Ok(false) => {}
                    Err(error) => {
                        seen.broken = Some(format!("{error:#}"));
                        return;
                    }
                }
                drop(seen);
                std::thread::sleep(PERIOD);
            }
        });
        Watch {
            seen,
            stop,
            thread: Some(thread),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("nobody panics with this")
    }

    /// The longest time without an answer since this was asked before, the one that still lasts too.
    /// Fails when the connection is broken or what came back was changed.
    pub fn longest_gap(&self) -> Result<Duration> {
        self.is_whole()?;
        let mut seen = self.lock();
        let longest = seen.longest.max(seen.last.elapsed());
        seen.longest = Duration::ZERO;
        Ok(longest)
    }

    /// Waits until there is an answer to something asked from now on.
    pub fn wait_answer(&self, timeout: Duration) -> Result<()> {
        // The first may have been asked before.
        let (wanted, deadline) = (self.lock().answers + 2, Instant::now() + timeout);
        while self.lock().answers < wanted {
            self.is_whole()?;
            ensure!(Instant::now() < deadline, "no answer in {timeout:?}");
            std::thread::sleep(PERIOD);
        }
        Ok(())
    }

    fn is_whole(&self) -> Result<()> {
        let seen = self.lock();
        if let Some(broken) = &seen.broken {
            bail!("broken after {} answers: {broken}", seen.answers);
        }
        Ok(())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // One that waits for an answer is left behind: nothing comes of it.
        drop(self.thread.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// A server that sends `pieces` back, is silent for a while, then changes a byte.
    fn server(pieces: usize, silence: Duration) -> u16 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut header = [0; 24];
            stream.read_exact(&mut header).unwrap();
            let mut piece = [0; PIECE_BYTES];
            for number in 0..=pieces {
                stream.read_exact(&mut piece).unwrap();
                if number == pieces {
                    std::thread::sleep(silence);
                    piece[7] ^= 1;
                }
                stream.write_all(&piece).unwrap();
            }
        });
        port
    }

    #[test]
    fn a_silence_is_measured_and_a_changed_byte_is_found() {
        let silence = Duration::from_millis(300);
        let watch = Watch::tcp(server(5, silence)).unwrap();
        watch.wait_answer(Duration::from_secs(10)).unwrap();
        std::thread::sleep(silence);
        let during = watch.longest_gap().unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        let error = loop {
            match watch.longest_gap() {
                Err(error) => break error.to_string(),
                Ok(_) => assert!(Instant::now() < deadline),
            }
            std::thread::sleep(PERIOD);
        };
        assert!(during >= silence / 2, "{during:?}");
        assert!(error.contains("came back changed"), "{error}");
    }
}
