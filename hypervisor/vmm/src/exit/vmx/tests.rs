//! Numbers as in the tables of SDM 3C 25 and 28.

extern crate std;

use core::num::NonZeroU8;

use godwit_records::{EventKind, PendingEvent, Segment};
use proptest::prelude::*;

use super::access_rights::{UNUSABLE, of_segment, to_segment};
use super::event::{Injection, Interruption};
use super::*;
use crate::hardware::{Event, SegmentName};

/// A VMCS in which only the given fields may be read.
#[derive(Default)]
struct Fields {
    qualification: Option<u64>,
    length: Option<u32>,
    guest_physical: Option<u64>,
    interruption: Option<u32>,
    error_code: Option<u32>,
}

impl ExitFields for Fields {
    fn qualification(&self) -> u64 {
        self.qualification.expect("no qualification")
    }
    fn instruction_length(&self) -> u32 {
        self.length.expect("no length")
    }
    fn guest_physical(&self) -> u64 {
        self.guest_physical.expect("no guest-physical address")
    }
    fn interruption(&self) -> Interruption {
        Interruption(self.interruption.expect("no interruption information"))
    }
    fn interruption_error_code(&self) -> u32 {
        self.error_code.expect("no error code")
    }
}

fn with_length(length: u32) -> Fields {
    Fields {
        length: Some(length),
        ..Fields::default()
    }
}

fn with_qualification(qualification: u64) -> Fields {
    Fields {
        qualification: Some(qualification),
        length: Some(3),
        ..Fields::default()
    }
}

fn with_interruption(interruption: u32) -> Fields {
    Fields {
        interruption: Some(interruption),
        error_code: Some(0x18),
        qualification: Some(7),
        ..Fields::default()
    }
}

const TWO: Length = NonZeroU8::new(2);
const THREE: Length = NonZeroU8::new(3);

#[test]
fn instructions_report_their_length_and_read_nothing_else() {
    assert_eq!(decode(10, &with_length(2)), Exit::Cpuid(TWO));
    assert_eq!(decode(12, &with_length(3)), Exit::Hlt(THREE));
    assert_eq!(decode(18, &with_length(3)), Exit::Hypercall(THREE));
    assert_eq!(decode(31, &with_length(2)), Exit::Rdmsr(TWO));
    assert_eq!(decode(32, &with_length(2)), Exit::Wrmsr(TWO));
    assert_eq!(decode(13, &with_length(2)), Exit::CacheFlush(TWO));
    assert_eq!(decode(54, &with_length(2)), Exit::CacheFlush(TWO));
    assert_eq!(decode(55, &with_length(3)), Exit::Xsetbv(THREE));
    assert_eq!(decode(40, &with_length(2)), Exit::Pause(TWO));
    assert_eq!(decode(10, &with_length(0)), Exit::Cpuid(None));
    assert_eq!(decode(10, &with_length(0x102)), Exit::Cpuid(None));
}

#[test]
fn asynchronous_exits_read_no_field() {
    let none = Fields::default();
    let expected = [
        (1, Exit::HostInterrupt),
        (2, Exit::TripleFault),
        (3, Exit::Startup),
        (7, Exit::InterruptWindow),
        (8, Exit::NmiWindow),
        (9, Exit::TaskSwitch),
        (52, Exit::Deadline),
        (62, Exit::DirtyLogFull),
    ];
    for (number, exit) in expected {
        assert_eq!(decode(number, &none), exit);
    }
    for number in (19..=27).chain([11, 15, 36, 39, 50, 53, 59, 60, 63, 64]) {
        assert_eq!(decode(number, &none), Exit::Forbidden, "reason {number}");
    }
}

#[test]
fn reasons_not_asked_for_are_unknown_with_their_qualification() {
    for number in [5, 14, 16, 29, 37, 43, 44, 46, 51, 58, 61, 75, 0xffff] {
        let exit = decode(number, &with_qualification(0xabc));
        assert_eq!(
            exit,
            Exit::Unknown {
                code: number.into(),
                detail: 0xabc
            }
        );
    }
}

