//! The laws for the records of the platform, and the bytes that have shipped.

use godwit_records::laws::{bits_from, encoded, hold_for, version_is_as_shipped};
use godwit_records::{
    AcpiFixed, IntervalTimer, IoApic, LocalApic, ParavirtualClock, PciBus, PciFunction, PicPair,
    PlatformTime, RealTimeClock, Record, ResetControl, SerialPort, VcpuLocal,
};
use proptest::prelude::*;

/// Does something for each record, by type.
macro_rules! each {
    ($action:ident!($($rest:tt)*)) => {
        $action!(PlatformTime, "platform-time", $($rest)*);
        $action!(VcpuLocal, "vcpu-local", $($rest)*);
        $action!(LocalApic, "lapic", $($rest)*);
        $action!(PicPair, "pic", $($rest)*);
        $action!(AcpiFixed, "acpi-pm", $($rest)*);
        $action!(ResetControl, "reset-control", $($rest)*);
        $action!(IoApic, "ioapic", $($rest)*);
        $action!(IntervalTimer, "pit", $($rest)*);
        $action!(RealTimeClock, "rtc", $($rest)*);
        $action!(SerialPort, "uart", $($rest)*);
        $action!(PciBus, "pci-bus", $($rest)*);
        $action!(PciFunction, "pci-function", $($rest)*);
        $action!(ParavirtualClock, "kvmclock", $($rest)*);
    };
}

macro_rules! obeys {
    ($Record:ident, $name:literal, $seed:expr) => {
        hold_for(&$Record::sample(&mut bits_from($seed)));
    };
}

macro_rules! reset_obeys {
    ($Record:ident, $name:literal,) => {
        assert_eq!($Record::KIND.name(), Some($name));
        hold_for(&$Record::reset());
    };
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4))]

    #[test]
    fn samples_obey(seed: u64) {
        each!(obeys!(seed));
    }
}

#[test]
fn reset_values_obey() {
    each!(reset_obeys!());
}

/// The seed of the values whose bytes are kept.
const GOLDEN_SEED: u64 = 0x676f_6c64;

/// One line a record: name, fingerprint of version 1, bytes of the sample of the seed.
const GOLDEN: &str = include_str!("../golden/platform.v1.txt");

/// The same of version 2, where there is one.
const GOLDEN_V2: &str = include_str!("../golden/platform.v2.txt");

macro_rules! as_shipped {
    (PciFunction, $name:literal,) => {
        let sample = PciFunction::sample(&mut bits_from(GOLDEN_SEED));
        let without = PciFunction {
            msi_messages: 0,
            ..sample.clone()
        };
        as_shipped!(PciFunction, $name, 1, GOLDEN, without);
        as_shipped!(PciFunction, $name, 2, GOLDEN_V2, sample);
    };
    ($Record:ident, $name:literal,) => {
        let sample = $Record::sample(&mut bits_from(GOLDEN_SEED));
        as_shipped!($Record, $name, 1, GOLDEN, sample);
    };
    ($Record:ident, $name:literal, $version:literal, $golden:expr, $expected:expr) => {
        let line = $golden
            .lines()
            .find_map(|line| line.strip_prefix(concat!($name, " ")));
        let (fingerprint, bytes) = line.expect($name).split_once(' ').expect("two columns");
        let fingerprint = u64::from_str_radix(fingerprint, 16).expect("hexadecimal");
        let value: $Record = version_is_as_shipped($version, fingerprint, bytes);
        assert_eq!(value, $expected);
    };
}

#[test]
fn shipped_versions_are_as_they_were() {
    each!(as_shipped!());
}

macro_rules! print_line {
    ($Record:ident, $name:literal,) => {
        let bytes = encoded(
            &$Record::sample(&mut bits_from(GOLDEN_SEED)),
            $Record::NEWEST,
        )
        .expect("newest");
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let fingerprint = $Record::SCHEMA.versions[usize::from($Record::NEWEST) - 1].fingerprint();
        println!("{} {fingerprint:016x} {hex}", $name);
    };
}

#[test]
#[ignore = "writes what the golden file of a new record holds"]
fn print_golden_lines() {
    each!(print_line!());
}
