//! Features and configuration (5.1.3, 5.1.4).

use crate::virtio::CONFIG_BYTES_MAX;

pub(super) const CSUM: u64 = 1 << 0;
pub(super) const GUEST_CSUM: u64 = 1 << 1;
const MTU: u64 = 1 << 3;
const MAC: u64 = 1 << 5;
pub(super) const GUEST_TSO4: u64 = 1 << 7;
pub(super) const GUEST_TSO6: u64 = 1 << 8;
pub(super) const GUEST_ECN: u64 = 1 << 9;
pub(super) const HOST_TSO4: u64 = 1 << 11;
pub(super) const HOST_TSO6: u64 = 1 << 12;
pub(super) const HOST_ECN: u64 = 1 << 13;
pub(super) const MRG_RXBUF: u64 = 1 << 15;
const STATUS: u64 = 1 << 16;
const CTRL_VQ: u64 = 1 << 17;
pub(super) const CTRL_RX: u64 = 1 << 18;
pub(super) const GUEST_ANNOUNCE: u64 = 1 << 21;
pub(super) const CTRL_MAC_ADDR: u64 = 1 << 23;

/// All that is offered.
pub(super) const OFFERED: u64 = CSUM
    | GUEST_CSUM
    | MTU
    | MAC
    | GUEST_TSO4
    | GUEST_TSO6
    | GUEST_ECN
    | HOST_TSO4
    | HOST_TSO6
    | HOST_ECN
    | MRG_RXBUF
    | STATUS
    | CTRL_VQ
    | CTRL_RX
    | GUEST_ANNOUNCE
    | CTRL_MAC_ADDR;

/// What needs any of what (5.1.3.1).
const NEEDS: &[(u64, u64)] = &[
    (GUEST_TSO4 | GUEST_TSO6, GUEST_CSUM),
    (GUEST_ECN, GUEST_TSO4 | GUEST_TSO6),
    (HOST_TSO4 | HOST_TSO6, CSUM),
    (HOST_ECN, HOST_TSO4 | HOST_TSO6),
    (CTRL_RX | GUEST_ANNOUNCE | CTRL_MAC_ADDR, CTRL_VQ),
];

const STATUS_LINK_UP: u16 = 1;
const STATUS_ANNOUNCE: u16 = 2;

/// Whether features go together.
pub(super) fn consistent(features: u64) -> bool {
    NEEDS
        .iter()
        .all(|(which, needed)| features & which == 0 || features & needed != 0)
}

/// `struct virtio_net_config`.
pub(super) fn write(
    mac: [u8; 6],
    link: bool,
    announce: bool,
    mtu: u16,
    out: &mut [u8; CONFIG_BYTES_MAX],
) {
    let mut status = 0;
    if link {
        status |= STATUS_LINK_UP;
    }
    if announce {
        status |= STATUS_ANNOUNCE;
    }
    out[..6].copy_from_slice(&mac);
    out[6..8].copy_from_slice(&status.to_le_bytes());
    // One pair of queues.
    out[8..10].copy_from_slice(&1u16.to_le_bytes());
    out[10..12].copy_from_slice(&mtu.to_le_bytes());
}
