//! What `ping` asks for and what it counts.

use alloc::format;
use alloc::string::String;
use core::net::IpAddr;

/// Requests sent when the operator gives no count.
pub const COUNT_DEFAULT: u32 = 4;
/// Payload bytes when the operator gives no size, as other pings have it.
pub const PAYLOAD_BYTES_DEFAULT: usize = 56;
/// The largest payload: an Ethernet frame of 1500 bytes less IPv6 and ICMP headers.
pub const PAYLOAD_BYTES_MAX: usize = 1452;
/// Pause between requests, microseconds.
pub const INTERVAL_US_DEFAULT: u64 = 1_000_000;
/// Wait for an answer, microseconds.
pub const TIMEOUT_US_DEFAULT: u64 = 1_000_000;
/// The shortest pause, microseconds: a busy loop would starve the other tasks.
pub const INTERVAL_US_MIN: u64 = 1_000;
/// The longest pause or wait, microseconds.
pub const TIME_US_MAX: u64 = 3_600_000_000;
/// How to call it.
pub const USAGE: &str = "ping [-c COUNT] [-i SECONDS] [-W SECONDS] [-s BYTES] ADDRESS";

/// What was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PingRequest {
    /// Whom to ask.
    pub target: IpAddr,
    /// How often.
    pub count: u32,
    /// Pause from one request to the next, microseconds.
    pub interval_us: u64,
    /// How long to wait for each answer, microseconds.
    pub timeout_us: u64,
    /// Bytes of payload.
    pub payload_bytes: usize,
}

impl PingRequest {
    /// Reads the arguments of the command. The error is a sentence for the operator.
    pub fn parse<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let mut words = arguments.into_iter();
        let mut target = None;
        let mut request = Self {
            target: IpAddr::V4(core::net::Ipv4Addr::UNSPECIFIED),
            count: COUNT_DEFAULT,
            interval_us: INTERVAL_US_DEFAULT,
            timeout_us: TIMEOUT_US_DEFAULT,
            payload_bytes: PAYLOAD_BYTES_DEFAULT,
        };
        while let Some(word) = words.next() {
            if !word.starts_with('-') {
                let address = word
                    .parse()
                    .map_err(|_| format!("ping: {word}: not an IPv4 or IPv6 address"))?;
                if target.replace(address).is_some() {
                    return Err(format!("ping: more than one address\nusage: {USAGE}"));
                }
                continue;
            }
            let value = words
                .next()
                .ok_or_else(|| format!("ping: {word}: no value\nusage: {USAGE}"))?;
            request.set(word, value)?;
        }
        request.target = target.ok_or_else(|| format!("usage: {USAGE}"))?;
        Ok(request)
    }

    fn set(&mut self, option: &str, value: &str) -> Result<(), String> {
        let wrong = |what: &str| format!("ping: {option} {value}: {what}");
        match option {
            "-c" => {
                self.count = value
                    .parse()
                    .ok()
                    .filter(|count| *count > 0)
                    .ok_or_else(|| wrong("not a count"))?;
            }
            "-i" => {
                self.interval_us = seconds_as_us(value)
                    .filter(|us| *us >= INTERVAL_US_MIN)
                    .ok_or_else(|| wrong("not 0.001 to 3600 seconds"))?;
            }
            "-W" => {
                self.timeout_us = seconds_as_us(value)
                    .filter(|us| *us > 0)
                    .ok_or_else(|| wrong("not a time up to 3600 seconds"))?;
            }
            "-s" => {
                self.payload_bytes = value
                    .parse()
                    .ok()
                    .filter(|bytes| *bytes <= PAYLOAD_BYTES_MAX)
                    .ok_or_else(|| wrong("not 0 to 1452 bytes"))?;
            }
            _ => return Err(format!("ping: unknown option {option}\nusage: {USAGE}")),
        }
        Ok(())
    }
}

/// Decimal seconds with at most six places, as microseconds; `None` if it is not that, or above
/// [`TIME_US_MAX`].
fn seconds_as_us(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > 6 {
        return None;
    }
    let whole: u64 = whole.parse().ok()?;
    let scale = 10u64.pow(6 - fraction.len() as u32);
    let fraction = fraction.parse::<u64>().ok()? * scale;
    let us = whole.checked_mul(1_000_000)?.checked_add(fraction)?;
    (us <= TIME_US_MAX).then_some(us)
}

