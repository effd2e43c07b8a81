//! What one direction of a link does to frames: rate, delay, loss, cut and a bounded queue.
//!
//! Pure: the time is an argument in nanoseconds, losses come from a seed, so a run repeats.
//!
//! A frame leaves the sender's queue at the link's rate, then travels for the delay. The bound is
//! on what waits to leave, as in a switch: what travels is limited only by [`FRAMES_MAX`].

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::time::Duration;

/// Frames held at most per direction, queued or travelling: a limit on memory.
const FRAMES_MAX: usize = 16_384;
/// Queue of a direction unless set otherwise, in bytes: that of a small switch port.
const QUEUE_BYTES_DEFAULT: u64 = 256 * 1024;
/// Octets of preamble, FCS and gap that a frame occupies on a wire besides its own.
const WIRE_OVERHEAD_BYTES: u64 = 24;
/// One per cent in parts per million.
const PPM_PER_PERCENT: f64 = 10_000.0;

/// What a direction does. The default does nothing: any rate, no delay, no loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Bits a second, preamble and gap counted; `None`: as fast as it goes.
    pub rate_bps: Option<u64>,
    /// Time a frame travels.
    pub delay: Duration,
    /// Frames lost in a million.
    pub loss_ppm: u32,
    /// The cable is pulled: nothing passes, and what travelled is lost.
    pub cut: bool,
    /// Bytes that may wait for the rate before frames are dropped.
    pub queue_bytes: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            rate_bps: None,
            delay: Duration::ZERO,
            loss_ppm: 0,
            cut: false,
            queue_bytes: QUEUE_BYTES_DEFAULT,
        }
    }
}

impl Settings {
    /// Applies one `key=value` word: `rate=100M` (bit/s; k, M, G; `off`), `delay=2ms` (us, ms, s),
    /// `loss=1%`, `queue=256k` (bytes).
    pub fn apply(&mut self, word: &str) -> Result<()> {
        let (key, value) = word
            .split_once('=')
            .with_context(|| format!("{word:?} is not key=value"))?;
        match key {
            "rate" if value == "off" => self.rate_bps = None,
            "rate" => self.rate_bps = Some(quantity(value)?),
            "delay" => self.delay = duration(value)?,
            "loss" => self.loss_ppm = loss_ppm(value)?,
            "queue" => self.queue_bytes = quantity(value)?,
            _ => bail!("{key:?} is unknown: use rate, delay, loss or queue"),
        }
        Ok(())
    }
}

fn quantity(text: &str) -> Result<u64> {
    let (digits, factor) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 1_000),
        Some(b'M') => (&text[..text.len() - 1], 1_000_000),
        Some(b'G') => (&text[..text.len() - 1], 1_000_000_000),
        _ => (text, 1),
    };
    let number: u64 = digits
        .parse()
        .with_context(|| format!("{text:?} is no number"))?;
    ensure!(number > 0, "{text:?} must be more than zero");
    number
        .checked_mul(factor)
        .with_context(|| format!("{text:?} is too large"))
}

fn duration(text: &str) -> Result<Duration> {
    let split = text
        .find(|c: char| c.is_ascii_alphabetic())
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let number: u32 = digits
        .parse()
        .with_context(|| format!("{text:?} is no duration"))?;
    match unit {
        "us" => Ok(Duration::from_micros(number.into())),
        "ms" => Ok(Duration::from_millis(number.into())),
        "s" => Ok(Duration::from_secs(number.into())),
        _ => bail!("{text:?} needs a unit: us, ms or s"),
    }
}

fn loss_ppm(text: &str) -> Result<u32> {
    let number = text
        .strip_suffix('%')
        .with_context(|| format!("{text:?} needs a % sign"))?;
    let percent: f64 = number
        .parse()
        .with_context(|| format!("{text:?} is no percentage"))?;
    ensure!(
        (0.0..=100.0).contains(&percent),
        "{text:?} is not between 0% and 100%"
    );
    Ok((percent * PPM_PER_PERCENT).round() as u32)
}

