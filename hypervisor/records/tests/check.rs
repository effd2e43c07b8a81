//! States that a CPU can be in pass; each rule broken alone is named.

use godwit_records::{Activity, EventKind, PendingEvent, Segment, Shadow, VcpuState};

const ADDRESS_BITS: u8 = 39;

/// 32-bit protected mode without paging, as a PVH guest starts.
fn flat32() -> VcpuState {
    let data = Segment::new(0x10, 0, 0xffff_ffff, 0xc093);
    VcpuState {
        rip: 0x10_0000,
        cr0: 0x11,
        cs: Segment::new(0x08, 0, 0xffff_ffff, 0xc09b),
        ds: data,
        es: data,
        fs: data,
        gs: data,
        ss: data,
        tr: Segment::new(0, 0, 0x67, 0x8b),
        ..VcpuState::reset()
    }
}

/// 64-bit mode at privilege level 0, null data segments, as a Linux kernel runs.
fn long64() -> VcpuState {
    let null = Segment::new(0, 0, 0, 0);
    VcpuState {
        rip: 0xffff_ffff_8100_0000,
        rflags: 0x202,
        cr0: 0x8005_0033,
        cr3: 0x1234_5000,
        cr4: 0x0077_06f0 | 1 << 17,
        efer: 0xd01,
        xcr0: 0x2e7,
        cs: Segment::new(0x10, 0, 0xffff_ffff, 0xa09b),
        ss: Segment::new(0x18, 0, 0xffff_ffff, 0xc093),
        ds: null,
        es: null,
        fs: null,
        gs: Segment::new(0, 0xffff_8880_0000_0000, 0, 0),
        tr: Segment::new(0x40, 0xffff_fe00_0000_3000, 0x4087, 0x8b),
        ldtr: null,
        gdtr_base: 0xffff_fe00_0000_1000,
        idtr_base: 0xffff_fe00_0000_0000,
        lstar: 0xffff_ffff_8200_0000,
        ..VcpuState::reset()
    }
}

fn v86() -> VcpuState {
    let segment = Segment::new(0x1234, 0x12340, 0xffff, 0xf3);
    VcpuState {
        rflags: 0x2_0202,
        cs: segment,
        ss: segment,
        ds: segment,
        es: segment,
        fs: segment,
        gs: segment,
        ..flat32()
    }
}

fn event(kind: EventKind, vector: u8) -> PendingEvent {
    PendingEvent {
        kind,
        vector,
        error_code: None,
        instruction_length: 0,
    }
}

/// The field that `check` blames after one change.
fn blamed(mut state: VcpuState, change: impl FnOnce(&mut VcpuState)) -> &'static str {
    change(&mut state);
    state
        .check(ADDRESS_BITS)
        .expect_err("no CPU can be in this state")
        .field
}

fn passes(mut state: VcpuState, change: impl FnOnce(&mut VcpuState)) {
    change(&mut state);
    assert_eq!(state.check(ADDRESS_BITS), Ok(()));
}

#[test]
fn ordinary_states_pass() {
    passes(VcpuState::reset(), |_| ());
    passes(VcpuState::reset().after_init(), |_| ());
    passes(VcpuState::reset().after_init(), |s| s.start_at(0x9a));
    passes(flat32(), |_| ());
    passes(long64(), |_| ());
    passes(v86(), |_| ());
    // User code with a null SS of its privilege level; compatibility mode; RIP just past the lower half.
    passes(long64(), |s| {
        s.cs = Segment::new(0x33, 0, 0xffff_ffff, 0xa0fb);
        s.ss = Segment::new(0x2b, 0, 0, 0x60);
        s.rip = 0x8000_0000_0000;
    });
    passes(long64(), |s| {
        s.cs.attributes = 0xc09b;
        s.rip = 0xffff_fff0;
    });
}

