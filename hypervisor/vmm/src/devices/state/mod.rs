//! A domain's devices as one string of records: what is moved or stored, and set on a new domain.
//!
//! ```text
//! PlatformTime, PIC, ACPI, reset, I/O APIC, PIT, RTC, UART, PCI bus, PCI functions, kvmclock, { VcpuLocal, LocalApic } a vCPU
//! ```
//!
//! Read in any order; each exactly once, functions and vCPUs once for each that the domain has. Kinds that may be skipped are.
//! A domain whose TSC has another rate than the one that was saved gets every time converted ([`Saved::at_rate`]).

mod buses;
mod interrupts;
mod timers;

use alloc::vec::Vec;
use core::fmt;

use godwit_records::{
    AcpiFixed, DecodeError, Header, IntervalTimer, IoApic, Kind, LocalApic, ParavirtualClock,
    PciBus, PciFunction, PicPair, PlatformTime, RealTimeClock, Record, ResetControl, SerialPort,
    VcpuLocal,
};

use super::kvmclock::{Kvmclock, VCPUS_MAX};
use super::lapic::{Countdown, LapicState};
use super::pci::PciState;
use super::ports::{Platform, PlatformState};
use super::{BadState, TscRate};

/// What one vCPU has besides registers and extended state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedVcpu {
    /// What is in no device.
    pub local: VcpuLocal,
    /// Its local APIC.
    pub lapic: LapicState,
}

/// Everything of a domain but memory, registers and extended state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved {
    /// Rate of its TSC.
    pub rate: TscRate,
    /// Platform time when it was saved.
    pub platform_tsc: u64,
    /// The devices all vCPUs share.
    pub platform: PlatformState,
    /// By number.
    pub vcpus: Vec<SavedVcpu>,
}

/// Why records were refused: whoever sent or stored them is to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadRecords {
    /// The bytes end within a record.
    Truncated,
    /// One does not decode.
    Decode(DecodeError),
    /// One says what no device can be in.
    State(BadState),
    /// This kind must be understood, and is not.
    Unknown(Kind),
    /// One too many of this kind, or for a vCPU or device that the domain does not have.
    Surplus(Kind),
    /// One of this kind is not there.
    Missing(Kind),
}

impl From<DecodeError> for BadRecords {
    fn from(error: DecodeError) -> Self {
        BadRecords::Decode(error)
    }
}

impl From<BadState> for BadRecords {
    fn from(error: BadState) -> Self {
        BadRecords::State(error)
    }
}

impl fmt::Display for BadRecords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadRecords::Truncated => f.write_str("device records: the last one is cut off"),
            BadRecords::Decode(error) => error.fmt(f),
            BadRecords::State(error) => error.fmt(f),
            BadRecords::Unknown(kind) => write!(f, "device records: {kind:?} is not known here"),
            BadRecords::Surplus(kind) => write!(
                f,
                "device records: {kind:?} is there twice, or for what the domain does not have"
            ),
            BadRecords::Missing(kind) => write!(f, "device records: {kind:?} is missing"),
        }
    }
}

/// Appends a record.
fn append<R: Record>(out: &mut Vec<u8>, record: &R) {
    let start = out.len();
    out.resize(start + R::MAX_BYTES, 0);
    let length = record
        .encode(&mut out[start..])
        .expect("the buffer takes every value of the type");
    out.truncate(start + length);
}

/// Keeps the only record of a kind.
fn only<R: Record>(place: &mut Option<R>, bytes: &[u8]) -> Result<(), BadRecords> {
    if place.replace(R::decode(bytes)?).is_some() {
        return Err(BadRecords::Surplus(R::KIND));
    }
    Ok(())
}

fn found<R: Record>(place: Option<R>) -> Result<R, BadRecords> {
    place.ok_or(BadRecords::Missing(R::KIND))
}

/// Records as they are found.
#[derive(Default)]
struct Found {
    time: Option<PlatformTime>,
    pic: Option<PicPair>,
    pm: Option<AcpiFixed>,
    reset: Option<ResetControl>,
    ioapic: Option<IoApic>,
    pit: Option<IntervalTimer>,
    rtc: Option<RealTimeClock>,
    serial: Option<SerialPort>,
    bus: Option<PciBus>,
    functions: Vec<PciFunction>,
    clock: Option<ParavirtualClock>,
    locals: Vec<VcpuLocal>,
    lapics: Vec<LocalApic>,
}