#[test]
fn failed_entries_keep_reason_and_qualification() {
    let exit = decode(0x8000_0021, &with_qualification(4));
    assert_eq!(
        exit,
        Exit::EntryFailed {
            code: 0x8000_0021,
            detail: 4
        }
    );
}

#[test]
fn port_accesses() {
    let access = |qualification| decode(30, &with_qualification(qualification));
    let out = PortAccess {
        port: 0xe9,
        width: Width::Byte,
        input: false,
        string: false,
        repeat: false,
        length: THREE,
    };
    assert_eq!(access(0x00e9_0040), Exit::Port(out));
    assert_eq!(
        access(0x0cf8_000b),
        Exit::Port(PortAccess {
            port: 0xcf8,
            width: Width::Dword,
            input: true,
            ..out
        })
    );
    assert_eq!(
        access(0xffff_0031),
        Exit::Port(PortAccess {
            port: 0xffff,
            width: Width::Word,
            string: true,
            repeat: true,
            ..out
        })
    );
    assert_eq!(
        access(0x00e9_0002),
        Exit::Unknown {
            code: 30,
            detail: 0x00e9_0002
        }
    );
}

#[test]
fn control_register_accesses() {
    let access = |qualification| decode(28, &with_qualification(qualification));
    let control = |access| Exit::Control(access, THREE);
    assert_eq!(access(0x300), control(ControlAccess::WriteCr0(3)));
    assert_eq!(access(0xf04), control(ControlAccess::WriteCr4(15)));
    assert_eq!(access(0x008), control(ControlAccess::WriteCr8(0)));
    assert_eq!(access(0x918), control(ControlAccess::ReadCr8(9)));
    assert_eq!(access(0x020), control(ControlAccess::Clts));
    assert_eq!(access(0x8005_0030), control(ControlAccess::Lmsw(0x8005)));
    assert_eq!(
        access(0x013),
        Exit::Unknown {
            code: 28,
            detail: 0x013
        }
    );
}

#[test]
fn nested_faults() {
    let fault = |qualification| {
        let fields = Fields {
            qualification: Some(qualification),
            guest_physical: Some(0x12_3456),
            ..Fields::default()
        };
        decode(48, &fields)
    };
    let read = NestedFault {
        gpa: 0x12_3456,
        read: true,
        write: false,
        fetch: false,
        mapped: false,
    };
    assert_eq!(fault(0x181), Exit::Nested(read));
    let withheld = NestedFault {
        read: false,
        write: true,
        mapped: true,
        ..read
    };
    assert_eq!(fault(0x1aa), Exit::Nested(withheld));
    let fetch = NestedFault {
        read: false,
        fetch: true,
        mapped: true,
        ..read
    };
    assert_eq!(fault(0x08c), Exit::Nested(fetch));
    let fields = Fields {
        guest_physical: Some(0x7000),
        ..Fields::default()
    };
    assert_eq!(
        decode(49, &fields),
        Exit::NestedMisconfigured { gpa: 0x7000 }
    );
}

#[test]
fn exceptions_and_nmis() {
    assert_eq!(decode(0, &with_interruption(0x8000_0202)), Exit::HostNmi);
    assert_eq!(
        decode(0, &with_interruption(0x8000_0301)),
        Exit::Exception(1, None)
    );
    assert_eq!(
        decode(0, &with_interruption(0x8000_0501)),
        Exit::Exception(1, None)
    );
    assert_eq!(
        decode(0, &with_interruption(0x8000_0b11)),
        Exit::Exception(17, Some(0x18))
    );
    assert_eq!(
        decode(0, &with_interruption(0x0000_0301)),
        Exit::Unknown { code: 0, detail: 7 }
    );
}

#[test]
fn iret_that_faulted_is_seen_where_the_manual_says() {
    assert!(nmi_unblocked_by_iret(0, &with_interruption(0x8000_1b11)));
    assert!(!nmi_unblocked_by_iret(0, &with_interruption(0x8000_0b11)));
    assert!(nmi_unblocked_by_iret(48, &with_qualification(0x1181)));
    assert!(nmi_unblocked_by_iret(62, &with_qualification(0x1000)));
    assert!(!nmi_unblocked_by_iret(10, &Fields::default()));
}