/// Counters of one direction. Every frame offered ends in exactly one of the others or is held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statistics {
    /// Frames given to this direction.
    pub offered_frames: u64,
    /// Frames that came out at the other end.
    pub delivered_frames: u64,
    /// Their bytes.
    pub delivered_bytes: u64,
    /// Lost on purpose.
    pub lost_frames: u64,
    /// Dropped because the queue was full.
    pub overflow_frames: u64,
    /// Dropped because the link was cut.
    pub cut_frames: u64,
}

struct Held {
    frame: Vec<u8>,
    due_ns: u64,
}

/// One direction of a link.
pub(crate) struct Shaper {
    settings: Settings,
    statistics: Statistics,
    held: VecDeque<Held>,
    /// When the last frame in the queue will have left the sender.
    busy_until_ns: u64,
    random: u64,
}

impl Shaper {
    pub(crate) fn new(seed: u64) -> Shaper {
        Shaper {
            settings: Settings::default(),
            statistics: Statistics::default(),
            held: VecDeque::new(),
            busy_until_ns: 0,
            random: seed,
        }
    }

    pub(crate) fn settings(&self) -> Settings {
        self.settings
    }

    pub(crate) fn statistics(&self) -> Statistics {
        self.statistics
    }

    /// Changes what the direction does, for frames to come; a cut also loses those held.
    pub(crate) fn configure(&mut self, settings: Settings) {
        self.settings = settings;
        if settings.cut {
            self.statistics.cut_frames += self.held.len() as u64;
            self.held.clear();
            self.busy_until_ns = 0;
        }
    }

    /// Takes a frame from the sender.
    pub(crate) fn offer(&mut self, frame: &[u8], now_ns: u64) {
        self.statistics.offered_frames += 1;
        if self.settings.cut {
            self.statistics.cut_frames += 1;
            return;
        }
        if self.draw_ppm() < self.settings.loss_ppm {
            self.statistics.lost_frames += 1;
            return;
        }
        let start_ns = self.busy_until_ns.max(now_ns);
        let waiting_bytes = self.bytes_in(start_ns - now_ns);
        if waiting_bytes + frame.len() as u64 > self.settings.queue_bytes
            || self.held.len() == FRAMES_MAX
        {
            self.statistics.overflow_frames += 1;
            return;
        }
        self.busy_until_ns = start_ns + self.sending_ns(frame.len() as u64);
        let travelled_ns = self.busy_until_ns + self.settings.delay.as_nanos() as u64;
        // A shortened delay must not let frames overtake each other.
        let due_ns = self
            .held
            .back()
            .map_or(travelled_ns, |last| travelled_ns.max(last.due_ns));
        self.held.push_back(Held {
            frame: frame.to_vec(),
            due_ns,
        });
    }

    /// When the next frame arrives, if one is held.
    pub(crate) fn next_due_ns(&self) -> Option<u64> {
        self.held.front().map(|held| held.due_ns)
    }

    /// A frame that has arrived by now.
    pub(crate) fn take_due(&mut self, now_ns: u64) -> Option<Vec<u8>> {
        let held = self.held.pop_front_if(|held| held.due_ns <= now_ns)?;
        self.statistics.delivered_frames += 1;
        self.statistics.delivered_bytes += held.frame.len() as u64;
        Some(held.frame)
    }

    fn sending_ns(&self, bytes: u64) -> u64 {
        let bits = (bytes + WIRE_OVERHEAD_BYTES) * 8;
        self.settings.rate_bps.map_or(0, |rate| {
            u64::try_from(u128::from(bits) * 1_000_000_000 / u128::from(rate))
                .unwrap_or(u64::MAX / 2)
        })
    }

    fn bytes_in(&self, time_ns: u64) -> u64 {
        self.settings.rate_bps.map_or(0, |rate| {
            let bytes = u128::from(rate) * u128::from(time_ns) / 8_000_000_000;
            u64::try_from(bytes).unwrap_or(u64::MAX / 2)
        })
    }