impl Found {
    fn read(mut bytes: &[u8]) -> Result<Found, BadRecords> {
        let mut found = Found::default();
        while !bytes.is_empty() {
            let header = Header::peek(bytes).ok_or(BadRecords::Truncated)?;
            let length =
                usize::try_from(header.record_bytes()).map_err(|_| BadRecords::Truncated)?;
            let (record, rest) = bytes
                .split_at_checked(length)
                .ok_or(BadRecords::Truncated)?;
            found.take(header.kind, record)?;
            bytes = rest;
        }
        Ok(found)
    }

    fn take(&mut self, kind: Kind, bytes: &[u8]) -> Result<(), BadRecords> {
        match kind {
            Kind::PLATFORM_TIME => only(&mut self.time, bytes),
            Kind::PIC => only(&mut self.pic, bytes),
            Kind::ACPI_PM => only(&mut self.pm, bytes),
            Kind::RESET_CONTROL => only(&mut self.reset, bytes),
            Kind::IOAPIC => only(&mut self.ioapic, bytes),
            Kind::PIT => only(&mut self.pit, bytes),
            Kind::RTC => only(&mut self.rtc, bytes),
            Kind::UART => only(&mut self.serial, bytes),
            Kind::PCI_BUS => only(&mut self.bus, bytes),
            Kind::KVMCLOCK => only(&mut self.clock, bytes),
            Kind::PCI_FUNCTION => {
                self.functions.push(PciFunction::decode(bytes)?);
                Ok(())
            }
            Kind::VCPU_LOCAL => {
                self.locals.push(VcpuLocal::decode(bytes)?);
                Ok(())
            }
            Kind::LAPIC => {
                self.lapics.push(LocalApic::decode(bytes)?);
                Ok(())
            }
            other if other.optional() => Ok(()),
            other => Err(BadRecords::Unknown(other)),
        }
    }

    /// The records of each vCPU, by number.
    fn vcpus(&self, count: usize) -> Result<Vec<SavedVcpu>, BadRecords> {
        let mut vcpus = Vec::new();
        for index in 0..count {
            let local = self
                .locals
                .iter()
                .find(|local| usize::from(local.vcpu) == index)
                .ok_or(BadRecords::Missing(Kind::VCPU_LOCAL))?;
            let lapic = self
                .lapics
                .iter()
                .find(|lapic| lapic.id as usize == index)
                .ok_or(BadRecords::Missing(Kind::LAPIC))?;
            BadState::unless(lapic.bootstrap == (index == 0), "lapic.bootstrap")?;
            vcpus.push(SavedVcpu {
                local: local.clone(),
                lapic: interrupts::lapic_state(lapic),
            });
        }
        // Each number was found, so more than that many are too many.
        if self.locals.len() > count {
            return Err(BadRecords::Surplus(Kind::VCPU_LOCAL));
        }
        if self.lapics.len() > count {
            return Err(BadRecords::Surplus(Kind::LAPIC));
        }
        Ok(vcpus)
    }

    /// The bus with the functions that the domain has.
    fn pci(&self, bus: &PciBus, present: &Platform) -> Result<PciState, BadRecords> {
        let PciBus { address } = *bus;
        let mut functions = Vec::new();
        for record in &self.functions {
            let function = present
                .pci
                .function(record.slot)
                .ok_or(BadRecords::Surplus(Kind::PCI_FUNCTION))?;
            let state = buses::function_state(record, function.definition())?;
            functions.push((record.slot, state));
        }
        if functions.len() < present.pci.save().functions.len() {
            return Err(BadRecords::Missing(Kind::PCI_FUNCTION));
        }
        Ok(PciState { address, functions })
    }
}

