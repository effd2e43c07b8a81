//! The octets of one handshake, kept: a change of the wire format does not go unnoticed.
//!
//! When it is meant to change, `GODWIT_GOLDEN=1 cargo test -p godwit-migrate golden` writes the file anew.

use super::*;
use std::fmt::Write;

const KEPT: &str = include_str!("golden_handshake.txt");

#[test]
fn the_golden_handshake_is_as_it_was() {
    let (ends, flights) = Case::default().run(|_, _| {});
    let [mut a, mut b] = ends.map(Result::unwrap);
    let mut text = String::new();
    let mut line = |who: &str, octets: &[u8]| {
        let hex: String = octets
            .iter()
            .map(|octet| std::format!("{octet:02x}"))
            .collect();
        writeln!(text, "{who} {hex}").unwrap();
    };
    for (sender, octets) in &flights {
        match sender {
            Sender::Initiator => line(">", octets),
            Sender::Responder => line("<", octets),
        }
    }
    for (who, records) in [(">", &mut a.records), ("<", &mut b.records)] {
        let mut record = Vec::new();
        records.seal(b"payload", &mut record);
        line(who, &record);
    }
    if std::env::var_os("GODWIT_GOLDEN").is_some() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/src/channel/tests/golden_handshake.txt"
        );
        std::fs::write(path, &text).unwrap();
        return;
    }
    assert_eq!(text, KEPT);
}
