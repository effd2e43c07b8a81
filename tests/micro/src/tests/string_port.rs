//! `string-port`: INS and OUTS, single and repeated, both directions, across pages, and into pages that fault.

use crate::command_line::Arguments;
use crate::console::DEBUG_PORT;
use crate::cpu::{in8, out8};
use crate::exec::{self, Code, Registers};
use crate::report::Verdict;
use crate::start_info::StartInfo;
use crate::tests::port::UNUSED_PORT;
use crate::window::{self, PRESENT, WRITABLE};
use crate::{check, code, fail, say};

code!(insb, "insb");
code!(outsb, "outsb");
code!(rep_insb, "rep insb");
code!(rep_insw, "rep insw");
code!(rep_insd, "rep insd");
code!(rep_outsb, "rep outsb");
code!(rep_insb_down, "std", "rep insb", "cld");

const DIRECTION_FLAG: u64 = 1 << 10;
const PAGE_FAULT: u64 = 14;
const PIC_MASK: u16 = 0x21;

pub(crate) fn run(_: &StartInfo, _: &Arguments) -> Verdict {
    window::map(0, PRESENT | WRITABLE);
    window::map(1, PRESENT | WRITABLE);
    window::map(2, PRESENT);
    window::map(3, 0);
    input()?;
    output()?;
    faults()
}

/// Runs a string instruction; checks RCX, RSI and RDI afterwards and that nothing else changed.
fn strings(name: &str, code: Code, before: Registers, after: Registers) -> Verdict {
    let mut registers = before;
    if let Some(caught) = exec::run(&mut registers, code) {
        fail!(
            "{name} gave exception {} cr2 {:#x}",
            caught.vector,
            caught.cr2
        );
    }
    registers.rflags &= !DIRECTION_FLAG;
    check!(registers == after, "{name}: {registers:x?}");
    Ok(())
}

fn on_port(port: u16) -> Registers {
    Registers {
        rdx: 0xa5a5_0004_dead_0000 | u64::from(port),
        ..Registers::pattern()
    }
}

/// Bytes of the window as a slice.
fn bytes(page: usize, offset: usize, len: usize) -> &'static mut [u8] {
    // SAFETY: pages 0 and 1 are mapped, writable and consecutive for the whole test; callers stay inside, and
    // no two of these slices are alive at a time.
    unsafe {
        core::slice::from_raw_parts_mut((window::address(page) as usize + offset) as *mut u8, len)
    }
}

fn input() -> Verdict {
    let start = window::address(0) + 4096 - 5;
    let cases: [(&str, Code, u64, u64); 5] = [
        ("insb", insb, 1, 1),
        ("rep insb", rep_insb, 10, 1),
        ("rep insw", rep_insw, 5, 2),
        ("rep insd", rep_insd, 3, 4),
        ("rep insb, none", rep_insb, 0, 1),
    ];
    for (name, code, count, width) in cases {
        bytes(0, 4096 - 16, 32).fill(0x77);
        // Wide elements come from the unused port, which has a defined value at every width.
        let (port, value) = if width == 1 {
            (DEBUG_PORT, 0xe9)
        } else {
            (UNUSED_PORT, 0xff)
        };
        let before = Registers {
            rcx: count,
            rdi: start,
            ..on_port(port)
        };
        let rcx = if name == "insb" { count } else { 0 };
        strings(
            name,
            code,
            before,
            Registers {
                rcx,
                rdi: start + count * width,
                ..before
            },
        )?;
        for (index, &byte) in bytes(0, 4096 - 5, 20).iter().enumerate() {
            let expected = if (index as u64) < count * width {
                value
            } else {
                0x77
            };
            check!(
                byte == expected,
                "{name}: byte {index} is {byte:#x}, not {expected:#x}"
            );
        }
        check!(
            bytes(0, 4096 - 6, 1)[0] == 0x77,
            "{name} wrote before its buffer"
        );
    }
    input_downwards()
}

/// With the direction flag set.
fn input_downwards() -> Verdict {
    let start = window::address(1) + 4;
    bytes(0, 4096 - 16, 32).fill(0x77);
    let before = Registers {
        rcx: 10,
        rdi: start,
        ..on_port(DEBUG_PORT)
    };
    strings(
        "rep insb, downwards",
        rep_insb_down,
        before,
        Registers {
            rcx: 0,
            rdi: start - 10,
            ..before
        },
    )?;
    let found = bytes(0, 4096 - 6, 13);
    check!(
        found[0] == 0x77 && found[1..11].iter().all(|&byte| byte == 0xe9) && found[11] == 0x77,
        "downwards: {found:x?}"
    );
    say!("input done");
    Ok(())
}

