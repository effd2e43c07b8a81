//! IN, OUT, INS and OUTS.

use super::*;
use crate::devices::debug_console::Cursor;
use crate::devices::ports::Width;
use crate::exit::PortAccess;
use crate::hardware::{Control, SegmentName};
use crate::vcpu::{Ending, Refused};
use crate::walk::GuestMemory;
use alloc::vec;
use alloc::vec::Vec;
use godwit_abi::ShutdownReason;
use godwit_records::Segment;

const CONSOLE: u16 = 0xe9;
const DF: u64 = 1 << 10;

fn access(port: u16, width: Width, input: bool) -> Exit {
    Exit::Port(PortAccess {
        port,
        width,
        input,
        string: false,
        repeat: false,
        length: bytes(2),
    })
}

fn string(port: u16, width: Width, input: bool) -> Exit {
    Exit::Port(PortAccess {
        port,
        width,
        input,
        string: true,
        repeat: true,
        length: bytes(2),
    })
}

fn console(machine: &Machine) -> Vec<u8> {
    let console = &machine.world.platform.console;
    let mut text = vec![0; (console.end().0 - console.oldest().0) as usize];
    assert_eq!(
        console.read(Cursor(console.oldest().0), &mut text).copied,
        text.len()
    );
    text
}

#[test]
fn in_writes_as_much_of_rax_as_it_is_wide() {
    const OLD: u64 = 0x1122_3344_5566_7788;
    for (width, expected) in [
        (Width::Byte, 0x1122_3344_5566_77e9),
        (Width::Word, 0x1122_3344_5566_ffe9),
        (Width::Dword, 0xffff_ffe9),
    ] {
        let mut machine = machine();
        set(&mut machine, Gpr::Rax, OLD);
        assert_eq!(machine.exit(access(CONSOLE, width, true)), Next::Enter);
        assert_eq!(gpr(&machine, Gpr::Rax), expected);
        assert_eq!(machine.hardware.rip(), 0x1002);
    }
}

#[test]
fn a_port_without_a_device_reads_ones_and_is_counted() {
    let mut machine = machine();
    assert_eq!(machine.exit(access(0x1234, Width::Word, true)), Next::Enter);
    assert_eq!(gpr(&machine, Gpr::Rax), 0xffff);
    assert_eq!(
        machine.exit(access(0x1234, Width::Dword, false)),
        Next::Enter
    );
    assert_eq!(machine.world.refusals, [Refused::Port(0x1234); 2]);
    assert_eq!(machine.world.platform.unclaimed().reads, 2);
}

#[test]
fn effects_of_writes_go_where_they_belong() {
    let ended = |port, width, value| {
        let mut machine = machine();
        set(&mut machine, Gpr::Rax, value);
        (machine.exit(access(port, width, false)), machine)
    };
    let end = |reason| Next::End(Ending { reason, detail: 0 });
    assert_eq!(
        ended(0x604, Width::Word, 0x2000).0,
        end(ShutdownReason::PowerOff)
    );
    assert_eq!(ended(0xcf9, Width::Byte, 6).0, end(ShutdownReason::Reboot));
    let (next, machine) = ended(0x604, Width::Word, 0x2000 | 3 << 10);
    assert_eq!(
        (next, machine.world.refusals),
        (Next::Enter, vec![Refused::Sleep(3)])
    );
    let (next, machine) = ended(CONSOLE, Width::Byte, 0xffff_ff41);
    assert_eq!(
        (next, machine.world.console_told, console(&machine)),
        (Next::Enter, 1, vec![0x41])
    );
}

#[test]
fn platform_time_does_not_follow_the_guests_tsc() {
    let mut machine = machine();
    machine.world.host_tsc.set(2_000_000_000);
    let timer = |machine: &mut Machine| {
        assert_eq!(machine.exit(access(0x608, Width::Dword, true)), Next::Enter);
        gpr(machine, Gpr::Rax)
    };
    assert_eq!(timer(&mut machine), 3_579_545);
    assert_eq!(wrmsr(&mut machine, 0x10, 0), None);
    assert_eq!(timer(&mut machine), 3_579_545);
}

/// Identity tables for the first 2 MiB in 4 KiB pages, all for CPL 3, in a machine in 64-bit mode.
fn paged() -> Machine {
    let mut machine = machine();
    machine.set_long_mode(0x10_0000);
    for (at, entry) in [
        (0x10_0000u64, 0x10_1007u64),
        (0x10_1000, 0x10_2007),
        (0x10_2000, 0x10_3007),
    ] {
        assert!(machine.world.write(at, &entry.to_le_bytes()));
    }
    for page in 0..512u64 {
        assert!(
            machine
                .world
                .write(0x10_3000 + page * 8, &(page << 12 | 7).to_le_bytes())
        );
    }
    machine
}

fn set_page(machine: &mut Machine, page: u64, entry: u64) {
    assert!(
        machine
            .world
            .write(0x10_3000 + page * 8, &entry.to_le_bytes())
    );
}

#[test]
fn outs_sends_forwards_and_backwards() {
    for (flags, start, text) in [(2, 0x5ffe, b"abcd"), (2 | DF, 0x6001, b"dcba")] {
        let mut machine = paged();
        // Two pages that are not neighbours.
        set_page(&mut machine, 6, 0x9007);
        assert!(machine.world.write(0x5ffe, b"ab"));
        assert!(machine.world.write(0x9000, b"cd"));
        machine.hardware.set_rflags(flags);
        set(&mut machine, Gpr::Rsi, start);
        set(&mut machine, Gpr::Rcx, 4);
        assert_eq!(
            machine.exit(string(CONSOLE, Width::Byte, false)),
            Next::Enter
        );
        assert_eq!(console(&machine), text);
        assert_eq!(gpr(&machine, Gpr::Rcx), 0);
        assert_eq!(
            gpr(&machine, Gpr::Rsi),
            if flags & DF == 0 {
                start + 4
            } else {
                start - 4
            }
        );
        assert_eq!(machine.hardware.rip(), 0x1002);
    }
}