#[test]
fn init_keeps_what_an_init_keeps() {
    let mut running = long64();
    running.tsc = 77;
    running.gprs[3] = 5;
    let after = running.after_init();
    assert_eq!(
        (after.lstar, after.xcr0, after.tsc),
        (running.lstar, running.xcr0, 77)
    );
    assert_eq!((after.cr0, after.efer, after.gprs[3]), (0x10, 0, 0));
    assert_eq!(after.activity, Activity::WaitForSipi);
    let mut started = after;
    started.start_at(0x9a);
    assert_eq!(
        (started.cs.base, started.cs.selector, started.rip),
        (0x9a000, 0x9a00, 0)
    );
}

#[test]
fn control_registers() {
    assert_eq!(blamed(flat32(), |s| s.cr0 |= 1 << 6), "cr0");
    assert_eq!(blamed(flat32(), |s| s.cr0 |= 1 << 32), "cr0");
    assert_eq!(blamed(flat32(), |s| s.cr0 &= !0x10), "cr0");
    assert_eq!(blamed(VcpuState::reset(), |s| s.cr0 |= 1 << 31), "cr0");
    assert_eq!(blamed(flat32(), |s| s.cr0 |= 1 << 29), "cr0");
    passes(flat32(), |s| s.cr0 |= 3 << 29);
    for hidden in [12, 13, 14, 15, 19, 23, 24, 25, 32] {
        assert_eq!(blamed(long64(), |s| s.cr4 |= 1 << hidden), "cr4");
    }
    assert_eq!(blamed(long64(), |s| s.cr4 &= !(1 << 5)), "cr4");
    assert_eq!(blamed(flat32(), |s| s.cr4 |= 1 << 17), "cr4");
    for hidden in [1, 9, 12, 13, 14, 15] {
        assert_eq!(blamed(long64(), |s| s.efer |= 1 << hidden), "efer");
    }
    assert_eq!(blamed(long64(), |s| s.efer &= !(1 << 10)), "efer");
    assert_eq!(blamed(long64(), |s| s.efer &= !(1 << 8)), "efer");
    assert_eq!(blamed(flat32(), |s| s.efer |= 1 << 10), "efer");
    passes(flat32(), |s| s.efer |= 1 << 8);
    assert_eq!(blamed(long64(), |s| s.cr3 = 1 << 39), "cr3");
    assert_eq!(blamed(long64(), |s| s.cr3 |= 1 << 63), "cr3");
    assert_eq!(blamed(long64(), |s| s.cr8 = 16), "cr8");
    for broken in [0, 2, 5, 0x27, 0x40007, 0xf] {
        assert_eq!(blamed(long64(), |s| s.xcr0 = broken), "xcr0");
    }
}

/// A state with widths of address beyond what exists is judged, not shifted out of range.
#[test]
fn any_address_width_is_answered() {
    for bits in 0..=u8::MAX {
        let _ = long64().check(bits);
    }
    let mut state = long64();
    state.cr3 = 1 << 52;
    assert_eq!(state.check(255).expect_err("52 bits at most").field, "cr3");
}

#[test]
fn flags_and_debug_registers() {
    assert_eq!(blamed(flat32(), |s| s.rflags = 0), "rflags");
    for reserved in [3, 5, 15, 22, 40] {
        assert_eq!(blamed(flat32(), |s| s.rflags |= 1 << reserved), "rflags");
    }
    assert_eq!(blamed(long64(), |s| s.rflags |= 1 << 17), "rflags");
    assert_eq!(
        blamed(VcpuState::reset(), |s| s.rflags |= 1 << 17),
        "rflags"
    );
    assert_eq!(blamed(flat32(), |s| s.dr6 = 0), "dr6");
    assert_eq!(blamed(flat32(), |s| s.dr6 |= 1 << 33), "dr6");
    passes(flat32(), |s| s.dr6 = 0xfffe_47f1);
    assert_eq!(blamed(flat32(), |s| s.dr7 = 0), "dr7");
    assert_eq!(blamed(flat32(), |s| s.dr7 |= 1 << 32), "dr7");
}