    /// SplitMix64: uniform in 0..1_000_000, from the seed alone.
    fn draw_ppm(&mut self) -> u32 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % 1_000_000) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn shaper(words: &[&str], seed: u64) -> Shaper {
        let mut settings = Settings::default();
        words.iter().for_each(|word| settings.apply(word).unwrap());
        let mut shaper = Shaper::new(seed);
        shaper.configure(settings);
        shaper
    }

    #[test]
    fn rate_and_delay_decide_the_arrival_to_the_nanosecond() {
        let mut shaper = shaper(&["rate=1M", "delay=2ms"], 1);
        // 101 + 24 octets at 1 Mbit/s: exactly one millisecond each.
        shaper.offer(&[0; 101], 0);
        shaper.offer(&[1; 101], 0);
        assert_eq!(shaper.next_due_ns(), Some(3 * MS));
        assert!(shaper.take_due(3 * MS - 1).is_none());
        assert_eq!(shaper.take_due(3 * MS).unwrap()[0], 0);
        assert!(shaper.take_due(4 * MS - 1).is_none());
        assert_eq!(shaper.take_due(4 * MS).unwrap()[0], 1);
    }

    #[test]
    fn the_queue_is_bounded_and_drains() {
        let mut shaper = shaper(&["rate=1M", "queue=1000"], 1);
        for _ in 0..20 {
            shaper.offer(&[0; 101], 0);
        }
        let dropped = shaper.statistics().overflow_frames;
        assert!((10..=12).contains(&dropped), "{dropped}");
        while shaper.take_due(1_000 * MS).is_some() {}
        shaper.offer(&[0; 101], 1_000 * MS);
        assert_eq!(shaper.statistics().overflow_frames, dropped);
    }

    #[test]
    fn one_seed_decides_every_loss() {
        let pattern = |seed| {
            let mut shaper = shaper(&["loss=10%"], seed);
            let lost = |shaper: &mut Shaper| {
                let before = shaper.statistics().lost_frames;
                shaper.offer(&[0; 60], 0);
                while shaper.take_due(0).is_some() {}
                shaper.statistics().lost_frames > before
            };
            (0..10_000)
                .map(|_| lost(&mut shaper))
                .collect::<Vec<bool>>()
        };
        assert_eq!(pattern(7), pattern(7));
        assert_ne!(pattern(7), pattern(8));
        let lost = pattern(7).iter().filter(|lost| **lost).count();
        assert!((900..1100).contains(&lost), "{lost} of 10000 at 10 %");
    }

    #[test]
    fn a_cut_loses_what_travels_and_restoring_heals() {
        let mut shaper = shaper(&["delay=1s"], 1);
        shaper.offer(&[0; 60], 0);
        let whole = shaper.settings();
        shaper.configure(Settings { cut: true, ..whole });
        shaper.offer(&[0; 60], 0);
        assert_eq!(
            (shaper.statistics().cut_frames, shaper.next_due_ns()),
            (2, None)
        );
        shaper.configure(whole);
        shaper.offer(&[0; 60], 0);
        assert!(shaper.take_due(1_000 * MS).is_some());
    }

    #[test]
    fn a_shorter_delay_does_not_reorder() {
        let mut shaper = shaper(&["delay=10ms"], 1);
        shaper.offer(&[1], 0);
        shaper.configure(Settings::default());
        shaper.offer(&[2], 0);
        assert!(shaper.take_due(5 * MS).is_none());
        assert_eq!(shaper.take_due(10 * MS).unwrap(), [1]);
        assert_eq!(shaper.take_due(10 * MS).unwrap(), [2]);
    }

    #[test]
    fn nonsense_settings_are_refused_with_a_hint() {
        for word in [
            "rate",
            "rate=x",
            "rate=0",
            "delay=5",
            "loss=3",
            "loss=101%",
            "mtu=9",
        ] {
            assert!(Settings::default().apply(word).is_err(), "{word}");
        }
    }
}
