//! Saved as records and restored elsewhere, a domain has the same future: the same interrupts at the same times of its own, and
//! the same records at the end.

use super::*;
use crate::devices::TscRate;
use crate::devices::lapic::{ApicMode, Lapic};
use crate::devices::pci::{Bar, FunctionDefinition};
use crate::devices::ports::{Platform, Width};
use crate::devices::state::{BadRecords, Saved};
use crate::exit::PortAccess;
use crate::hardware::Control;
use crate::vcpu::{Inbox, Message, Vcpu};
use alloc::vec::Vec;
use godwit_abi::PLATFORM_STATE_BYTES_MAX;
use godwit_records::{Activity, Header, Kind, PciFunction, Record, VcpuState};
use proptest::prelude::*;

const HZ: u64 = 2_000_000_000;
const RATE: TscRate = TscRate::from_hz(HZ).unwrap();
const MS: u64 = HZ / 1000;
const EOI: u32 = 0x80b;

fn io(machine: &mut Machine, port: u16, value: Option<u8>) -> u8 {
    set(machine, Gpr::Rax, value.unwrap_or(0).into());
    let access = PortAccess {
        port,
        width: Width::Byte,
        input: value.is_none(),
        string: false,
        repeat: false,
        length: bytes(2),
    };
    assert_eq!(machine.exit(Exit::Port(access)), Next::Enter);
    gpr(machine, Gpr::Rax) as u8
}

/// What an operating system does to a platform; the numbers are as random as the guest.
#[derive(Clone, Copy, Debug)]
enum Op {
    Out(u16, u8),
    In(u16),
    Msr(u32, u64),
    Route(u8, u8, bool),
    Line(u8, bool),
    Type(u8),
    Nmi,
    Run(u64),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let port = prop::sample::select(&[
        0x20u16, 0x21, 0xa0, 0xa1, 0x40, 0x42, 0x43, 0x61, 0x70, 0x71, 0x3f8, 0x3f9, 0x3fa, 0x3fb,
        0x3fc, 0x600, 0x602, 0x603, 0xcf8, 0xcfc,
    ]);
    let msr = prop_oneof![
        (0x20u64..0x80, 0u64..4).prop_map(|(vector, mode)| Op::Msr(0x832, vector | mode << 17)),
        (1u64..5_000_000).prop_map(|count| Op::Msr(0x838, count)),
        (0u64..0xc).prop_map(|divide| Op::Msr(0x83e, divide)),
        (1u64..40 * MS).prop_map(|tsc| Op::Msr(0x6e0, tsc)),
        (0u64..0x100).prop_map(|tpr| Op::Msr(0x808, tpr)),
        (0u64..1 << 40).prop_map(|tsc| Op::Msr(0x10, tsc)),
        (0u64..16).prop_map(|page| Op::Msr(0x4b56_4d01, page << 12 | 1)),
        Just(Op::Msr(0x2ff, 0xc00)),
    ];
    let op = prop_oneof![
        8 => (port.clone(), any::<u8>()).prop_map(|(port, value)| Op::Out(port, value)),
        2 => port.prop_map(Op::In),
        4 => msr,
        2 => (0u8..24, 0x20u8..).prop_map(|(pin, vector)| Op::Route(pin, vector, pin >= 16)),
        3 => (16u8..24, any::<bool>()).prop_map(|(pin, up)| Op::Line(pin, up)),
        1 => any::<u8>().prop_map(Op::Type),
        1 => Just(Op::Nmi),
        3 => (0..2 * MS).prop_map(Op::Run),
    ];
    prop::collection::vec(op, 1..60)
}