#[test]
fn addresses_are_canonical() {
    const HOLE: u64 = 0x8000_0000_0000;
    assert_eq!(blamed(long64(), |s| s.pat = 2), "pat");
    assert_eq!(blamed(long64(), |s| s.lstar = HOLE), "lstar");
    assert_eq!(blamed(long64(), |s| s.cstar = HOLE), "cstar");
    assert_eq!(
        blamed(long64(), |s| s.kernel_gs_base = HOLE),
        "kernel_gs_base"
    );
    assert_eq!(blamed(long64(), |s| s.sysenter_esp = HOLE), "sysenter_esp");
    assert_eq!(blamed(long64(), |s| s.sysenter_eip = HOLE), "sysenter_eip");
    assert_eq!(blamed(long64(), |s| s.gdtr_base = HOLE), "gdtr_base");
    assert_eq!(blamed(long64(), |s| s.idtr_base = HOLE), "idtr_base");
    assert_eq!(blamed(long64(), |s| s.fs.base = HOLE), "fs");
    assert_eq!(blamed(long64(), |s| s.gs.base = HOLE), "gs");
    assert_eq!(blamed(long64(), |s| s.tr.base = HOLE), "tr");
    assert_eq!(blamed(long64(), |s| s.rip = 0x1_0000_0000_0000), "rip");
    assert_eq!(blamed(flat32(), |s| s.rip = 1 << 32), "rip");
}

#[test]
fn code_and_data_segments() {
    assert_eq!(blamed(flat32(), |s| s.cs.attributes = 0), "cs");
    assert_eq!(blamed(flat32(), |s| s.cs.attributes = 0xc093), "cs");
    passes(VcpuState::reset(), |s| s.cs.attributes = 0x93);
    assert_eq!(blamed(flat32(), |s| s.cs.attributes = 0xc09a), "cs");
    assert_eq!(blamed(flat32(), |s| s.cs.attributes = 0xc0fb), "cs");
    assert_eq!(blamed(flat32(), |s| s.cs.attributes = 0xc0ff), "cs");
    assert_eq!(blamed(long64(), |s| s.cs.attributes |= 1 << 14), "cs");
    passes(flat32(), |s| s.cs.attributes |= 1 << 13);
    assert_eq!(blamed(flat32(), |s| s.cs.base = 1 << 32), "cs");
    assert_eq!(blamed(flat32(), |s| s.cs.attributes |= 1 << 8), "cs");
    assert_eq!(blamed(flat32(), |s| s.ss.attributes = 0xc091), "ss");
    assert_eq!(blamed(flat32(), |s| s.ss.base = 1 << 32), "ss");
    assert_eq!(blamed(VcpuState::reset(), |s| s.ss.attributes = 0xf3), "ss");
    assert_eq!(blamed(flat32(), |s| s.ds.attributes = 0xc092), "ds");
    assert_eq!(blamed(flat32(), |s| s.es.attributes = 0xc099), "es");
    assert_eq!(blamed(flat32(), |s| s.ds.attributes = 0xc083), "ds");
    assert_eq!(blamed(flat32(), |s| s.ds.limit = 0xffff_fffe), "ds");
    assert_eq!(blamed(flat32(), |s| s.gs.attributes = 0x4093), "gs");
    passes(flat32(), |s| s.fs.base = 0x7fff_ffff_f000);
    assert_eq!(blamed(v86(), |s| s.es.limit = 0xfffe), "es");
    assert_eq!(blamed(v86(), |s| s.es.base += 16), "es");
    assert_eq!(blamed(v86(), |s| s.ss.attributes = 0x93), "ss");
}

#[test]
fn granularity_is_derived_as_the_check_wants_it() {
    for limit in [0, 0xfff, 0xf_ffff, 0xf_ffff << 12 | 0xfff, 0x10_0fff] {
        passes(flat32(), |s| {
            s.ds = Segment { limit, ..s.ds }.with_derived_granularity();
        });
    }
}

