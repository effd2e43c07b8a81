//! How a record grows: a record that exists for this test alone, in its third version.

use godwit_records::laws::{
    bits_from, decodes_canonically, field_fits, hold_for, version_is_as_shipped,
};
use godwit_records::{
    Bytes, DecodeError, EncodeError, Fault, Kind, Record, choice, record, structure,
};
use proptest::prelude::*;

choice! {
    /// What a lamp is made for.
    pub enum Place {
        /// A room.
        0 Room,
        /// A street.
        3 Street,
    }
}

structure! {
    /// A colour.
    pub struct Colour {
        /// Hue.
        hue: u16,
        /// Whether it glows.
        glows: bool,
    }
}

record! {
    /// A lamp.
    pub struct Lamp = Kind::TEST;
    version 1 {
        /// Whether it is on.
        lit: bool = false;
        /// Switchings so far.
        switchings: u32 = 0;
    }
    version 2 {
        /// In percent. Lamps of version 1 could not be dimmed.
        brightness: u8 = 50, before 100;
        /// Where it stands.
        place: Place = Place::Street, before Place::Room;
    }
    version 3 {
        /// Colour, if it has one.
        colour: Option<Colour> = None, before None;
        /// What is written on it.
        label: Bytes<6> = Bytes::empty(), before Bytes::empty();
        /// Voltages.
        volts: [u16; 2] = [230, 0], before [110, 0];
    }
}

const V1: &str = "ffff 0100 05000000  01 07000000";
const V2: &str = "ffff 0200 07000000  00 08000000 2a 03";
const V3: &str = "ffff 0300 16000000  01 09000000 2b 00  01 3412 01  03000000 616263  e600 0c00";

fn lamp_v3() -> Lamp {
    Lamp {
        lit: true,
        switchings: 9,
        brightness: 43,
        place: Place::Room,
        colour: Some(Colour {
            hue: 0x1234,
            glows: true,
        }),
        label: Bytes::copy_of(b"abc").expect("fits"),
        volts: [230, 12],
    }
}

#[test]
fn every_version_decodes_and_stays_as_it_was() {
    let v1: Lamp = version_is_as_shipped(1, 0x17d3_a4f4_3ad4_499d, V1);
    let implied = Lamp {
        lit: true,
        switchings: 7,
        brightness: 100,
        place: Place::Room,
        colour: None,
        label: Bytes::empty(),
        volts: [110, 0],
    };
    assert_eq!(v1, implied);
    let v2: Lamp = version_is_as_shipped(2, 0xc2d8_0713_3df4_9976, V2);
    let implied = Lamp {
        lit: false,
        switchings: 8,
        brightness: 42,
        place: Place::Street,
        ..implied
    };
    assert_eq!(v2, implied);
    assert_eq!(
        version_is_as_shipped::<Lamp>(3, 0x03d8_574a_dcb1_1878, V3),
        lamp_v3()
    );
}

#[test]
#[should_panic(expected = "was edited")]
fn an_edited_version_is_noticed() {
    version_is_as_shipped::<Lamp>(1, 0x1234, V1);
}

#[test]
fn an_old_version_refuses_what_it_cannot_say() {
    let mut buffer = [0; Lamp::MAX_BYTES];
    let mut lamp = lamp_v3();
    assert_eq!(
        lamp.encode_as(2, &mut buffer),
        Err(EncodeError::NotExpressible { field: "colour" })
    );
    lamp.colour = None;
    lamp.label = Bytes::empty();
    assert_eq!(
        lamp.encode_as(2, &mut buffer),
        Err(EncodeError::NotExpressible { field: "volts" })
    );
    lamp.volts = [110, 0];
    assert_eq!(lamp.encode_as(2, &mut buffer), Ok(15));
    assert_eq!(Lamp::decode(&buffer[..15]), Ok(lamp.clone()));
    assert_eq!(
        lamp.encode_as(1, &mut buffer),
        Err(EncodeError::NotExpressible {
            field: "brightness"
        })
    );
}

/// The bytes of version 3 with one of them replaced.
fn refusal(offset: usize, byte: u8) -> DecodeError {
    let mut buffer = [0; Lamp::MAX_BYTES];
    let length = lamp_v3().encode(&mut buffer).expect("fits");
    buffer[offset] = byte;
    Lamp::decode(&buffer[..length]).expect_err("malformed")
}

#[test]
fn errors_name_record_field_offset_and_fault() {
    for (offset, byte, field, fault) in [
        (0, 0xfe, "kind", Fault::WrongKind(Kind(0xfffe))),
        (2, 4, "version", Fault::UnknownVersion(4)),
        (2, 0, "version", Fault::UnknownVersion(0)),
        (4, 0x15, "length", Fault::TrailingBytes),
        (7, 0x80, "length", Fault::Truncated),
        (8, 2, "lit", Fault::NotBoolean(2)),
        (14, 1, "place", Fault::UnknownValue(1)),
        (15, 0xff, "colour", Fault::NotBoolean(0xff)),
        (18, 7, "colour", Fault::NotBoolean(7)),
        (19, 7, "label", Fault::TooLong(7)),
        (19, 2, "end", Fault::TrailingBytes),
    ] {
        let error = refusal(offset, byte);
        assert_eq!(
            (error.record, error.field, error.fault),
            ("Lamp", field, fault)
        );
        // What is left over shows at its own place, the rest where the byte is (or its integer begins).
        let at = match offset {
            7 => 4,
            19 if byte == 2 => 29,
            elsewhere => elsewhere,
        };
        assert_eq!(error.offset, at, "{error}");
    }
    assert_eq!(
        refusal(14, 1).to_string(),
        "record Lamp, field place, byte 14: 0x01 stands for nothing"
    );
}

#[test]
fn the_schema_documents_versions_and_fields() {
    let page = Lamp::SCHEMA.to_string();
    assert!(page.contains("## Lamp (kind 0xffff)"), "{page}");
    assert!(
        page.contains("| place | Place (u8: 0 Room 3 Street) | Where it stands. |"),
        "{page}"
    );
    assert!(
        page.contains("| colour | optional Colour { hue: u16; glows: bool; } |"),
        "{page}"
    );
    assert_eq!(page.matches("| version ").count(), 3);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn laws_hold(seed: u64) {
        hold_for(&Lamp::sample(&mut bits_from(seed)));
    }

    #[test]
    fn fields_fit_their_bounds(seed: u64) {
        use godwit_records::Field;
        let mut bits = bits_from(seed);
        field_fits(&<Option<Colour>>::sample(&mut bits));
        field_fits(&<Bytes<6>>::sample(&mut bits));
        field_fits(&<[u16; 2]>::sample(&mut bits));
        field_fits(&Place::sample(&mut bits));
    }

    #[test]
    fn arbitrary_bodies_are_refused_or_canonical(version in 0u16..5, body in proptest::collection::vec(0u8..4, 0..32)) {
        let mut bytes = vec![0xff, 0xff];
        bytes.extend(version.to_le_bytes());
        bytes.extend((body.len() as u32).to_le_bytes());
        bytes.extend(body);
        decodes_canonically::<Lamp>(&bytes);
    }
}
