//! Tests of the local APIC: priorities, timers, IPIs, modes, errors.

use super::*;
use crate::devices::GuestFault;

const RATE: TscRate = TscRate::from_hz(2_500_000_000).unwrap();
const TPR: u32 = 0x808;
const EOI: u32 = 0x80B;
const SVR: u32 = 0x80F;
const ESR: u32 = 0x828;
const ICR: u32 = 0x830;
const LVT_TIMER: u32 = 0x832;
const LVT_ERROR: u32 = 0x837;
const INITIAL: u32 = 0x838;
const CURRENT: u32 = 0x839;
const DIVIDE: u32 = 0x83E;

fn x2apic(id: u32) -> Lapic {
    Lapic::after_firmware(id, id == 0, ApicMode::X2Apic, RATE)
}

fn write(lapic: &mut Lapic, msr: u32, value: u64, now: u64) -> Effect {
    lapic.write_msr(msr, value, now).unwrap()
}

fn inject(lapic: &mut Lapic, vector: u8, trigger: Trigger) {
    assert!(matches!(
        lapic.accept(vector, trigger),
        Delivery::Accepted { .. }
    ));
}

#[test]
fn priority_is_by_class_and_ends_in_order() {
    let mut lapic = x2apic(0);
    for vector in [0x41, 0x92, 0x9F, 0x31] {
        inject(&mut lapic, vector, Trigger::Edge);
    }
    assert_eq!(lapic.acknowledge(), 0x9F);
    assert_eq!(lapic.read_msr(0x80A, 0), Ok(0x90));
    assert_eq!(lapic.pending(), None, "0x92 is of the class in service");
    inject(&mut lapic, 0xA0, Trigger::Level);
    assert_eq!(lapic.acknowledge(), 0xA0);
    assert_eq!(write(&mut lapic, EOI, 0, 0), Effect::EndOfLevel(0xA0));
    assert_eq!(lapic.read_msr(0x80A, 0), Ok(0x90));
    assert_eq!(lapic.pending(), None, "0x9F is in service still");
    assert_eq!(write(&mut lapic, EOI, 0, 0), Effect::PendingChanged);
    assert_eq!(lapic.acknowledge(), 0x92);
    assert_eq!(write(&mut lapic, EOI, 0, 0), Effect::PendingChanged);
    assert_eq!(write(&mut lapic, TPR, 0x45, 0), Effect::PendingChanged);
    assert_eq!(
        (lapic.pending(), lapic.highest_requested(), lapic.cr8()),
        (None, Some(0x41), 4)
    );
    assert_eq!(lapic.acknowledge(), 0xFF, "nothing deliverable: spurious");
    lapic.set_cr8(3);
    assert_eq!(lapic.pending(), Some(0x41));
    assert_eq!(lapic.read_msr(TPR, 0), Ok(0x30));
}

#[test]
fn one_shot_fires_once_at_its_deadline() {
    let mut lapic = x2apic(0);
    assert_eq!(write(&mut lapic, DIVIDE, 0b1011, 0), Effect::TimerChanged);
    assert_eq!(write(&mut lapic, LVT_TIMER, 0x40, 0), Effect::TimerChanged);
    assert_eq!(write(&mut lapic, INITIAL, 1000, 500), Effect::TimerChanged);
    // 1000 ns at 2.5 GHz.
    assert_eq!(lapic.next_deadline(), Some(3000));
    assert_eq!(lapic.read_msr(CURRENT, 1750), Ok(500));
    assert!(!lapic.expire(2999));
    assert!(lapic.expire(3000));
    assert_eq!(
        (
            lapic.pending(),
            lapic.next_deadline(),
            lapic.read_msr(CURRENT, 9000)
        ),
        (Some(0x40), None, Ok(0))
    );
    assert!(!lapic.expire(1 << 40));
}

#[test]
fn periodic_does_not_drift_and_merges_missed_periods() {
    let mut lapic = x2apic(0);
    assert_eq!(
        write(&mut lapic, LVT_TIMER, 0x2_0040, 0),
        Effect::TimerChanged
    );
    // Reset divisor is 2; 333 counts are 666 ns, which is 1665 ticks of TSC.
    assert_eq!(write(&mut lapic, INITIAL, 333, 0), Effect::TimerChanged);
    for period in 1..=10_000u64 {
        assert_eq!(lapic.next_deadline(), Some(period * 1665));
        // Looked at late by various amounts.
        assert!(lapic.expire(period * 1665 + period % 1000));
        assert_eq!(lapic.acknowledge(), 0x40);
        assert_eq!(write(&mut lapic, EOI, 0, 0), Effect::PendingChanged);
    }
    assert!(lapic.expire(20_000 * 1665 + 1));
    assert_eq!(lapic.next_deadline(), Some(20_001 * 1665));
    assert_eq!(lapic.read_msr(CURRENT, 20_001 * 1665 - 5), Ok(1));
}

