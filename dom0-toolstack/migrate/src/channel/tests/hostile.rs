//! Who is on the way, or at the other end, and means harm.

use super::*;

/// Octets of a hello that say what is known.
const VERSIONS: core::ops::Range<usize> = 8..16;

#[test]
fn a_changed_greeting_is_a_downgrade() {
    let hello = |flight: usize| Case::default().run(|_, _| {}).1[flight].1[..HELLO_BYTES].to_vec();
    for (sender, flight) in [(Sender::Initiator, 0), (Sender::Responder, 1)] {
        assert_eq!(hello(flight)[VERSIONS], [1, 0, 1, 0, 4, 0, 3, 0]);
        let case = Case::default();
        let ([connecting, accepting], _) = case.run(|from, bytes| {
            // 4 becomes 3: a version that both know, and not the newest.
            if from == sender && bytes.starts_with(&MAGIC) {
                bytes[12] = 3;
            }
        });
        assert_eq!(connecting.unwrap_err(), ChannelError::Downgrade);
        assert_eq!(
            accepting.unwrap_err(),
            ChannelError::Truncated("the handshake")
        );
    }
    // An accepting host that believes its octets were seen as sent notices what a lying initiator
    // claims to have seen: only message 3 says so, and it is encrypted, so this is a peer's doing.
    let case = Case::default();
    let ([connecting, _], _) = case.run(|from, bytes| {
        if from == Sender::Responder && bytes.starts_with(&MAGIC) {
            bytes[22] = Refusal::StreamVersion.code() as u8;
        }
    });
    assert_eq!(connecting.unwrap_err(), ChannelError::Downgrade, "made up");
}

#[test]
fn every_flipped_bit_is_found() {
    let (_, flights) = Case::default().run(|_, _| {});
    let lengths: Vec<usize> = flights.iter().map(|flight| flight.1.len()).collect();
    assert_eq!(lengths, [48 + 2 + 32, 48 + 2 + 192, 2 + 160, 12 + 18]);
    for (flight, length) in lengths.iter().enumerate() {
        for at in 0..*length {
            let (case, mut passed) = (Case::default(), 0);
            let ([connecting, accepting], _) = case.run(|_, bytes| {
                if passed == flight {
                    bytes[at] ^= 1 << (at % 8);
                }
                passed += 1;
            });
            let error = connecting.expect_err("a changed handshake does not end well");
            assert!(!error.to_string().is_empty());
            // The last flight is the verdict: who sent it has the handshake behind it.
            assert_eq!(accepting.is_ok(), flight == 3, "{flight} {at}");
        }
    }
}

#[test]
fn every_cut_is_a_truncation() {
    let (_, flights) = Case::default().run(|_, _| {});
    for (flight, (sender, bytes)) in flights.iter().enumerate() {
        for length in 0..bytes.len() {
            let (case, mut passed) = (Case::default(), 0);
            let (ends, _) = case.run(|_, bytes| {
                if passed == flight {
                    bytes.truncate(length);
                }
                passed += 1;
            });
            let [connecting, accepting] = ends.map(Result::err);
            let cut = match sender {
                Sender::Initiator => accepting,
                Sender::Responder => connecting,
            };
            assert!(matches!(cut, Some(ChannelError::Truncated(_))), "{cut:?}");
        }
    }
}

#[test]
fn who_speaks_something_else_is_told_apart() {
    for first in [
        &b"GODWITms\x01\0"[..],
        b"GET / HTTP/1.1\r\n",
        &[0x16, 3, 1, 0, 0, 0, 0, 0],
    ] {
        let case = Case::default();
        let start: [u8; 8] = first[..8].try_into().unwrap();
        let end = case.responder(1).receive(&first[..8]).outcome.unwrap();
        assert_eq!(end.unwrap_err(), ChannelError::Plaintext(start));
        let end = case.initiator().0.receive(&first[..8]).outcome.unwrap();
        let error = end.unwrap_err();
        assert_eq!(error, ChannelError::Plaintext(start));
        assert!(!error.to_string().chars().any(char::is_control), "{error}");
    }
}

#[test]
fn lengths_have_a_limit() {
    let case = Case::default();
    let (_, first) = case.initiator();
    for (length, want) in [
        (0, ChannelError::Truncated("the handshake")),
        (
            513,
            ChannelError::TooLong {
                bytes: 513,
                most: 512,
            },
        ),
    ] {
        let mut responder = case.responder(1);
        responder.receive(&first[..8]);
        responder.receive(&first[8..HELLO_BYTES]);
        let end = responder.receive(&u16::to_le_bytes(length)).outcome;
        assert_eq!(end.unwrap().unwrap_err(), want);
    }
}

#[test]
fn greetings_that_no_version_makes_are_refused() {
    for (at, value, what) in [
        (16, 2, "same part"),
        (17, 9, "purpose"),
        (18, 7, "beyond"),
        (20, 200, "beyond"),
        (22, 1, "cannot refuse"),
        (47, 1, "not 0"),
    ] {
        let case = Case::default();
        let (_, mut first) = case.initiator();
        first[at] = value;
        let mut responder = case.responder(1);
        responder.receive(&first[..8]);
        let end = responder.receive(&first[8..HELLO_BYTES]).outcome.unwrap();
        match end.unwrap_err() {
            ChannelError::BadHello(why) => assert!(why.contains(what), "{why}"),
            other => panic!("{other}"),
        }
    }
}

#[test]
fn an_echo_is_not_a_peer() {
    // Both ends with the same key, which each knows: what is said is sent back.
    let case = Case {
        expected: fingerprint(A),
        ..Case::default()
    };
    let (mut initiator, first) = case.initiator();
    initiator.receive(&first[..8]);
    let end = initiator.receive(&first[8..HELLO_BYTES]).outcome.unwrap();
    assert!(matches!(end.unwrap_err(), ChannelError::BadHello(_)));
}