/// The handler of an interrupt: ends it everywhere.
fn handle(machine: &mut Machine, event: PendingEvent) {
    match event.kind {
        EventKind::Nmi => machine.hardware.iret(),
        EventKind::External => {
            assert_eq!(wrmsr(machine, EOI, 0), None);
            for port in [0xa0, 0x20] {
                io(machine, port, Some(0x20));
            }
            // Serves whatever asserts a line: clock, serial port, power management, PCI.
            io(machine, 0x70, Some(0xc));
            for port in [0x71, 0x3fa, 0x3f8, 0x3fd, 0x3fe] {
                io(machine, port, None);
            }
            for port in [0x600, 0x601] {
                io(machine, port, Some(0xff));
            }
            for pin in 16..24 {
                machine.world.platform.ioapic.set_line(pin, false);
            }
        }
        _fault_of_the_test => panic!("{event:?}"),
    }
    machine.hardware.set_rflags(2 | IF);
}

fn play(machine: &mut Machine, op: Op) {
    match op {
        Op::Out(port, value) => {
            io(machine, port, Some(value));
        }
        Op::In(port) => {
            io(machine, port, None);
        }
        Op::Msr(index, value) => {
            let _faults_or_not = wrmsr(machine, index, value);
        }
        Op::Route(pin, vector, level) => {
            let entry = u32::from(vector) | u32::from(level) << 15;
            let ioapic = &mut machine.world.platform.ioapic;
            ioapic.mmio_write(0, Width::Byte, 0x10 + 2 * u32::from(pin));
            ioapic.mmio_write(0x10, Width::Dword, entry);
            machine.vcpu.platform_changed();
        }
        Op::Line(pin, up) => {
            machine.world.platform.ioapic.set_line(pin, up);
            machine.vcpu.platform_changed();
        }
        Op::Type(byte) => {
            let now = machine.world.host_tsc.get();
            machine.world.platform.serial_input(&[byte], now);
            machine.vcpu.platform_changed();
        }
        Op::Nmi => machine.vcpu.raise_nmi(),
        Op::Run(ticks) => machine.run_for(ticks, handle),
    }
    // Whoever changes something from outside kicks the vCPU.
    assert_eq!(machine.exit(Exit::HostInterrupt), Next::Interrupted);
}

/// Everything of the machine at a platform time that the caller knows.
fn save(machine: &Machine, platform_tsc: u64) -> (Vec<u8>, VcpuState) {
    let saved = Saved {
        rate: RATE,
        platform_tsc,
        platform: machine.world.platform.save(),
        vcpus: alloc::vec![machine.vcpu.save(0)],
    };
    let bytes = saved.encode();
    assert!(bytes.len() as u64 <= PLATFORM_STATE_BYTES_MAX);
    (bytes, machine.hardware.save())
}

/// The machine elsewhere, where the host's TSC is another.
fn restore(bytes: &[u8], registers: &VcpuState, host_tsc: u64) -> Machine {
    let mut machine = machine();
    machine.world.host_tsc.set(host_tsc);
    let saved = Saved::decode(bytes, &machine.world.platform, 1).expect("just saved");
    machine.world.platform = Platform::restore(&saved.platform, RATE).expect("just saved");
    let offset = saved.platform_tsc.wrapping_sub(host_tsc);
    machine
        .vcpu
        .restore(&saved.vcpus[0], RATE, offset)
        .expect("just saved");
    machine.hardware.load(registers);
    machine
        .vcpu
        .set_activity(registers.activity, registers.rflags);
    machine
}

