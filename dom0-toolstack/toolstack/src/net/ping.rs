//! What `ping` counts and prints.

use alloc::format;
use alloc::string::String;
use core::net::IpAddr;

/// Payload bytes of a request, as other pings have it.
pub const PAYLOAD_BYTES: usize = 56;
/// How long an answer may take, microseconds; one that comes later is lost.
pub const TIMEOUT_US: u64 = 1_000_000;

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
