//! Records that come again, late, short or changed.

use super::*;

/// Opens a whole record.
pub(super) fn open(
    records: &mut Records,
    record: &[u8],
    out: &mut [u8],
) -> Result<usize, ChannelError> {
    let (header, body) = record.split_at(RECORD_HEADER_BYTES);
    let bytes = records.header(header.try_into().unwrap())?;
    assert_eq!(bytes, body.len());
    records.open(body, out)
}

fn sealed(records: &mut Records, payload: &[u8]) -> Vec<u8> {
    let mut record = Vec::new();
    records.seal(payload, &mut record);
    record
}

#[test]
fn what_comes_again_or_out_of_order_is_named() {
    let [mut a, mut b] = Case::default().established();
    let all: Vec<_> = (0..4u8)
        .map(|number| sealed(&mut a.records, &[number; 100]))
        .collect();
    let mut out = [0; 128];
    assert_eq!(open(&mut b.records, &all[0], &mut out), Ok(100));
    assert_eq!(
        open(&mut b.records, &all[2], &mut out),
        Err(ChannelError::OutOfOrder {
            expected: 1,
            found: 2
        })
    );
    assert_eq!(open(&mut b.records, &all[1], &mut out), Ok(100));
    assert_eq!(
        open(&mut b.records, &all[1], &mut out),
        Err(ChannelError::Replay)
    );
    // An old record with a new number is a forgery.
    let mut renumbered = all[0].clone();
    renumbered[4..12].copy_from_slice(&all[2][4..12]);
    let forged = Err(ChannelError::Forged("a record"));
    assert_eq!(open(&mut b.records, &renumbered, &mut out), forged);
    // One of the other direction is, too.
    let back = sealed(&mut b.records, &[9; 100]);
    let mut reflected = back.clone();
    reflected[4..12].copy_from_slice(&all[2][4..12]);
    assert_eq!(open(&mut b.records, &reflected, &mut out), forged);
    assert_eq!(open(&mut b.records, &all[2], &mut out), Ok(100));
}

#[test]
fn another_connection_of_the_session_has_other_keys() {
    let [mut a, _] = Case::default().established();
    let other = Case {
        connecting: A,
        ..Case::default()
    };
    let (mut initiator, first) = Initiator::begin(
        &identity(A),
        ("host-b", fingerprint(B)),
        terms(),
        Session {
            connection: 0,
            ..SESSION
        },
        &mut Fixed(78),
    )
    .unwrap();
    let mut responder = other.responder(5);
    let mut to_responder = first;
    let mut accepted = None;
    while accepted.is_none() {
        let mut to_initiator = Vec::new();
        let mut rest = to_responder.as_slice();
        while !rest.is_empty() {
            let (now, later) = rest.split_at(responder.wanted());
            rest = later;
            let next = responder.receive(now);
            to_initiator.extend(next.send);
            accepted = next.outcome;
        }
        to_responder.clear();
        let mut rest = to_initiator.as_slice();
        while !rest.is_empty() {
            let (now, later) = rest.split_at(initiator.wanted());
            rest = later;
            to_responder.extend(initiator.receive(now).send);
        }
    }
    let mut accepted = accepted.unwrap().unwrap();
    let record = sealed(&mut a.records, b"for connection 1");
    let mut out = [0; 64];
    let opened = open(&mut accepted.records, &record, &mut out);
    assert_eq!(opened, Err(ChannelError::Forged("a record")));
}

#[test]
fn every_changed_octet_and_every_length_is_found() {
    let [mut a, mut b] = Case::default().established();
    let record = sealed(&mut a.records, &[5; 40]);
    let mut out = [0; 128];
    for at in 0..record.len() {
        let mut changed = record.clone();
        changed[at] ^= 0x10;
        let (header, body) = changed.split_at(RECORD_HEADER_BYTES);
        let length = b.records.header(header.try_into().unwrap());
        match at {
            0..4 => assert_ne!(length, Ok(body.len())),
            4..12 => assert!(
                matches!(length, Err(ChannelError::OutOfOrder { expected: 0, .. })),
                "{length:?}"
            ),
            _ => {
                let opened = b.records.open(body, &mut out);
                assert_eq!(opened, Err(ChannelError::Forged("a record")), "{at}");
            }
        }
    }
    for cut in RECORD_HEADER_BYTES..record.len() {
        let opened = b.records.open(&record[RECORD_HEADER_BYTES..cut], &mut out);
        assert_eq!(opened, Err(ChannelError::Forged("a record")));
    }
    assert_eq!(open(&mut b.records, &record, &mut out), Ok(40));
}

#[test]
fn lengths_are_checked_before_anything_is_waited_for() {
    let [_, b] = Case::default().established();
    let header = |bytes: u32| {
        let mut header = [0; RECORD_HEADER_BYTES];
        header[..4].copy_from_slice(&bytes.to_le_bytes());
        b.records.header(&header)
    };
    assert_eq!(header(65535), Ok(65535));
    let too_long = |bytes| {
        Err(ChannelError::TooLong {
            bytes,
            most: RECORD_BYTES_MAX,
        })
    };
    assert_eq!(header(65536), too_long(65536));
    assert_eq!(header(u32::MAX), too_long(u64::from(u32::MAX)));
    assert_eq!(header(16), Ok(16));
    assert_eq!(header(15), Err(ChannelError::Truncated("a record's tag")));
}

#[test]
fn keys_change_on_the_way_and_both_sides_follow() {
    let [mut a, mut b] = Case::default().established();
    let mut out = [0; 32];
    let mut bodies = Vec::new();
    for number in 0..2 * REKEY_RECORDS + 3 {
        let payload = number.to_le_bytes();
        let record = sealed(&mut a.records, &payload);
        assert_eq!(open(&mut b.records, &record, &mut out), Ok(8));
        assert_eq!(out[..8], payload);
        bodies.push(record);
    }
    // With the first key the records before the change are the same and those after it are not.
    let [mut stale, _] = Case::default().established();
    for (number, same) in [(REKEY_RECORDS - 1, true), (REKEY_RECORDS + 1, false)] {
        stale.records.sent = number;
        let record = sealed(&mut stale.records, &number.to_le_bytes());
        assert_eq!(record == bodies[number as usize], same);
    }
    // The verdict was a record of the other direction, which counts by itself.
    let back = sealed(&mut b.records, b"back");
    assert_eq!(back[4..12], 1u64.to_le_bytes());
    assert_eq!(open(&mut a.records, &back, &mut out), Ok(4));
}