#[test]
fn interrupted_software_events_keep_their_length_and_only_they() {
    let software = Injection::of_exit(Interruption(0x8000_0480), 0, 2, true).unwrap();
    assert_eq!(
        (software.information, software.instruction_length),
        (0x8000_0480, 2)
    );
    let external = Injection::of_exit(Interruption(0x8000_00f0), 5, 2, true).unwrap();
    assert_eq!(
        external,
        Injection {
            information: 0x8000_00f0,
            error_code: 0,
            instruction_length: 0
        }
    );
    // Bit 12 is undefined in IDT-vectoring information and reserved at entry.
    let fault = Injection::of_exit(Interruption(0x8000_1b0e), 6, 0, true).unwrap();
    assert_eq!((fault.information, fault.error_code), (0x8000_0b0e, 6));
    assert_eq!(
        Injection::of_exit(Interruption(0x0000_0b0e), 6, 0, true),
        None
    );
}

#[test]
fn real_mode_has_no_error_codes() {
    let event = Event::GENERAL_PROTECTION;
    assert_eq!(Injection::of_event(event, true).information, 0x8000_0b0d);
    assert_eq!(Injection::of_event(event, false).information, 0x8000_030d);
    assert_eq!(
        Injection::of_event(Event::Nmi, false).information,
        0x8000_0202
    );
    assert!(Injection::of_event(Event::Nmi, false).is_nmi());
    assert_eq!(
        Injection::of_event(Event::External(0x31), true).information,
        0x8000_0031
    );
}

#[test]
fn pending_events_survive_the_record() {
    let kinds = [
        (EventKind::External, 0x20, None, 0),
        (EventKind::Nmi, 2, None, 0),
        (EventKind::Exception, 14, Some(7), 0),
        (EventKind::SoftwareInterrupt, 0x80, None, 2),
        (EventKind::PrivilegedSoftwareException, 1, None, 1),
        (EventKind::SoftwareException, 3, None, 1),
    ];
    for (kind, vector, error_code, instruction_length) in kinds {
        let event = PendingEvent {
            kind,
            vector,
            error_code,
            instruction_length,
        };
        assert_eq!(Injection::of_record(&event, true).to_record(), Some(event));
    }
}

proptest! {
    #[test]
    fn usable_segments_survive(selector: u16, base: u64, limit: u32, rights in 0u16..=0xffff) {
        let attributes = rights & !Segment::RESERVED | Segment::PRESENT | 1;
        let segment = Segment::new(selector, base, limit, attributes);
        let field = of_segment(SegmentName::Ds, segment);
        prop_assert_eq!(field & (UNUSABLE | 0xf00), 0);
        prop_assert_eq!(to_segment(selector, base, limit, field), segment);
    }

    #[test]
    fn unusable_segments_keep_their_privilege_and_stay_unusable(rights: u16) {
        let segment = Segment::new(0, 0, 0, rights & !Segment::PRESENT);
        let field = of_segment(SegmentName::Ss, segment);
        prop_assert_ne!(field & UNUSABLE, 0);
        let back = to_segment(0, 0, 0, field);
        prop_assert!(!back.usable());
        prop_assert_eq!(back.dpl(), segment.dpl());
        prop_assert_eq!(of_segment(SegmentName::Ss, back) & UNUSABLE, UNUSABLE);
    }
}

#[test]
fn what_entries_insist_on_is_added() {
    let available = Segment::new(0x40, 0, 0x67, 0x89);
    assert_eq!(of_segment(SegmentName::Tr, available), 0x8b);
    assert_eq!(
        of_segment(SegmentName::Tr, Segment::new(0x40, 0, 0x67, 0x81)),
        0x83
    );
    assert_eq!(
        of_segment(SegmentName::Ldtr, Segment::new(0, 0, 0, 0x82)),
        0x82
    );
    assert_eq!(
        of_segment(SegmentName::Es, Segment::new(8, 0, 0xffff, 0x92)),
        0x93
    );
}
