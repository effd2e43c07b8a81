//! A guest's DHCP client that sends anything: answers are due only to it, and give nobody but it
//! its own address.

use godwit_backends::network::dhcp::Server;
use godwit_backends::network::mac::MacAddress;
use godwit_backends::network::segment::Segment;
use std::net::Ipv4Addr;

const GUEST: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
/// Offsets in a DHCP message (RFC 2131, figure 1).
const OPERATION: usize = 0;
const TRANSACTION: std::ops::Range<usize> = 4..8;
const YOUR_ADDRESS: std::ops::Range<usize> = 16..20;

/// One message. Returns whether it was answered.
pub(crate) fn judge(input: &[u8]) -> bool {
    let mut server = Server::new(Segment::default());
    server.set_dns(&[Ipv4Addr::new(9, 9, 9, 9)]);
    let address = server.reserve(GUEST, None).expect("the first of many");
    assert!(
        server
            .answer(MacAddress([2, 0, 0, 0, 0, 2]), input)
            .is_none()
    );
    let Some(answer) = server.answer(GUEST, input) else {
        return false;
    };
    assert!(answer.mac == GUEST || answer.mac == MacAddress::BROADCAST);
    assert_eq!(answer.message[OPERATION], 2);
    assert_eq!(answer.message[TRANSACTION], input[TRANSACTION]);
    let given = &answer.message[YOUR_ADDRESS];
    assert!(given == address.octets() || given == [0; 4]);
    true
}
