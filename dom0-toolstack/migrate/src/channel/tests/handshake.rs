//! Who meets, in which version, and who does not.

use super::*;

#[test]
fn known_hosts_meet_and_agree() {
    let case = Case::default();
    let [mut a, mut b] = case.established();
    assert_eq!(a.peer.name, "host-b");
    assert_eq!(a.peer.key, identity(B).public());
    assert_eq!(b.peer.name, "host-a");
    assert_eq!(b.peer.key, identity(A).public());
    assert_eq!((a.session, b.session), (SESSION, SESSION));
    assert_eq!((a.stream_version, b.stream_version), (4, 4));
    for payload in [&b"there"[..], &[7; PAYLOAD_BYTES_MAX]] {
        for (from, to) in [(0, 1), (1, 0)] {
            let both = [&mut a.records, &mut b.records];
            let mut record = Vec::new();
            both[from].seal(payload, &mut record);
            let mut out = std::vec![0; RECORD_BYTES_MAX];
            let bytes = records::open(both[to], &record, &mut out).unwrap();
            assert_eq!(&out[..bytes], payload);
        }
    }
}

#[test]
fn a_wrong_key_is_named_by_who_connects() {
    let case = Case {
        accepting: STRANGER,
        ..Case::default()
    };
    let wrong = ChannelError::WrongKey {
        expected: fingerprint(B),
        found: fingerprint(STRANGER),
    };
    let [connecting, accepting] = case.errors();
    assert_eq!(connecting, wrong);
    assert_eq!(accepting, ChannelError::Truncated("the handshake"));
}

#[test]
fn an_unknown_host_is_named_and_told_so() {
    let case = Case {
        connecting: STRANGER,
        ..Case::default()
    };
    let [connecting, accepting] = case.errors();
    assert_eq!(connecting, ChannelError::Refused(Refusal::UnknownHost));
    assert!(connecting.to_string().contains("xl host-add"));
    assert_eq!(accepting, ChannelError::UnknownHost(fingerprint(STRANGER)));
}

#[test]
fn neighbouring_versions_understand_each_other() {
    let versions = |newest, oldest| Versions { newest, oldest };
    for (ours, theirs, want) in [
        (versions(4, 3), versions(5, 4), Some(4)),
        (versions(5, 4), versions(4, 3), Some(4)),
        (versions(4, 3), versions(3, 2), Some(3)),
        (versions(4, 3), versions(6, 5), None),
        (versions(6, 5), versions(4, 3), None),
    ] {
        let case = Case {
            terms: [Terms::with_stream(ours), Terms::with_stream(theirs)],
            ..Case::default()
        };
        if let Some(version) = want {
            let [a, b] = case.established();
            assert_eq!((a.stream_version, b.stream_version), (version, version));
            continue;
        }
        let differ = |ours, theirs| ChannelError::Version {
            what: "stream",
            ours,
            theirs,
        };
        assert_eq!(case.errors(), [differ(ours, theirs), differ(theirs, ours)]);
    }
}

#[test]
fn a_handshake_that_comes_again_is_refused() {
    let case = Case::default();
    let (ends, flights) = case.run(|_, _| {});
    assert!(ends.iter().all(Result::is_ok));
    let ours = flights
        .iter()
        .filter(|flight| flight.0 == Sender::Initiator);
    let ours: Vec<u8> = ours.flat_map(|flight| flight.1.clone()).collect();
    let replay = |responder: &mut Responder<'_, Book>| {
        let mut rest = ours.as_slice();
        loop {
            let (now, later) = rest.split_at(responder.wanted());
            rest = later;
            if let Some(outcome) = responder.receive(now).outcome {
                return outcome.unwrap_err();
            }
        }
    };
    assert_eq!(replay(&mut case.responder(99)), ChannelError::Replay);
    // After a restart nobody remembers, but the keys are new.
    let fresh = Case::default();
    let forged = ChannelError::Forged("the third message");
    assert_eq!(replay(&mut fresh.responder(98)), forged);
}

#[test]
fn without_chance_there_are_no_keys() {
    let none = ChannelError::NoEntropy("no RDRAND".into());
    assert_eq!(Identity::generate(&mut NoChance).unwrap_err(), none);
    let case = Case::default();
    let (hosts, sessions) = (&case.hosts, &case.sessions);
    let begun = Responder::begin(&identity(B), hosts, sessions, terms(), &mut NoChance);
    assert_eq!(begun.err(), Some(none));
}

#[test]
fn a_peer_that_was_turned_away_says_why() {
    let case = Case::default();
    for refusal in [Refusal::PlaintextRefused, Refusal::Busy, Refusal::NoKey] {
        let (mut initiator, _) = case.initiator();
        let answer = turn_away(terms(), refusal);
        assert!(initiator.receive(&answer[..8]).outcome.is_none());
        let end = initiator.receive(&answer[8..]).outcome.unwrap();
        assert_eq!(end.unwrap_err(), ChannelError::Refused(refusal));
    }
    for code in 1..=u16::MAX {
        assert_eq!(Refusal::from_code(code).unwrap().code(), code);
    }
}