/// What has been counted so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PingStatistics {
    /// Requests sent.
    pub sent: u32,
    /// Answers in time.
    pub received: u32,
    /// Fastest answer, microseconds; 0 without an answer.
    pub min_us: u64,
    /// Slowest answer, microseconds.
    pub max_us: u64,
    total_us: u64,
}

impl PingStatistics {
    /// Counts an answer that took `round_trip_us`.
    pub fn answered(&mut self, round_trip_us: u64) {
        self.min_us = if self.received == 0 {
            round_trip_us
        } else {
            self.min_us.min(round_trip_us)
        };
        self.max_us = self.max_us.max(round_trip_us);
        self.total_us = self.total_us.saturating_add(round_trip_us);
        self.received += 1;
    }

    /// Mean round trip, microseconds; 0 without an answer.
    pub fn mean_us(&self) -> u64 {
        self.total_us
            .checked_div(u64::from(self.received))
            .unwrap_or(0)
    }

    /// Requests without an answer, in whole percent, rounded down (so 100 means every one).
    pub fn loss_percent(&self) -> u32 {
        let lost = u64::from(self.sent.saturating_sub(self.received));
        (lost * 100)
            .checked_div(u64::from(self.sent))
            .map_or(0, |percent| percent as u32)
    }

    /// The closing lines, as other pings write them.
    pub fn summary(&self, target: IpAddr, elapsed_us: u64) -> String {
        let mut text = format!(
            "--- {target} ping statistics ---\n{} packets transmitted, {} received, {}% packet loss, time {} ms\n",
            self.sent,
            self.received,
            self.loss_percent(),
            elapsed_us / 1000
        );
        if self.received > 0 {
            text += &format!(
                "rtt min/avg/max = {}/{}/{} ms\n",
                milliseconds(self.min_us),
                milliseconds(self.mean_us()),
                milliseconds(self.max_us)
            );
        }
        text
    }
}

/// The line for one answer.
pub fn answer_line(from: IpAddr, bytes: usize, sequence: u16, round_trip_us: u64) -> String {
    format!(
        "{bytes} bytes from {from}: icmp_seq={sequence} time={} ms\n",
        milliseconds(round_trip_us)
    )
}

/// Microseconds as milliseconds with three places.
fn milliseconds(us: u64) -> String {
    format!("{}.{:03}", us / 1000, us % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<PingRequest, String> {
        PingRequest::parse(line.split_ascii_whitespace())
    }

    #[test]
    fn options_and_defaults() {
        let request = parse("-c 10 10.0.0.2 -i 0.05 -W 2 -s 1000").unwrap();
        assert_eq!(request.count, 10);
        assert_eq!(request.interval_us, 50_000);
        assert_eq!(request.timeout_us, 2_000_000);
        assert_eq!(request.payload_bytes, 1000);
        let request = parse("fe80::1").unwrap();
        assert_eq!(request.count, COUNT_DEFAULT);
        assert!(request.target.is_ipv6());
    }

    #[test]
    fn nonsense_is_refused_with_a_reason() {
        for line in [
            "",
            "-c",
            "-c 0 1.2.3.4",
            "-c x 1.2.3.4",
            "1.2.3.4 1.2.3.5",
            "-i 0 1.2.3.4",
            "-i 1e3 1.2.3.4",
            "-W 3601 1.2.3.4",
            "-W 99999999999999999999 1.2.3.4",
            "-s 1453 1.2.3.4",
            "-z 1 1.2.3.4",
            "host-b",
        ] {
            assert!(!parse(line).unwrap_err().is_empty(), "{line}");
        }
    }

    #[test]
    fn statistics_of_a_lossy_run() {
        let mut statistics = PingStatistics {
            sent: 4,
            ..Default::default()
        };
        for us in [1500, 500, 1000] {
            statistics.answered(us);
        }
        assert_eq!(statistics.loss_percent(), 25);
        let text = statistics.summary("10.0.0.2".parse().unwrap(), 3_004_999);
        assert_eq!(
            text,
            "--- 10.0.0.2 ping statistics ---\n4 packets transmitted, 3 received, 25% packet loss, time 3004 ms\n\
             rtt min/avg/max = 0.500/1.000/1.500 ms\n"
        );
    }

    #[test]
    fn nothing_sent_or_nothing_received_divides_by_nothing() {
        let none = PingStatistics::default();
        assert_eq!((none.loss_percent(), none.mean_us()), (0, 0));
        let lost = PingStatistics { sent: 3, ..none };
        assert_eq!(lost.loss_percent(), 100);
        assert!(!lost.summary("::1".parse().unwrap(), 0).contains("rtt"));
    }
}
