//! The devices of the guest's platform: interrupt controllers, timers, clock, serial port, PCI.
//!
//! Times are values of *platform time*: ticks of the domain's TSC, counted from the domain's
//! beginning and never moved by the guest. [`PlatformTime`] says how fast those are and how many
//! there had been, so that a host with another rate can convert them.

use crate::kind::Kind;
use crate::{choice, record, structure};

/// vCPUs that a domain has at most.
pub const VCPUS_MAX: usize = 32;
/// MSI-X vectors of a function at most.
pub const MSIX_VECTORS_MAX: usize = 64;
/// Bytes that wait for the serial port at most.
pub const SERIAL_INPUT_BYTES_MAX: usize = 512;

record! {
    /// The time of a domain when its devices were saved. Exactly one in a stream.
    pub struct PlatformTime = Kind::PLATFORM_TIME;
    version 1 {
        /// Ticks of the guest's TSC a second.
        tsc_hz: u64 = 1_000_000_000;
        /// Platform time: ticks since the domain began. Whoever moves the domain adds the time it
        /// stood still.
        platform_tsc: u64 = 0;
    }
}

record! {
    /// What a vCPU has besides registers, extended state and local APIC. One for each vCPU.
    pub struct VcpuLocal = Kind::VCPU_LOCAL;
    version 1 {
        /// Which vCPU.
        vcpu: u16 = 0;
        /// Its TSC less platform time, modulo 2^64.
        tsc_ahead: u64 = 0;
        /// IA32_TSC_ADJUST.
        tsc_adjust: u64 = 0;
        /// An NMI waits for the guest to take it.
        nmi_pending: bool = false;
        /// An INIT has come and is carried out first.
        init_pending: bool = false;
        /// A start-up IPI has come (behind the INIT, if there is one) and will be followed.
        startup_page: Option<u8> = None;
        /// IA32_MTRR_DEF_TYPE.
        mtrr_default: u64 = 0xc06;
        /// The fixed-range MTRRs, by address.
        mtrr_fixed: [u64; 11] = [0x0606_0606_0606_0606; 11];
    }
}

choice! {
    /// How a local APIC is switched on (IA32_APIC_BASE bits 11 and 10).
    pub enum LocalApicMode {
        /// Off.
        0 Disabled,
        /// Registers in memory.
        1 XApic,
        /// Registers in MSRs.
        2 X2Apic,
    }
}

structure! {
    /// A countdown of the local APIC's timer.
    pub struct ApicCountdown {
        /// The vCPU's TSC when it began.
        start_tsc: u64,
        /// Counts of the first period.
        first: u32,
        /// Expirations that have been seen.
        expired: u64,
    }
}

record! {
    /// A local APIC. Formats of registers: SDM 3A chapter 11. One for each vCPU.
    pub struct LocalApic = Kind::LAPIC;
    version 1 {
        /// APIC id, which is the vCPU's number.
        id: u32 = 0;
        /// Is it the bootstrap processor's?
        bootstrap: bool = false;
        /// Mode.
        mode: LocalApicMode = LocalApicMode::XApic;
        /// Base address.
        base: u64 = 0xfee0_0000;
        /// Task priority.
        tpr: u32 = 0;
        /// In service.
        isr: [u64; 4] = [0; 4];
        /// Requested.
        irr: [u64; 4] = [0; 4];
        /// Triggered by level.
        tmr: [u64; 4] = [0; 4];
        /// Spurious-interrupt vector register.
        svr: u32 = 0xff;
        /// Logical destination register.
        ldr: u32 = 0;
        /// Destination format register.
        dfr: u32 = 0xffff_ffff;
        /// Error status.
        esr: u32 = 0;
        /// Errors since the error status was written.
        esr_gathering: u32 = 0;
        /// Interrupt command register.
        icr: u64 = 0;
        /// Timer, thermal, performance, LINT0, LINT1, error.
        lvt: [u32; 6] = [0x1_0000; 6];
        /// Initial count.
        timer_initial: u32 = 0;
        /// Divide configuration.
        timer_divide: u32 = 0;
        /// Countdown under way.
        timer_countdown: Option<ApicCountdown> = None;
        /// IA32_TSC_DEADLINE.
        tsc_deadline: u64 = 0;
    }
}

choice! {
    /// Where an 8259 stands in its initialisation.
    pub enum PicPhase {
        /// Never initialised.
        0 Uninitialised,
        /// Waits for ICW2.
        1 Icw2,
        /// Waits for ICW3.
        2 Icw3,
        /// Waits for ICW4.
        3 Icw4,
        /// Operates.
        4 Ready,
    }
}

