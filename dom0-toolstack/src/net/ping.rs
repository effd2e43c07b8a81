//! ICMP echo requests, one at a time.

use super::Network;
use crate::console;
use core::net::IpAddr;
use embassy_net::icmp::{
    ChecksumCapabilities, IcmpEndpoint, IcmpSocket, Icmpv4Packet, Icmpv4Repr, Icmpv6Packet,
    Icmpv6Repr, PacketMetadata,
};
use embassy_time::{Duration, Instant, Timer, with_deadline};
use godwit_backends::network::nat::connections::PORTS;
use godwit_toolstack::net::ping::{PAYLOAD_BYTES, PingStatistics, TIMEOUT_US, answer_line};

/// Packets that fit in a socket's buffers.
const PACKETS: usize = 8;
const BUFFER_BYTES: usize = PACKETS * 256;
/// Bytes of an ICMP echo header.
const HEADER_BYTES: usize = 8;
/// Echo reply (RFC 792).
const REPLY_V4: u8 = 0;
/// Echo reply (RFC 4443).
const REPLY_V6: u8 = 129;

/// Sends `count` requests (`None`: without end), writes a line for each answer, and counts in
/// `statistics`, which the caller keeps when it drops this half way.
pub(crate) async fn ping(
    network: &Network,
    target: IpAddr,
    count: Option<u32>,
    interval: Duration,
    statistics: &mut PingStatistics,
) -> Result<(), &'static str> {
    let mut rx_meta = [PacketMetadata::EMPTY; PACKETS];
    let mut tx_meta = [PacketMetadata::EMPTY; PACKETS];
    let mut rx = alloc::vec![0; BUFFER_BYTES];
    let mut tx = alloc::vec![0; BUFFER_BYTES];
    let mut socket = IcmpSocket::new(network.stack, &mut rx_meta, &mut rx, &mut tx_meta, &mut tx);
    // Below what guests' echo requests are translated to.
    let ident = crate::clock::tsc() as u16 % PORTS.start();
    socket
        .bind(IcmpEndpoint::Ident(ident))
        .map_err(|_| "no ICMP socket can be bound")?;
    let mut next = Instant::now();
    let mut sequence: u16 = 0;
    while count.is_none_or(|count| statistics.sent < count) {
        sequence = sequence.wrapping_add(1);
        Timer::at(next).await;
        next += interval;
        let sent = Instant::now();
        send(network, &mut socket, target, ident, sequence).await?;
        statistics.sent += 1;
        let deadline = sent + Duration::from_micros(TIMEOUT_US);
        let answer = with_deadline(deadline, answer_to(&socket, sequence)).await;
        // Without one: lost, which is sent less received.
        if let Ok((from, bytes)) = answer {
            let us = sent.elapsed().as_micros();
            statistics.answered(us);
            console::write(answer_line(from, bytes, sequence, us).as_bytes());
        }
    }
    Ok(())
}

async fn send(
    network: &Network,
    socket: &mut IcmpSocket<'_>,
    target: IpAddr,
    ident: u16,
    sequence: u16,
) -> Result<(), &'static str> {
    let payload: [u8; PAYLOAD_BYTES] = core::array::from_fn(|at| at as u8);
    let checksums = ChecksumCapabilities::default();
    let bytes = HEADER_BYTES + PAYLOAD_BYTES;
    let source = network.link_local();
    let sent = socket
        .send_to_with(bytes, target, |buffer| {
            match target {
                IpAddr::V4(_) => Icmpv4Repr::EchoRequest {
                    ident,
                    seq_no: sequence,
                    data: &payload,
                }
                .emit(&mut Icmpv4Packet::new_unchecked(buffer), &checksums),
                // The stack computes the checksum anew, for the source address it chooses.
                IpAddr::V6(target) => Icmpv6Repr::EchoRequest {
                    ident,
                    seq_no: sequence,
                    data: &payload,
                }
                .emit(
                    &source,
                    &target,
                    &mut Icmpv6Packet::new_unchecked(buffer),
                    &checksums,
                ),
            }
            (bytes, ())
        })
        .await;
    sent.map_err(|_| "there is no route to that address")
}

/// Waits for the answer to one request; passes over late ones. Returns whence it came and its
/// bytes.
async fn answer_to(socket: &IcmpSocket<'_>, sequence: u16) -> (IpAddr, usize) {
    let mut buffer = [0; BUFFER_BYTES];
    loop {
        // An answer larger than what was sent is none of ours.
        let Ok((bytes, from)) = socket.recv_from(&mut buffer).await else {
            continue;
        };
        // The socket has checked checksum and identifier, but passes requests on too. The type is
        // at offset 0, the number at offset 6 in both families.
        let packet = &buffer[..bytes];
        let is_reply = matches!(packet.first(), Some(&(REPLY_V4 | REPLY_V6)));
        if is_reply && packet.get(6..8) == Some(&sequence.to_be_bytes()[..]) {
            return (from.into(), bytes);
        }
    }
}
