//! The laws for every record that ships, and the bytes and layouts that have shipped.

use godwit_records::laws::{
    bits_from, encoded, every_change_is_canonical, hold_for, version_is_as_shipped,
};
use godwit_records::{
    Activity, CpuPolicyState, EventKind, Kind, PendingEvent, Record, SCHEMAS, Segment, Shadow,
    VcpuState, XSAVE_AREA_BYTES_MAX, XsaveState,
};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn vcpu_state_obeys(seed: u64) {
        hold_for(&VcpuState::sample(&mut bits_from(seed)));
    }

    #[test]
    fn xsave_state_obeys(seed: u64) {
        hold_for(&XsaveState::sample(&mut bits_from(seed)));
    }

    #[test]
    fn cpu_policy_obeys(seed: u64) {
        hold_for(&CpuPolicyState::sample(&mut bits_from(seed)));
    }
}

#[test]
fn reset_values_obey() {
    hold_for(&VcpuState::reset());
    hold_for(&XsaveState::reset());
    let bytes = encoded(&VcpuState::reset(), VcpuState::NEWEST).expect("newest");
    every_change_is_canonical::<VcpuState>(&bytes);
}

/// The longest value fits the buffer that the type promises is enough, and needs all of it.
#[test]
fn the_longest_record_has_the_size_promised() {
    let area = godwit_records::Bytes::copy_of(&[7; XSAVE_AREA_BYTES_MAX]).expect("fits");
    let longest = XsaveState { xcr0: 7, area };
    let mut buffer = vec![0; XsaveState::MAX_BYTES];
    assert_eq!(longest.encode(&mut buffer), Ok(XsaveState::MAX_BYTES));
    let mut state = VcpuState::reset();
    state.pending_event = Some(PendingEvent {
        kind: EventKind::Exception,
        vector: 14,
        error_code: Some(2),
        instruction_length: 0,
    });
    let mut buffer = vec![0; VcpuState::MAX_BYTES];
    assert_eq!(state.encode(&mut buffer), Ok(VcpuState::MAX_BYTES));
}

#[test]
fn no_two_records_share_a_kind() {
    for (index, schema) in SCHEMAS.iter().enumerate() {
        assert!(schema.kind.name().is_some(), "{}", schema.name);
        assert_ne!(schema.kind, Kind::TEST, "{}", schema.name);
        for other in &SCHEMAS[..index] {
            assert_ne!(
                schema.kind, other.kind,
                "{} and {}",
                schema.name, other.name
            );
        }
    }
    for (index, (kind, name, _)) in Kind::ALL.iter().enumerate() {
        for (other, other_name, _) in &Kind::ALL[..index] {
            assert_ne!(kind, other, "{name} and {other_name}");
        }
    }
}

/// A value in which no two fields are alike, so that a swap shows.
fn distinctive_vcpu() -> VcpuState {
    let segment =
        |n: u16| Segment::new(n, 0x1000 * u64::from(n), 0xfff0 + u32::from(n), 0xc093 + n);
    VcpuState {
        gprs: std::array::from_fn(|n| 0x1111_0000_0000_0000 + n as u64),
        rip: 0x21,
        rflags: 0x22,
        cr0: 0x23,
        cr2: 0x24,
        cr3: 0x25,
        cr4: 0x26,
        cr8: 0x27,
        xcr0: 0x28,
        efer: 0x29,
        cs: segment(1),
        ds: segment(2),
        es: segment(3),
        fs: segment(4),
        gs: segment(5),
        ss: segment(6),
        tr: segment(7),
        ldtr: segment(8),
        gdtr_base: 0x31,
        gdtr_limit: 0x32,
        idtr_base: 0x33,
        idtr_limit: 0x34,
        dr0: 0x35,
        dr1: 0x36,
        dr2: 0x37,
        dr3: 0x38,
        dr6: 0x39,
        dr7: 0x3a,
        star: 0x41,
        lstar: 0x42,
        cstar: 0x43,
        sfmask: 0x44,
        kernel_gs_base: 0x45,
        sysenter_cs: 0x46,
        sysenter_esp: 0x47,
        sysenter_eip: 0x48,
        pat: 0x49,
        tsc_aux: 0x4a,
        tsc: 0x4b,
        interrupt_shadow: Shadow::MovSs,
        nmi_blocked: true,
        pending_event: Some(PendingEvent {
            kind: EventKind::SoftwareException,
            vector: 3,
            error_code: Some(0x51),
            instruction_length: 1,
        }),
        activity: Activity::Shutdown,
    }
}

#[test]
fn shipped_versions_are_as_they_were() {
    let vcpu: VcpuState = version_is_as_shipped(
        1,
        0xf97d_bbe4_366d_3251,
        include_str!("../golden/vcpu-state.v1.hex"),
    );
    assert_eq!(vcpu, distinctive_vcpu());
    let xsave: XsaveState = version_is_as_shipped(
        1,
        0xa990_13f6_ae82_f3a0,
        include_str!("../golden/xsave-state.v1.hex"),
    );
    assert_eq!(
        (xsave.xcr0, xsave.area.as_slice()),
        (7, &[1, 2, 3, 4, 5][..])
    );
}

/// Prints the golden bytes of the values above, for a version about to ship.
#[test]
#[ignore = "writes what a new version's golden file will hold"]
fn print_golden_bytes() {
    fn print<R: Record>(value: &R) {
        let bytes = encoded(value, R::NEWEST).expect("newest");
        println!("{} version {}", R::NAME, R::NEWEST);
        for line in bytes.chunks(32) {
            println!(
                "{}",
                line.iter()
                    .map(|byte| format!("{byte:02x}"))
                    .collect::<String>()
            );
        }
    }
    print(&distinctive_vcpu());
    let area = godwit_records::Bytes::copy_of(&[1, 2, 3, 4, 5]).expect("fits");
    print(&XsaveState { xcr0: 7, area });
}