structure! {
    /// One 8259.
    pub struct PicChip {
        /// Initialisation.
        phase: PicPhase,
        /// There will be an ICW4.
        expects_icw4: bool,
        /// There will be no ICW3.
        single: bool,
        /// Levels of the inputs.
        lines: u8,
        /// Inputs triggered by level (ELCR).
        level_triggered: u8,
        /// Requested.
        irr: u8,
        /// In service.
        isr: u8,
        /// Masked.
        imr: u8,
        /// Vector of input 0.
        vector_base: u8,
        /// Input of lowest priority.
        lowest: u8,
        /// Automatic end of interrupt.
        auto_eoi: bool,
        /// Rotate on automatic end of interrupt.
        rotate_on_auto_eoi: bool,
        /// Special fully nested mode.
        special_fully_nested: bool,
        /// Special mask mode.
        special_mask: bool,
        /// The command port reads the ISR.
        reads_isr: bool,
        /// The next read polls.
        polls: bool,
    }
}

impl PicChip {
    const RESET: PicChip = PicChip {
        phase: PicPhase::Uninitialised,
        expects_icw4: false,
        single: false,
        lines: 0,
        level_triggered: 0,
        irr: 0,
        isr: 0,
        imr: 0,
        vector_base: 0,
        lowest: 7,
        auto_eoi: false,
        rotate_on_auto_eoi: false,
        special_fully_nested: false,
        special_mask: false,
        reads_isr: false,
        polls: false,
    };
}

record! {
    /// The pair of 8259 interrupt controllers.
    pub struct PicPair = Kind::PIC;
    version 1 {
        /// IRQ 0 to 7.
        master: PicChip = PicChip::RESET;
        /// IRQ 8 to 15.
        slave: PicChip = PicChip::RESET;
    }
}

record! {
    /// The ACPI fixed hardware.
    pub struct AcpiFixed = Kind::ACPI_PM;
    version 1 {
        /// PM1 status, without the timer's bit.
        status: u16 = 0;
        /// PM1 enable.
        enable: u16 = 0;
        /// PM1 control, what of it is stored.
        control: u16 = 0;
        /// Changes of the timer's highest bit up to the last time its status was cleared.
        timer_carries_seen: u64 = 0;
    }
}

record! {
    /// The reset control register.
    pub struct ResetControl = Kind::RESET_CONTROL;
    version 1 {
        /// Its value without the trigger.
        control: u8 = 0;
    }
}

record! {
    /// The I/O APIC.
    pub struct IoApic = Kind::IOAPIC;
    version 1 {
        /// APIC id.
        id: u8 = 0;
        /// Register selected.
        select: u8 = 0;
        /// Redirection table, with remote IRR.
        entries: [u64; 24] = [0x1_0000; 24];
        /// Lines that are raised, by pin.
        lines: u32 = 0;
        /// Pins with a message to send.
        requested: u32 = 0;
    }
}

choice! {
    /// Which bytes of a counter are accessed.
    pub enum PitAccess {
        /// The low one.
        1 Low,
        /// The high one.
        2 High,
        /// Low, then high.
        3 Both,
    }
}

choice! {
    /// Where a counter stands.
    pub enum PitCounting {
        /// Nothing loaded.
        0 Empty,
        /// At clock `at` it was `phase` clocks into its count.
        1 Running,
        /// The gate stopped it after `phase` clocks.
        2 Held,
    }
}

structure! {
    /// One counter of the 8254. Clocks count at 1.193182 MHz from the domain's beginning.
    pub struct PitChannel {
        /// Mode, 0 to 5.
        mode: u8,
        /// Bytes accessed.
        access: PitAccess,
        /// Counts in BCD.
        bcd: bool,
        /// Count in effect; 0 before the first.
        period: u32,
        /// Count written and not yet in effect.
        next_period: Option<u32>,
        /// First byte of a count whose second is to come.
        low_byte: Option<u8>,
        /// Counting element.
        counting: PitCounting,
        /// Clock at which it ran on; 0 where it does not run.
        at: u64,
        /// Clocks counted before; 0 where nothing is loaded.
        phase: u64,
        /// Level of the gate.
        gate: bool,
        /// Latched count.
        latch: Option<u16>,
        /// Latched status.
        status_latch: Option<u8>,
        /// The next byte read is the high one.
        reads_high: bool,
        /// Clock up to which edges have been counted.
        seen: u64,
        /// Rising edges of OUT that nobody has taken.
        edges: u64,
    }
}