#[test]
fn divisor_change_keeps_what_is_left() {
    let mut lapic = x2apic(0);
    let _ = write(&mut lapic, DIVIDE, 0b1011, 0);
    let _ = write(&mut lapic, LVT_TIMER, 0x40, 0);
    let _ = write(&mut lapic, INITIAL, 1000, 0);
    let _ = write(&mut lapic, DIVIDE, 0b0001, 1000 * 5 / 2 / 2);
    // 500 counts left, now at a quarter of the pace.
    assert_eq!(lapic.next_deadline(), Some(1250 + 500 * 4 * 5 / 2));
    assert_eq!(lapic.read_msr(DIVIDE, 0), Ok(1));
}

#[test]
fn tsc_deadline_fires_and_disarms() {
    let mut lapic = x2apic(0);
    let _ = write(&mut lapic, IA32_TSC_DEADLINE, 77, 0);
    assert_eq!(
        lapic.read_msr(IA32_TSC_DEADLINE, 0),
        Ok(0),
        "ignored in another mode"
    );
    let _ = write(&mut lapic, LVT_TIMER, 0x4_0040, 0);
    let _ = write(&mut lapic, IA32_TSC_DEADLINE, 5000, 0);
    let _ = write(&mut lapic, INITIAL, 9, 0);
    assert_eq!(
        (lapic.next_deadline(), lapic.read_msr(CURRENT, 10)),
        (Some(5000), Ok(0))
    );
    assert!(!lapic.expire(4999));
    assert!(lapic.expire(5000));
    assert_eq!(
        (lapic.read_msr(IA32_TSC_DEADLINE, 0), lapic.next_deadline()),
        (Ok(0), None)
    );
    let _ = write(&mut lapic, IA32_TSC_DEADLINE, 9000, 0);
    let _ = write(&mut lapic, LVT_TIMER, 0x40, 0);
    assert_eq!(lapic.next_deadline(), None, "leaving the mode disarms");
}

#[test]
fn masked_timer_counts_without_interrupting() {
    let mut lapic = x2apic(0);
    let _ = write(&mut lapic, LVT_TIMER, 0x1_0040, 0);
    let _ = write(&mut lapic, INITIAL, 1000, 0);
    assert_eq!(lapic.next_deadline(), None);
    // Expires at 5000 while masked; unmasking later does not make up for it.
    let _ = write(&mut lapic, LVT_TIMER, 0x40, 6000);
    assert_eq!((lapic.pending(), lapic.next_deadline()), (None, None));
}

#[test]
fn reserved_bits_and_registers_fault_in_x2apic_mode() {
    let mut lapic = x2apic(3);
    for (msr, value) in [
        (EOI, 1),
        (ESR, 1),
        (TPR, 0x100),
        (SVR, 1 << 12),
        (ICR, 1 << 13),
        (LVT_TIMER, 3 << 17),
        (LVT_ERROR, 1 << 8),
        (INITIAL, 1 << 32),
    ] {
        assert_eq!(
            lapic.write_msr(msr, value, 0),
            Err(GuestFault::Gp),
            "{msr:#x}"
        );
    }
    for msr in [
        0x802, 0x803, 0x80A, 0x80D, 0x810, 0x827, CURRENT, 0x831, 0x840, 0x8FF,
    ] {
        assert_eq!(lapic.write_msr(msr, 0, 0), Err(GuestFault::Gp), "{msr:#x}");
    }
    for msr in [
        0x800, 0x80B, 0x80C, 0x80E, 0x82F, 0x831, 0x83F, 0x8FF, 0x900,
    ] {
        assert_eq!(lapic.read_msr(msr, 0), Err(GuestFault::Gp), "{msr:#x}");
    }
    assert_eq!(
        (lapic.read_msr(0x802, 0), lapic.read_msr(0x80D, 0)),
        (Ok(3), Ok(8))
    );
    assert_eq!(lapic.read_msr(0x803, 0), Ok(0x5_0014));
    let mut xapic = Lapic::new(0, true, RATE);
    assert_eq!(xapic.read_msr(TPR, 0), Err(GuestFault::Gp));
    assert_eq!(xapic.write_msr(TPR, 0, 0), Err(GuestFault::Gp));
}

