//! What a port counts, as `xl network-list` shows it.

/// Counters of a port since it was plugged in; directions as its owner sees them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortStatistics {
    /// Frames the owner took from the port.
    pub rx_frames: u64,
    /// Their bytes.
    pub rx_bytes: u64,
    /// Frames the owner sent.
    pub tx_frames: u64,
    /// Their bytes.
    pub tx_bytes: u64,
    /// Frames to the owner that were dropped because it does not take them fast enough.
    pub rx_dropped_full: u64,
    /// Frames of the owner dropped: no Ethernet frame, longer than the receiver takes, or with
    /// offload fields that contradict it.
    pub tx_dropped_malformed: u64,
    /// Frames of the owner dropped: a source address that is not its own.
    pub tx_dropped_spoofed: u64,
    /// Frames of the owner dropped by its rate limit.
    pub tx_dropped_rate: u64,
    /// Frames of the owner dropped because the receiver was slow and the owner had most waiting.
    pub tx_dropped_full: u64,
}

impl PortStatistics {
    /// Everything the owner sent that did not go.
    pub fn tx_dropped(&self) -> u64 {
        self.tx_dropped_malformed
            + self.tx_dropped_spoofed
            + self.tx_dropped_rate
            + self.tx_dropped_full
    }
}
