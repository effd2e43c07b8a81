//! Events as strings of bits: a prefix that says what it is, then what there is to say, lowest bit
//! first. No event is the empty string.
//!
//! ```text
//! 0 vvvvvvvv                    external interrupt
//! 1 0                           NMI
//! 1 1 0 0 vvvvvvvv              exception
//! 1 1 0 1 vvvvvvvv e*32         exception with an error code
//! 1 1 1 kk vvvvvvvv llll        software event: kind, vector, instruction length
//! ```

use alloc::vec::Vec;

use godwit_records::{EventKind, PendingEvent};

/// An encoded event.
pub(super) type Bits = Vec<bool>;

fn put(bits: &mut Bits, value: u32, count: u32) {
    bits.extend((0..count).map(|bit| value >> bit & 1 != 0));
}

fn take(bits: &mut impl Iterator<Item = bool>, count: u32) -> u32 {
    (0..count).fold(0, |value, bit| {
        let one = bits.next().expect("an encoded event ends early");
        value | u32::from(one) << bit
    })
}

pub(super) fn encode(event: &PendingEvent) -> Bits {
    let mut bits = Bits::new();
    let software = |kind: u32| {
        let mut bits = Bits::from([true, true, true]);
        put(&mut bits, kind, 2);
        put(&mut bits, event.vector.into(), 8);
        put(&mut bits, event.instruction_length.into(), 4);
        bits
    };
    match event.kind {
        EventKind::External => {
            bits.push(false);
            put(&mut bits, event.vector.into(), 8);
        }
        EventKind::Nmi => bits.extend([true, false]),
        EventKind::Exception => {
            bits.extend([true, true, false, event.error_code.is_some()]);
            put(&mut bits, event.vector.into(), 8);
            if let Some(code) = event.error_code {
                put(&mut bits, code, 32);
            }
        }
        EventKind::SoftwareInterrupt => bits = software(0),
        EventKind::PrivilegedSoftwareException => bits = software(1),
        EventKind::SoftwareException => bits = software(2),
    }
    bits
}

pub(super) fn decode(bits: &[bool]) -> Option<PendingEvent> {
    let bits = &mut bits.iter().copied();
    let event = |kind, vector: u32, error_code, length: u32| PendingEvent {
        kind,
        vector: vector as u8,
        error_code,
        instruction_length: length as u8,
    };
    if !bits.next()? {
        return Some(event(EventKind::External, take(bits, 8), None, 0));
    }
    if take(bits, 1) == 0 {
        return Some(event(EventKind::Nmi, 2, None, 0));
    }
    if take(bits, 1) == 0 {
        let coded = take(bits, 1) != 0;
        let vector = take(bits, 8);
        return Some(event(
            EventKind::Exception,
            vector,
            coded.then(|| take(bits, 32)),
            0,
        ));
    }
    let kind = match take(bits, 2) {
        0 => EventKind::SoftwareInterrupt,
        1 => EventKind::PrivilegedSoftwareException,
        2 => EventKind::SoftwareException,
        other => panic!("software event of kind {other}"),
    };
    let vector = take(bits, 8);
    Some(event(kind, vector, None, take(bits, 4)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_event_survives(kind in 0..6usize, vector: u8, code: Option<u32>, length in 0..16u8) {
            let kind = EventKind::ALL[kind];
            let software = kind as usize >= EventKind::SoftwareInterrupt as usize;
            let event = PendingEvent {
                kind,
                vector: if kind == EventKind::Nmi { 2 } else { vector },
                error_code: code.filter(|_| kind == EventKind::Exception),
                instruction_length: if software { length } else { 0 },
            };
            prop_assert_eq!(decode(&encode(&event)), Some(event));
        }
    }

    #[test]
    fn nothing_is_nothing() {
        assert_eq!(decode(&[]), None);
    }
}