fn output() -> Verdict {
    // The PIC's mask register gives back the last byte sent, so OUTS can be checked from here.
    let start = window::address(0) + 4096 - 2;
    bytes(0, 4096 - 2, 4).copy_from_slice(&[0x11, 0x22, 0x33, 0xc4]);
    let before = Registers {
        rcx: 4,
        rsi: start,
        ..on_port(PIC_MASK)
    };
    strings(
        "rep outsb",
        rep_outsb,
        before,
        Registers {
            rcx: 0,
            rsi: start + 4,
            ..before
        },
    )?;
    check!(
        in8(PIC_MASK) == 0xc4,
        "rep outsb: the last byte arrived as {:#x}",
        in8(PIC_MASK)
    );
    strings(
        "outsb",
        outsb,
        before,
        Registers {
            rsi: start + 1,
            ..before
        },
    )?;
    check!(
        in8(PIC_MASK) == 0x11,
        "outsb: the byte arrived as {:#x}",
        in8(PIC_MASK)
    );
    out8(PIC_MASK, 0xff);
    let text = b"outsb across a page: 0123456789 abcdefghijklmnopqrstuvwxyz\n";
    let offset = 4096 - 30;
    bytes(0, offset, text.len()).copy_from_slice(text);
    let start = window::address(0) + offset as u64;
    let before = Registers {
        rcx: text.len() as u64,
        rsi: start,
        ..on_port(DEBUG_PORT)
    };
    strings(
        "rep outsb of text",
        rep_outsb,
        before,
        Registers {
            rcx: 0,
            rsi: start + text.len() as u64,
            ..before
        },
    )
}

/// Name, code, registers, then what the fault must give: CR2, error code, elements left.
type FaultCase = (&'static str, Code, Registers, u64, u64, u64);

fn fault_cases() -> [FaultCase; 4] {
    let (read_only, absent) = (window::address(2), window::address(3));
    [
        (
            "insb to a read-only page",
            insb,
            Registers {
                rcx: 1,
                rdi: read_only,
                ..on_port(DEBUG_PORT)
            },
            read_only,
            3,
            1,
        ),
        (
            "insb to no page",
            insb,
            Registers {
                rcx: 1,
                rdi: absent,
                ..on_port(DEBUG_PORT)
            },
            absent,
            2,
            1,
        ),
        (
            "outsb from no page",
            outsb,
            Registers {
                rcx: 1,
                rsi: absent,
                ..on_port(PIC_MASK)
            },
            absent,
            0,
            1,
        ),
        (
            "rep insb into a read-only page",
            rep_insb,
            Registers {
                rcx: 9,
                rdi: read_only - 4,
                ..on_port(DEBUG_PORT)
            },
            read_only,
            3,
            5,
        ),
    ]
}

/// The guest's own page tables rule: a page that is not there, or read only, gives the guest a #PF and
/// registers that point to the element to repeat.
fn faults() -> Verdict {
    window::map(1, PRESENT | WRITABLE);
    for (name, code, before, cr2, error, left) in fault_cases() {
        let mut after = before;
        let Some(caught) = exec::run(&mut after, code) else {
            fail!("{name} did not fault");
        };
        check!(
            caught.vector == PAGE_FAULT && caught.cr2 == cr2 && caught.error == error,
            "{name}: exception {} error {:#x} cr2 {:#x}, not #PF {error:#x} at {cr2:#x}",
            caught.vector,
            caught.error,
            caught.cr2
        );
        check!(
            caught.rip == code as *const () as u64,
            "{name}: RIP {:#x} is not at the instruction",
            caught.rip
        );
        let done = before.rcx - left;
        let expected = Registers {
            rcx: left,
            rdi: before.rdi + done,
            ..before
        };
        check!(
            after.rcx == expected.rcx && after.rdi == expected.rdi,
            "{name}: {after:x?}"
        );
    }
    check!(window::word(2) == 0, "the read-only page was written");
    say!("faults done");
    Ok(())
}