#[test]
fn ins_element_across_pages_is_whole() {
    let mut machine = paged();
    set_page(&mut machine, 6, 0x9007);
    set(&mut machine, Gpr::Rdi, 0x5ffd);
    set(&mut machine, Gpr::Rcx, 1);
    assert_eq!(
        machine.exit(string(CONSOLE, Width::Dword, true)),
        Next::Enter
    );
    assert_eq!(machine.world.read_u32(0x5ffc), Some(0xffff_e900));
    assert_eq!(machine.world.read_u32(0x9000), Some(0xff));
    assert_eq!(gpr(&machine, Gpr::Rdi), 0x6001);
}

#[test]
fn a_page_fault_leaves_the_registers_at_the_faulting_element() {
    // Entry of page 6, CPL, error code: not present; read-only for a user's write; supervisor page.
    for (entry, cpl, code) in [
        (0u64, 0u16, 2u32),
        (0, 3, 6),
        (0x6005, 3, 7),
        (0x6003, 3, 7),
    ] {
        let mut machine = paged();
        set_page(&mut machine, 6, entry);
        machine.hardware.set_segment(
            SegmentName::Ss,
            Segment::new(16, 0, u32::MAX, 0xc093 | cpl << 5),
        );
        set(&mut machine, Gpr::Rdi, 0x5ff9);
        set(&mut machine, Gpr::Rcx, 10);
        assert_eq!(
            machine.exit(string(CONSOLE, Width::Word, true)),
            Next::Enter
        );
        assert_eq!(gpr(&machine, Gpr::Rcx), 7);
        assert_eq!(gpr(&machine, Gpr::Rdi), 0x5fff);
        assert_eq!(machine.hardware.rip(), 0x1000, "the instruction runs again");
        let event = machine.hardware.take_event().expect("a page fault");
        assert_eq!((event.vector, event.error_code), (14, Some(code)));
        // The second byte of the element faults.
        assert_eq!(machine.hardware.control(Control::Cr2), 0x6000);
        // Mapped, it goes on.
        set_page(&mut machine, 6, 0x6007);
        assert_eq!(
            machine.exit(string(CONSOLE, Width::Word, true)),
            Next::Enter
        );
        assert_eq!(
            (gpr(&machine, Gpr::Rcx), gpr(&machine, Gpr::Rdi)),
            (0, 0x600d)
        );
        assert_eq!(machine.hardware.rip(), 0x1002);
    }
}

#[test]
fn a_long_repetition_is_done_in_parts() {
    let mut machine = paged();
    set(&mut machine, Gpr::Rsi, 0x5000);
    set(&mut machine, Gpr::Rcx, 600);
    for (left, rip) in [(344, 0x1000), (88, 0x1000), (0, 0x1002)] {
        assert_eq!(
            machine.exit(string(CONSOLE, Width::Byte, false)),
            Next::Enter
        );
        assert_eq!(
            (gpr(&machine, Gpr::Rcx), machine.hardware.rip()),
            (left, rip)
        );
    }
    assert_eq!(console(&machine).len(), 600);
    // None at all is an instruction, too.
    assert_eq!(
        machine.exit(string(CONSOLE, Width::Byte, false)),
        Next::Enter
    );
    assert_eq!(
        (gpr(&machine, Gpr::Rsi), machine.hardware.rip()),
        (0x5258, 0x1004)
    );
}

#[test]
fn addresses_are_16_and_32_bits_wide_outside_64_bit_code() {
    for (attributes, rdi, after) in [
        (0x9b, 0x7777_7777_7777_fffe, 0x7777_7777_7777_0002),
        (0xc09b, 0x7777_7777_ffff_fffe, 0x7777_7777_0000_0002u64),
    ] {
        let mut machine = machine();
        machine
            .hardware
            .set_segment(SegmentName::Cs, Segment::new(8, 0, u32::MAX, attributes));
        machine
            .hardware
            .set_segment(SegmentName::Es, Segment::new(8, 0x1_0010, u32::MAX, 0xc093));
        set(&mut machine, Gpr::Rdi, rdi);
        set(&mut machine, Gpr::Rcx, 0x5555_5555_0000_0002);
        assert_eq!(
            machine.exit(string(CONSOLE, Width::Word, true)),
            Next::Enter
        );
        assert_eq!(gpr(&machine, Gpr::Rdi), after);
        assert_eq!(gpr(&machine, Gpr::Rcx), 0x5555_5555_0000_0000);
        assert_eq!(machine.world.read_u32(0x1_0010), Some(0xffe9));
    }
}

#[test]
fn what_no_address_is_faults_and_what_no_memory_is_ends() {
    let mut machine = paged();
    set(&mut machine, Gpr::Rsi, 0x7fff_ffff_ffff);
    set(&mut machine, Gpr::Rcx, 1);
    assert_eq!(
        machine.exit(string(CONSOLE, Width::Word, false)),
        Next::Enter
    );
    assert_eq!(machine.hardware.take_event(), Some(GP));
    set_page(&mut machine, 5, 0x7fff_0000_0007);
    set(&mut machine, Gpr::Rsi, 0x5008);
    let ending = Ending {
        reason: ShutdownReason::BadMemory,
        detail: 0x7fff_0000_0008,
    };
    assert_eq!(
        machine.exit(string(CONSOLE, Width::Byte, false)),
        Next::End(ending)
    );
}