impl Saved {
    /// The records, one behind the other.
    pub fn encode(&self) -> Vec<u8> {
        let Saved {
            rate,
            platform_tsc,
            platform,
            vcpus,
        } = self;
        let PlatformState {
            pic,
            pm,
            reset,
            // Its reader has what was written.
            console: _,
            ioapic,
            pit,
            rtc,
            serial,
            pci,
            kvmclock,
        } = platform;
        let mut out = Vec::new();
        append(
            &mut out,
            &PlatformTime {
                tsc_hz: rate.hz(),
                platform_tsc: *platform_tsc,
            },
        );
        append(&mut out, &interrupts::pic_record(pic));
        append(&mut out, &timers::pm_record(pm));
        append(&mut out, &buses::reset_record(reset));
        append(&mut out, &interrupts::ioapic_record(ioapic));
        append(&mut out, &timers::pit_record(pit));
        append(&mut out, &timers::rtc_record(rtc));
        append(&mut out, &buses::serial_record(serial));
        append(&mut out, &buses::bus_record(pci.address));
        for (slot, function) in &pci.functions {
            append(&mut out, &buses::function_record(*slot, function));
        }
        append(&mut out, &timers::kvmclock_record(kvmclock));
        for SavedVcpu { local, lapic } in vcpus {
            append(&mut out, local);
            append(&mut out, &interrupts::lapic_record(lapic));
        }
        out
    }

    /// Reads records for a domain with these devices and so many vCPUs; the consoles stay as they are.
    pub fn decode(bytes: &[u8], present: &Platform, vcpus: usize) -> Result<Saved, BadRecords> {
        let mut records = Found::read(bytes)?;
        let PlatformTime {
            tsc_hz,
            platform_tsc,
        } = found(records.time.take())?;
        let rate = TscRate::from_hz(tsc_hz).ok_or(BadState {
            field: "platform_time.tsc_hz",
        })?;
        let vcpus = records.vcpus(vcpus)?;
        let mut adjusts = [0; VCPUS_MAX];
        for (adjust, vcpu) in adjusts.iter_mut().zip(&vcpus) {
            *adjust = vcpu.local.tsc_ahead;
        }
        let bus = found(records.bus.take())?;
        let platform = PlatformState {
            pic: interrupts::pic_state(&found(records.pic.take())?),
            pm: timers::pm_state(&found(records.pm.take())?),
            reset: buses::reset_state(&found(records.reset.take())?),
            console: present.console.save(),
            ioapic: interrupts::ioapic_state(&found(records.ioapic.take())?),
            pit: timers::pit_state(&found(records.pit.take())?)?,
            rtc: timers::rtc_state(&found(records.rtc.take())?),
            serial: buses::serial_state(
                &found(records.serial.take())?,
                present.serial.output.save(),
            ),
            pci: records.pci(&bus, present)?,
            kvmclock: timers::kvmclock_state(&found(records.clock.take())?, adjusts),
        };
        Ok(Saved {
            rate,
            platform_tsc,
            platform,
            vcpus,
        })
    }

    /// The same domain on a host whose TSC has another rate. Each vCPU's TSC keeps its value and counts at the new
    /// pace; platform time becomes what it would be had it always counted so; how long it is until a timer is due stays.
    pub fn at_rate(mut self, rate: TscRate) -> Result<Saved, BadState> {
        let old = self.rate;
        if rate == old {
            return Ok(self);
        }
        let convert = |ticks: u64| old.clock_ticks(ticks, rate.hz());
        let platform_tsc = convert(self.platform_tsc);
        let time_ns = Kvmclock::restore(&self.platform.kvmclock, old)?.time_ns(self.platform_tsc);
        self.platform.kvmclock.reference_tsc = platform_tsc;
        self.platform.kvmclock.reference_ns = time_ns;
        self.platform.rtc.seen_tsc = convert(self.platform.rtc.seen_tsc);
        self.platform.serial.traffic_tsc = convert(self.platform.serial.traffic_tsc);
        for (index, SavedVcpu { local, lapic }) in self.vcpus.iter_mut().enumerate() {
            let tsc = self.platform_tsc.wrapping_add(local.tsc_ahead);
            local.tsc_ahead = tsc.wrapping_sub(platform_tsc);
            if let Some(adjust) = self.platform.kvmclock.adjusts.get_mut(index) {
                *adjust = local.tsc_ahead;
            }
            if let Some(Countdown { start_tsc, .. }) = &mut lapic.timer_countdown {
                *start_tsc = tsc.saturating_sub(convert(tsc.saturating_sub(*start_tsc)));
            }
            if let Some(left) = lapic.tsc_deadline.checked_sub(tsc) {
                lapic.tsc_deadline = tsc.saturating_add(convert(left));
            }
        }
        self.platform_tsc = platform_tsc;
        self.rate = rate;
        Ok(self)
    }
}