impl PitChannel {
    const fn reset(gate: bool) -> PitChannel {
        PitChannel {
            mode: 3,
            access: PitAccess::Both,
            bcd: false,
            period: 0,
            next_period: None,
            low_byte: None,
            counting: PitCounting::Empty,
            at: 0,
            phase: 0,
            gate,
            latch: None,
            status_latch: None,
            reads_high: false,
            seen: 0,
            edges: 0,
        }
    }
}

record! {
    /// The interval timer.
    pub struct IntervalTimer = Kind::PIT;
    version 1 {
        /// Counter 0.
        channel_0: PitChannel = PitChannel::reset(true);
        /// Counter 1.
        channel_1: PitChannel = PitChannel::reset(true);
        /// Counter 2.
        channel_2: PitChannel = PitChannel::reset(false);
        /// Port 61h, bits 3:0.
        speaker: u8 = 0;
        /// Edges of counter 0 that came while one was due already.
        missed: u64 = 0;
    }
}

record! {
    /// The real-time clock with its memory.
    pub struct RealTimeClock = Kind::RTC;
    version 1 {
        /// Index port as written.
        index: u8 = 0;
        /// Registers and memory.
        cmos: [u8; 128] = [0; 128];
        /// Time of day at platform time 0: seconds since 1970, two's complement.
        base_seconds: u64 = 0;
        /// Nanoseconds besides.
        base_ns: u32 = 0;
        /// Platform time up to which flags have been brought up to date.
        seen_tsc: u64 = 0;
    }
}

record! {
    /// The serial port. What the guest has sent is not part of it: the console's reader has that.
    pub struct SerialPort = Kind::UART;
    version 1 {
        /// Interrupt enable register.
        ier: u8 = 0;
        /// FIFO control register without its triggers.
        fcr: u8 = 0;
        /// Line control register.
        lcr: u8 = 0;
        /// Modem control register.
        mcr: u8 = 0;
        /// Overrun error.
        overrun: bool = false;
        /// Modem-status deltas.
        deltas: u8 = 0;
        /// Scratch register.
        scratch: u8 = 0;
        /// Baud-rate divisor.
        divisor: u16 = 12;
        /// The transmitter's interrupt is pending.
        transmitted: bool = false;
        /// Receive FIFO, oldest first.
        fifo: crate::Bytes<16> = crate::Bytes::empty();
        /// Platform time when the FIFO was last filled or read.
        traffic_tsc: u64 = 0;
        /// Bytes that wait for room, oldest first.
        input: crate::Bytes<SERIAL_INPUT_BYTES_MAX> = crate::Bytes::empty();
    }
}

record! {
    /// The PCI bus.
    pub struct PciBus = Kind::PCI_BUS;
    version 1 {
        /// Configuration address register.
        address: u32 = 0;
    }
}

record! {
    /// A PCI function, the host bridge included. One for each.
    pub struct PciFunction = Kind::PCI_FUNCTION;
    version 1 {
        /// Its device number.
        slot: u8 = 0;
        /// Configuration space.
        config: [u8; 256] = [0; 256];
        /// Its device asserts the interrupt pin.
        intx: bool = false;
        /// MSI-X vectors, 0 for none.
        msix_vectors: u16 = 0;
        /// Message addresses; 0 beyond the last vector.
        msix_address: [u64; MSIX_VECTORS_MAX] = [0; MSIX_VECTORS_MAX];
        /// Message data; 0 beyond the last vector.
        msix_data: [u32; MSIX_VECTORS_MAX] = [0; MSIX_VECTORS_MAX];
        /// Vectors that are masked, a bit each.
        msix_masked: u64 = 0;
        /// Vectors that are pending, a bit each.
        msix_pending: u64 = 0;
    }
    version 2 {
        /// Messages of plain MSI, whose registers are in configuration space; 0: it has no such capability.
        msi_messages: u8 = 0, before 0;
    }
}

record! {
    /// The paravirtual clock.
    pub struct ParavirtualClock = Kind::KVMCLOCK;
    version 1 {
        /// Platform time of the reference.
        reference_tsc: u64 = 0;
        /// The time then, nanoseconds.
        reference_ns: u64 = 0;
        /// Nanoseconds since 1970 at time 0.
        epoch_ns: u64 = 0;
        /// MSR_KVM_SYSTEM_TIME_NEW of each vCPU.
        pages: [u64; VCPUS_MAX] = [0; VCPUS_MAX];
        /// MSR_KVM_WALL_CLOCK_NEW.
        wall_clock: u64 = 0;
    }
}
