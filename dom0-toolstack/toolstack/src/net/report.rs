//! What `ip` shows of the network card.

use super::address::MacAddress;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;

/// What a card has counted since dom0 started.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LinkCounters {
    /// Frames received and passed on.
    pub rx_frames: u64,
    /// Their bytes.
    pub rx_bytes: u64,
    /// Frames received damaged, too large, or lost for want of a buffer.
    pub rx_dropped: u64,
    /// Frames sent.
    pub tx_frames: u64,
    /// Their bytes.
    pub tx_bytes: u64,
    /// Interrupts.
    pub interrupts: u64,
    /// Times the watchdog found frames waiting for which no interrupt had come.
    pub interrupts_missed: u64,
}

/// The network interface as the operator sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InterfaceReport {
    /// Kind of card, as `virtio-net`.
    pub driver: &'static str,
    /// PCI address and interrupt, as `0000:00:02.0 MSI-X`.
    pub device: String,
    /// Hardware address.
    pub mac: MacAddress,
    /// Whether there is a carrier.
    pub link_up: bool,
    /// Bytes of the largest IP packet.
    pub mtu_bytes: usize,
    /// Addresses and prefix lengths.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Default gateway.
    pub gateway: Option<IpAddr>,
    /// Counters.
    pub counters: LinkCounters,
}

impl InterfaceReport {
    /// The lines that `ip` prints.
    pub fn text(&self) -> String {
        let state = if self.link_up { "UP" } else { "DOWN" };
        let mut text = format!(
            "eth0: {} {} link {state} mtu {}\n    ether {}\n",
            self.driver, self.device, self.mtu_bytes, self.mac
        );
        for (address, bits) in &self.addresses {
            let family = if address.is_ipv4() { "inet" } else { "inet6" };
            text += &format!("    {family} {address}/{bits}\n");
        }
        if let Some(gateway) = self.gateway {
            text += &format!("    default via {gateway}\n");
        }
        let counters = &self.counters;
        text += &format!(
            "    RX {} frames {} bytes {} dropped\n    TX {} frames {} bytes\n    interrupts {} missed {}\n",
            counters.rx_frames,
            counters.rx_bytes,
            counters.rx_dropped,
            counters.tx_frames,
            counters.tx_bytes,
            counters.interrupts,
            counters.interrupts_missed
        );
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_shown() {
        let report = InterfaceReport {
            driver: "e1000",
            device: "0000:00:02.0 INTx".into(),
            mac: MacAddress([0x52, 0x54, 0, 0, 0, 1]),
            link_up: true,
            mtu_bytes: 1500,
            addresses: [
                ("10.77.0.1".parse().unwrap(), 24),
                ("fe80::1".parse().unwrap(), 64),
            ]
            .into(),
            gateway: Some("10.77.0.254".parse().unwrap()),
            counters: LinkCounters {
                rx_frames: 1,
                rx_bytes: 2,
                rx_dropped: 3,
                tx_frames: 4,
                tx_bytes: 5,
                interrupts: 6,
                interrupts_missed: 7,
            },
        };
        assert_eq!(
            report.text(),
            "eth0: e1000 0000:00:02.0 INTx link UP mtu 1500\n    ether 52:54:00:00:00:01\n    \
             inet 10.77.0.1/24\n    inet6 fe80::1/64\n    default via 10.77.0.254\n    \
             RX 1 frames 2 bytes 3 dropped\n    TX 4 frames 5 bytes\n    interrupts 6 missed 7\n"
        );
    }
}