#[test]
fn system_segments() {
    assert_eq!(blamed(flat32(), |s| s.tr.attributes = 0), "tr");
    assert_eq!(blamed(flat32(), |s| s.tr.attributes = 0x89), "tr");
    passes(flat32(), |s| s.tr.attributes = 0x83);
    assert_eq!(blamed(long64(), |s| s.tr.attributes = 0x83), "tr");
    assert_eq!(blamed(flat32(), |s| s.tr.attributes = 0x9b), "tr");
    assert_eq!(blamed(flat32(), |s| s.tr.selector = 4), "tr");
    assert_eq!(blamed(flat32(), |s| s.ldtr.selector = 4), "ldtr");
    assert_eq!(blamed(flat32(), |s| s.ldtr.attributes = 0x83), "ldtr");
    assert_eq!(blamed(flat32(), |s| s.tr.attributes = 0x808b), "tr");
    passes(long64(), |s| s.ldtr = Segment::new(4, 1 << 60, 3, 0));
}

#[test]
fn activity_and_interrupt_shadow() {
    passes(long64(), |s| s.activity = Activity::Halted);
    passes(long64(), |s| s.interrupt_shadow = Shadow::Sti);
    let user = |s: &mut VcpuState| {
        s.cs.attributes = 0xa0fb;
        s.ss.attributes = 0xc0f3;
    };
    assert_eq!(
        blamed(long64(), |s| {
            user(s);
            s.activity = Activity::Halted;
        }),
        "activity"
    );
    assert_eq!(
        blamed(long64(), |s| {
            s.activity = Activity::Halted;
            s.interrupt_shadow = Shadow::Sti;
        }),
        "interrupt_shadow"
    );
    assert_eq!(
        blamed(flat32(), |s| s.interrupt_shadow = Shadow::Sti),
        "interrupt_shadow"
    );
}

#[test]
fn pending_events() {
    let with = |pending| move |s: &mut VcpuState| s.pending_event = Some(pending);
    let refused = |pending| assert_eq!(blamed(long64(), with(pending)), "pending_event");
    passes(long64(), with(event(EventKind::External, 0xec)));
    passes(long64(), with(event(EventKind::Nmi, 2)));
    passes(long64(), with(event(EventKind::Exception, 6)));
    let page_fault = PendingEvent {
        error_code: Some(2),
        ..event(EventKind::Exception, 14)
    };
    passes(long64(), with(page_fault));
    // Real mode pushes no error codes.
    passes(VcpuState::reset(), with(event(EventKind::Exception, 13)));
    passes(
        long64(),
        with(PendingEvent {
            instruction_length: 2,
            ..event(EventKind::SoftwareInterrupt, 0x80)
        }),
    );
    refused(event(EventKind::Exception, 14));
    refused(PendingEvent {
        error_code: Some(0),
        ..event(EventKind::Exception, 6)
    });
    refused(PendingEvent {
        error_code: Some(1 << 16),
        ..page_fault
    });
    refused(event(EventKind::Exception, 2));
    refused(event(EventKind::Exception, 32));
    refused(event(EventKind::Nmi, 3));
    refused(event(EventKind::SoftwareInterrupt, 0x80));
    refused(PendingEvent {
        instruction_length: 16,
        ..event(EventKind::SoftwareInterrupt, 0x80)
    });
    refused(PendingEvent {
        instruction_length: 1,
        ..event(EventKind::External, 0x80)
    });
    refused(PendingEvent {
        instruction_length: 1,
        ..event(EventKind::SoftwareException, 1)
    });
    refused(PendingEvent {
        instruction_length: 1,
        ..event(EventKind::PrivilegedSoftwareException, 3)
    });
    let external = with(event(EventKind::External, 0x30));
    assert_eq!(blamed(flat32(), external), "pending_event");
    assert_eq!(
        blamed(long64(), |s| {
            s.interrupt_shadow = Shadow::Sti;
            external(s);
        }),
        "pending_event"
    );
    assert_eq!(
        blamed(long64(), |s| {
            s.nmi_blocked = true;
            s.pending_event = Some(event(EventKind::Nmi, 2));
        }),
        "pending_event"
    );
    assert_eq!(
        blamed(long64(), |s| {
            s.activity = Activity::Halted;
            external(s);
        }),
        "pending_event"
    );
}