/// Interrupts of the next `ticks`, with the time from now.
fn future(machine: &mut Machine, ticks: u64) -> Vec<(u64, PendingEvent)> {
    let start = machine.world.host_tsc.get();
    let mut events = Vec::new();
    machine.run_for(ticks, |machine, event| {
        events.push((machine.world.host_tsc.get() - start, event));
        handle(machine, event);
    });
    events
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn the_restored_has_the_same_future(past in ops(), later in ops(), host_tsc in 0..1u64 << 50) {
        let mut here = machine();
        here.hardware.set_rflags(2 | IF);
        for op in past {
            play(&mut here, op);
        }
        here.settle(handle);
        let now = here.world.host_tsc.get();
        let (bytes, registers) = save(&here, now);
        let mut there = restore(&bytes, &registers, host_tsc);
        prop_assert_eq!(&save(&there, now).0, &bytes, "nothing is lost on the way");
        prop_assert_eq!(future(&mut here, 20 * MS), future(&mut there, 20 * MS));
        for op in later {
            // Typing is at the platform's time, which this test's machine takes for the host's.
            if !matches!(op, Op::Type(_)) {
                play(&mut here, op);
                play(&mut there, op);
            }
        }
        prop_assert_eq!(future(&mut here, 5 * MS), future(&mut there, 5 * MS));
        let end = here.world.host_tsc.get();
        prop_assert_eq!(there.world.host_tsc.get() - host_tsc, end - now);
        prop_assert_eq!(save(&here, end).0, save(&there, end).0);
        prop_assert_eq!(here.hardware.control(Control::Cr2), there.hardware.control(Control::Cr2));
    }

    /// On a host with another rate what was to happen happens after as long, to a tick of the timer's clock.
    #[test]
    fn another_rate_changes_no_duration(hz in 1_000_000_000u64..4_000_000_000, counts in 1000u64..1_000_000, waited in 0u64..1000) {
        let mut here = machine();
        here.world.host_tsc.set(HZ);
        here.hardware.set_rflags(2 | IF);
        assert_eq!(wrmsr(&mut here, 0x832, 0x41), None);
        assert_eq!(wrmsr(&mut here, 0x838, counts), None);
        here.settle(handle);
        here.world.host_tsc.set(HZ + waited);
        let (bytes, registers) = save(&here, HZ + waited);
        let left_ns = (counts * 2).saturating_sub(waited / 2);
        let rate = TscRate::from_hz(hz).unwrap();
        let mut there = machine();
        let saved = Saved::decode(&bytes, &there.world.platform, 1).unwrap().at_rate(rate).unwrap();
        there.world.platform = Platform::restore(&saved.platform, rate).unwrap();
        there.vcpu.restore(&saved.vcpus[0], rate, saved.platform_tsc).unwrap();
        there.hardware.load(&registers);
        let (at, event) = future(&mut there, hz / 100)[0];
        prop_assert_eq!(event.vector, 0x41);
        let ns = rate.clock_ticks(at, 1_000_000_000);
        prop_assert!(ns.abs_diff(left_ns) <= 2, "{ns} for {left_ns}");
    }
}

#[test]
fn what_waits_in_the_inbox_is_saved() {
    let mut here = machine();
    let lapic = Lapic::after_firmware(1, false, ApicMode::X2Apic, RATE);
    here.vcpu = Vcpu::new(lapic, Access::Any, 0);
    let inbox = Inbox::new();
    inbox.post(Message::Startup(0x9a));
    inbox.post(Message::Nmi);
    inbox.post(Message::FlushTranslations);
    here.vcpu.absorb(&inbox);
    assert!(!inbox.is_empty(), "the flush is still owed here");
    assert_eq!(here.vcpu.activity(true), Activity::WaitForSipi);
    let saved = here.vcpu.save(1);
    assert_eq!(saved.local.startup_page, Some(0x9a));
    let mut there = machine();
    there.vcpu.restore(&saved, RATE, 0).unwrap();
    there.vcpu.set_activity(Activity::WaitForSipi, 2);
    assert!(there.vcpu.has_work(&mut there.world), "it starts");
    there.enter();
    assert_eq!(there.hardware.save().cs.base, 0x9_a000);
    // With an INIT before it, it waits for the registers.
    inbox.post(Message::Init);
    inbox.post(Message::Startup(0x12));
    here.vcpu.absorb(&inbox);
    let saved = here.vcpu.save(1);
    assert_eq!(
        (saved.local.init_pending, saved.local.startup_page),
        (true, Some(0x12))
    );
    let mut there = machine();
    there.vcpu.restore(&saved, RATE, 0).unwrap();
    let next = there
        .vcpu
        .attend(&mut there.hardware, &mut there.world, &Inbox::new());
    assert_eq!(next, Some(Next::Wait));
    assert_eq!(there.vcpu.activity(true), Activity::WaitForSipi);
    assert!(there.vcpu.has_work(&mut there.world));
}