#[test]
fn modes_change_only_along_the_manuals_arrows() {
    let mut lapic = Lapic::new(0x21, true, RATE);
    let base = |mode: u64| APIC_BASE_DEFAULT | mode << 10;
    assert_eq!(lapic.read_msr(IA32_APIC_BASE, 0), Ok(base(2) | 1 << 8));
    assert_eq!(
        lapic.write_msr(IA32_APIC_BASE, base(1), 0),
        Err(GuestFault::Gp)
    );
    assert_eq!(
        lapic.write_msr(IA32_APIC_BASE, base(2) | 1, 0),
        Err(GuestFault::Gp)
    );
    assert_eq!(
        lapic.write_msr(IA32_APIC_BASE, base(3), 0),
        Ok(Effect::ModeChanged)
    );
    assert_eq!(lapic.read_msr(0x80D, 0), Ok(0x2_0002));
    assert_eq!(
        lapic.write_msr(IA32_APIC_BASE, base(2), 0),
        Err(GuestFault::Gp)
    );
    assert_eq!(lapic.write_msr(SVR, 0x1FF, 0), Ok(Effect::PendingChanged));
    assert_eq!(
        lapic.write_msr(IA32_APIC_BASE, base(0), 0),
        Ok(Effect::ModeChanged)
    );
    assert_eq!(lapic.accept(0x50, Trigger::Edge), Delivery::Dropped);
    assert!(lapic.passes_pic());
    assert_eq!(
        lapic.write_msr(IA32_APIC_BASE, base(3), 0),
        Err(GuestFault::Gp)
    );
    assert_eq!(
        lapic.write_msr(IA32_APIC_BASE, base(2), 0),
        Ok(Effect::ModeChanged)
    );
    assert_eq!(lapic.mmio_read(0xF0, 0), 0xFF, "switching off reset it");
}

#[test]
fn ipis_are_decoded_and_addressed() {
    let mut sender = x2apic(0);
    let effect = write(&mut sender, ICR, 0x13 << 32 | 0xF0, 0);
    let fixed = Ipi {
        destination: Destination::Physical(0x13),
        mode: IpiMode::Fixed,
        vector: 0xF0,
    };
    assert_eq!(effect, Effect::Ipi(fixed));
    assert_eq!(sender.read_msr(ICR, 0), Ok(0x13 << 32 | 0xF0));
    let mut receiver = x2apic(0x13);
    assert!(
        receiver.is_addressed(fixed.destination, 0)
            && !x2apic(0x12).is_addressed(fixed.destination, 0)
    );
    assert_eq!(
        receiver.receive(fixed),
        Delivery::Accepted {
            newly_pending: true
        }
    );
    assert_eq!(
        receiver.receive(fixed),
        Delivery::Accepted {
            newly_pending: false
        }
    );
    // Logical: cluster 1, bits 3 and 5.
    let Effect::Ipi(logical) = write(&mut sender, ICR, 0x1_0028 << 32 | 0x8F1, 0) else {
        panic!("no IPI")
    };
    assert!(
        receiver.is_addressed(logical.destination, 0)
            && x2apic(0x15).is_addressed(logical.destination, 0)
    );
    assert!(
        !x2apic(0x14).is_addressed(logical.destination, 0)
            && !x2apic(0x03).is_addressed(logical.destination, 0)
    );
    // INIT, its ignored de-assert, start-up, NMI to all others.
    assert!(matches!(
        write(&mut sender, ICR, 1 << 32 | 0xC500, 0),
        Effect::Ipi(Ipi {
            mode: IpiMode::Init,
            ..
        })
    ));
    assert_eq!(write(&mut sender, ICR, 1 << 32 | 0x8500, 0), Effect::None);
    let Effect::Ipi(startup) = write(&mut sender, ICR, 1 << 32 | 0x4608, 0) else {
        panic!("no IPI")
    };
    assert_eq!(receiver.receive(startup), Delivery::Startup { page: 8 });
    let Effect::Ipi(nmi) = write(&mut sender, ICR, 0xC_4400, 0) else {
        panic!("no IPI")
    };
    assert!(!sender.is_addressed(nmi.destination, 0) && receiver.is_addressed(nmi.destination, 0));
    assert_eq!(receiver.receive(nmi), Delivery::Nmi);
    // To self, both ways.
    assert_eq!(write(&mut sender, 0x83F, 0x61, 0), Effect::PendingChanged);
    assert_eq!(write(&mut sender, ICR, 0x4_0062, 0), Effect::PendingChanged);
    assert_eq!((sender.acknowledge(), sender.pending()), (0x62, None));
    assert_eq!(write(&mut sender, EOI, 0, 0), Effect::PendingChanged);
    assert_eq!(sender.pending(), Some(0x61));
}