#[test]
fn a_stream_that_is_not_the_domains_is_refused() {
    let here = machine();
    let (bytes, _) = save(&here, 0);
    let decode =
        |bytes: &[u8], vcpus| Saved::decode(bytes, &here.world.platform, vcpus).map(|_| ());
    assert_eq!(decode(&bytes, 1), Ok(()));
    assert_eq!(
        decode(&bytes, 2),
        Err(BadRecords::Missing(Kind::VCPU_LOCAL))
    );
    assert_eq!(
        decode(&bytes, 0),
        Err(BadRecords::Surplus(Kind::VCPU_LOCAL))
    );
    let twice = [bytes.as_slice(), bytes.as_slice()].concat();
    assert_eq!(
        decode(&twice, 1),
        Err(BadRecords::Surplus(Kind::PLATFORM_TIME))
    );
    for length in 0..bytes.len() {
        assert!(decode(&bytes[..length], 1).is_err(), "{length} bytes");
    }
    let mut unknown = bytes.clone();
    unknown.extend([0x77, 0x11, 1, 0, 0, 0, 0, 0]);
    assert_eq!(decode(&unknown, 1), Err(BadRecords::Unknown(Kind(0x1177))));
    let mut optional = bytes.clone();
    optional.extend([0x77, 0x91, 1, 0, 0, 0, 0, 0]);
    assert_eq!(decode(&optional, 1), Ok(()), "it may be skipped");
    assert_eq!(godwit_records::PlatformTime::KIND, Kind::PLATFORM_TIME);
}

/// A machine with a function that has so many MSI messages.
fn with_messages(msi_messages: u8) -> Machine {
    let definition = FunctionDefinition {
        vendor: 0x1af4,
        device: 0x1042,
        revision: 1,
        class: 0x01_80_00,
        subsystem_vendor: 0x1af4,
        subsystem: 2,
        bars: [Bar::None; 6],
        interrupt_pin: 1,
        capabilities: Vec::new(),
        msix: None,
        msi_messages,
        doorbells: None,
    };
    let mut machine = machine();
    machine.world.platform.pci.insert(3, definition).unwrap();
    machine
}

/// The same stream with functions as version 1 had them.
fn before_msi(mut bytes: &[u8]) -> Vec<u8> {
    let mut old = Vec::new();
    while let Some(header) = Header::peek(bytes) {
        let (record, rest) = bytes.split_at(header.record_bytes() as usize);
        if header.kind == Kind::PCI_FUNCTION {
            let function = PciFunction::decode(record).unwrap();
            let mut buffer = [0; PciFunction::MAX_BYTES];
            let length = function.encode_as(1, &mut buffer).unwrap();
            old.extend_from_slice(&buffer[..length]);
        } else {
            old.extend_from_slice(record);
        }
        bytes = rest;
    }
    old
}

#[test]
fn a_function_saved_before_there_was_msi_stays_without() {
    let (without, with) = (with_messages(0), with_messages(4));
    let restored = |bytes: &[u8]| {
        let saved = Saved::decode(bytes, &with.world.platform, 1).expect("a stream of this domain");
        Platform::restore(&saved.platform, RATE).map(|platform| platform.pci)
    };
    let old = before_msi(&save(&without, 0).0);
    assert_eq!(restored(&old).as_ref(), Ok(&without.world.platform.pci));
    let new = save(&with, 0).0;
    assert_eq!(restored(&new).as_ref(), Ok(&with.world.platform.pci));
    // Of the newest record the number of messages is the last byte.
    let end = new
        .windows(2)
        .rposition(|kind| kind == Kind::KVMCLOCK.0.to_le_bytes());
    let mut wrong = new.clone();
    for (messages, field) in [(0, "pci.config"), (2, "pci.config"), (3, "pci.definition")] {
        wrong[end.unwrap() - 1] = messages;
        assert_eq!(restored(&wrong).unwrap_err().field, field);
    }
}