#[test]
fn errors_are_latched_and_interrupt_once() {
    let mut lapic = x2apic(0);
    let _ = write(&mut lapic, LVT_ERROR, 0xFE, 0);
    assert_eq!(
        write(&mut lapic, ICR, 1 << 32 | 5, 0),
        Effect::PendingChanged
    );
    assert_eq!(lapic.acknowledge(), 0xFE);
    assert_eq!(lapic.accept(7, Trigger::Edge), Delivery::Dropped);
    assert_eq!(
        (lapic.highest_requested(), lapic.read_msr(ESR, 0)),
        (None, Ok(0))
    );
    let _ = write(&mut lapic, ESR, 0, 0);
    assert_eq!(lapic.read_msr(ESR, 0), Ok(0x60));
    let _ = write(&mut lapic, ESR, 0, 0);
    assert_eq!(lapic.read_msr(ESR, 0), Ok(0));
}

#[test]
fn software_disable_masks_and_drops_but_keeps_what_is_pending() {
    let mut lapic = x2apic(0);
    assert!(lapic.passes_pic());
    inject(&mut lapic, 0x55, Trigger::Edge);
    let _ = write(&mut lapic, SVR, 0xFF, 0);
    assert_eq!(lapic.accept(0x66, Trigger::Edge), Delivery::Dropped);
    assert!(!lapic.passes_pic());
    let _ = write(&mut lapic, LVT_TIMER, 0x40, 0);
    assert_eq!(lapic.read_msr(LVT_TIMER, 0), Ok(0x1_0040));
    assert_eq!(lapic.acknowledge(), 0x55);
}

#[test]
fn local_sources_do_as_their_entries_say() {
    let mut lapic = x2apic(0);
    assert_eq!(lapic.signal(LocalSource::Lint0), Delivery::ExtInt);
    assert_eq!(lapic.signal(LocalSource::Lint1), Delivery::Nmi);
    let _ = write(&mut lapic, 0x834, 0x0C3, 0);
    assert_eq!(
        lapic.signal(LocalSource::Performance),
        Delivery::Accepted {
            newly_pending: true
        }
    );
    assert_eq!(
        lapic.signal(LocalSource::Performance),
        Delivery::Dropped,
        "masks itself"
    );
    let _ = write(&mut lapic, 0x835, 0x80D0, 0);
    assert_eq!(
        lapic.signal(LocalSource::Lint0),
        Delivery::Accepted {
            newly_pending: true
        }
    );
    assert_eq!(lapic.acknowledge(), 0xD0);
    assert_eq!(write(&mut lapic, EOI, 0, 0), Effect::EndOfLevel(0xD0));
}

#[test]
fn xapic_offsets_reach_the_same_registers() {
    let mut lapic = Lapic::after_firmware(2, false, ApicMode::XApic, RATE);
    assert_eq!(
        (lapic.mmio_read(0x20, 0), lapic.mmio_read(0x30, 0)),
        (2 << 24, 0x5_0014)
    );
    assert_eq!(
        lapic.mmio_write(0x80, 0xFFFF_FF20, 0),
        Effect::PendingChanged
    );
    assert_eq!(lapic.mmio_read(0x80, 0), 0x20);
    assert_eq!(
        lapic.mmio_write(0xD0, 0xFF_FFFF | 4 << 24, 0),
        Effect::ModeChanged
    );
    assert!(
        lapic.is_addressed(Destination::Logical(0x0C), 0)
            && !lapic.is_addressed(Destination::Logical(0x03), 0)
    );
    let _ = lapic.mmio_write(0xE0, 0, 0);
    let _ = lapic.mmio_write(0xD0, 0x31 << 24, 0);
    assert!(
        lapic.is_addressed(Destination::Logical(0x33), 0)
            && !lapic.is_addressed(Destination::Logical(0x23), 0)
    );
    assert_eq!(lapic.mmio_write(0x310, 0xFF << 24, 0), Effect::None);
    let all = Ipi {
        destination: Destination::Physical(BROADCAST),
        mode: IpiMode::Fixed,
        vector: 0x80,
    };
    assert_eq!(lapic.mmio_write(0x300, 0x80, 0), Effect::Ipi(all));
    assert_eq!(
        (lapic.mmio_read(0x300, 0), lapic.mmio_read(0x310, 0)),
        (0x80, 0xFF << 24)
    );
    assert_eq!(lapic.mmio_read(0x3F0, 0), 0);
    let _ = lapic.mmio_write(0x280, 0, 0);
    assert_eq!(lapic.mmio_read(0x280, 0), 0x80, "illegal register address");
    assert_eq!(lapic.mmio_write(0x320, 0x7_0040, 0), Effect::TimerChanged);
    assert_eq!(
        lapic.mmio_read(0x320, 0),
        0x1_0040,
        "a reserved timer mode is not taken"
    );
}
