//! Devices that dom0 serves: the vCPU waits for answers, whatever else comes.

use super::*;
use crate::devices::lapic::Trigger;
use crate::devices::pci::{Bar, Doorbells, FunctionDefinition};
use crate::devices::ports::Width;
use crate::exit::{NestedFault, PortAccess};
use crate::fake::Entered;
use crate::hardware::SegmentName;
use crate::vcpu::{Inbox, Message, Request};
use crate::walk::GuestMemory;
use alloc::vec::Vec;
use godwit_abi::ShutdownReason;
use godwit_records::Segment;

const SLOT: u8 = 3;
const MEMORY: u64 = 0x1c_0000;
const PORTS: u16 = 0xc000;
const CODE: u64 = 0x4000;

fn definition() -> FunctionDefinition {
    FunctionDefinition {
        vendor: 0x1af4,
        device: 0x1042,
        revision: 1,
        class: 0x01_00_00,
        subsystem_vendor: 0x1af4,
        subsystem: 2,
        bars: [
            Bar::Memory64 { size_bytes: 0x4000 },
            Bar::None,
            Bar::None,
            Bar::Io { ports: 64 },
            Bar::None,
            Bar::None,
        ],
        interrupt_pin: 1,
        capabilities: Vec::new(),
        msix: None,
        msi_messages: 0,
        doorbells: Some(Doorbells {
            bar: 0,
            offset: 0x3000,
            stride: 4,
            count: 2,
        }),
    }
}

/// 64-bit code with the first 2 MiB mapped, 1.5 MiB of RAM and the device behind it.
fn with_device() -> Machine {
    let mut machine = machine();
    machine.set_long_mode(0x10_0000);
    for (at, entry) in [
        (0x10_0000u64, 0x10_1007u64),
        (0x10_1000, 0x10_2007),
        (0x10_2000, 0x87),
    ] {
        assert!(machine.world.write(at, &entry.to_le_bytes()));
    }
    machine.world.ram_bytes = 0x18_0000;
    let pci = &mut machine.world.platform.pci;
    pci.insert(SLOT, definition()).expect("a function");
    let at = |register: u64| u64::from(SLOT) << 15 | register;
    pci.write_config(at(0x10), Width::Dword, MEMORY as u32);
    pci.write_config(at(0x1c), Width::Dword, PORTS.into());
    pci.write_config(at(4), Width::Word, 3);
    machine.hardware.set_rip(CODE);
    machine
}

fn port(offset: u16, width: Width, input: bool) -> Exit {
    Exit::Port(PortAccess {
        port: PORTS + offset,
        width,
        input,
        string: false,
        repeat: false,
        length: bytes(2),
    })
}

/// Runs an instruction with RSI at an offset of the device's memory.
fn runs(machine: &mut Machine, code: &[u8], offset: u64) -> Next {
    assert!(machine.world.write(CODE, code));
    machine.hardware.set_rip(CODE);
    set(machine, Gpr::Rsi, MEMORY + offset);
    machine.exit(Exit::Nested(NestedFault {
        gpa: MEMORY + offset,
        read: true,
        write: false,
        fetch: false,
        mapped: false,
    }))
}

fn request(bar: u8, width: u8, offset: u64, write: Option<u64>) -> Request {
    Request {
        slot: SLOT,
        bar,
        width,
        offset,
        write,
    }
}

/// dom0 takes the request, which must be this one, and answers; the vCPU goes on.
fn answer(machine: &mut Machine, expected: Request, value: u64) -> Next {
    assert!(!machine.vcpu.has_work(&mut machine.world));
    assert_eq!(machine.world.exchange.take(), Some(expected));
    assert_eq!(machine.world.exchange.take(), None, "given once");
    assert!(machine.world.exchange.complete(value));
    assert!(machine.vcpu.has_work(&mut machine.world));
    resume(machine)
}

fn resume(machine: &mut Machine) -> Next {
    let Machine {
        vcpu,
        hardware,
        world,
        ..
    } = machine;
    vcpu.resume_access(hardware, world)
}

#[test]
fn ports_are_read_and_written_at_every_width() {
    const OLD: u64 = 0x1122_3344_5566_7788;
    const ANSWER: u64 = 0xffff_ffff_8765_4321;
    for (width, read) in [
        (Width::Byte, 0x1122_3344_5566_7721),
        (Width::Word, 0x1122_3344_5566_4321),
        (Width::Dword, 0x8765_4321),
    ] {
        let mut machine = with_device();
        set(&mut machine, Gpr::Rax, OLD);
        assert_eq!(machine.exit(port(8, width, true)), Next::Wait);
        let expected = request(3, width as u8, 8, None);
        assert_eq!(answer(&mut machine, expected, ANSWER), Next::Enter);
        assert_eq!(gpr(&machine, Gpr::Rax), read);
        assert_eq!(machine.hardware.rip(), CODE + 2);
        assert_eq!(machine.world.asked, 1);

        set(&mut machine, Gpr::Rax, OLD);
        assert_eq!(machine.exit(port(63, width, false)), Next::Wait);
        let written = OLD & u64::from(width.all_ones());
        let expected = request(3, width as u8, 63, Some(written));
        assert_eq!(answer(&mut machine, expected, 0), Next::Enter);
        assert_eq!(gpr(&machine, Gpr::Rax), OLD);
        assert_eq!(machine.hardware.rip(), CODE + 4);
        assert_eq!(machine.world.platform.unclaimed().reads, 0);
    }
}

#[test]
fn memory_is_read_and_written_at_every_width() {
    let reads: [(&[u8], u8, u64); 4] = [
        (&[0x0f, 0xb6, 0x06], 1, 0x88),
        (&[0x0f, 0xb7, 0x06], 2, 0x7788),
        (&[0x8b, 0x06], 4, 0x5566_7788),
        (&[0x48, 0x8b, 0x06], 8, 0x1122_3344_5566_7788),
    ];
    for (code, width, value) in reads {
        let mut machine = with_device();
        assert_eq!(runs(&mut machine, code, 0x2000), Next::Wait);
        let expected = request(0, width, 0x2000, None);
        assert_eq!(
            answer(&mut machine, expected, 0x1122_3344_5566_7788),
            Next::Enter
        );
        assert_eq!(gpr(&machine, Gpr::Rax), value);
        assert_eq!(machine.hardware.rip(), CODE + code.len() as u64);
    }
    let writes: [(&[u8], u8, u64); 4] = [
        (&[0x88, 0x06], 1, 0x88),
        (&[0x66, 0x89, 0x06], 2, 0x7788),
        (&[0x89, 0x06], 4, 0x5566_7788),
        (&[0x48, 0x89, 0x06], 8, 0x1122_3344_5566_7788),
    ];
    for (code, width, value) in writes {
        let mut machine = with_device();
        set(&mut machine, Gpr::Rax, 0x1122_3344_5566_7788);
        assert_eq!(runs(&mut machine, code, 0x14), Next::Wait);
        let expected = request(0, width, 0x14, Some(value));
        assert_eq!(answer(&mut machine, expected, 0), Next::Enter);
        assert_eq!(machine.hardware.rip(), CODE + code.len() as u64);
    }
}

#[test]
fn a_change_in_memory_is_two_accesses_and_each_is_asked_once() {
    let mut machine = with_device();
    set(&mut machine, Gpr::Rax, 0x30);
    // or [rsi], eax
    assert_eq!(runs(&mut machine, &[0x09, 0x06], 4), Next::Wait);
    let next = answer(&mut machine, request(0, 4, 4, None), 0x0f);
    assert_eq!(next, Next::Wait);
    assert_eq!(machine.hardware.rip(), CODE);
    let next = answer(&mut machine, request(0, 4, 4, Some(0x3f)), 0);
    assert_eq!(next, Next::Enter);
    assert_eq!((machine.hardware.rip(), machine.world.asked), (CODE + 2, 2));
}

#[test]
fn an_access_across_pages_is_asked_in_parts() {
    let mut machine = with_device();
    // mov eax, [rsi], three bytes before a page's end
    assert_eq!(runs(&mut machine, &[0x8b, 0x06], 0xffd), Next::Wait);
    for (part, value, next) in [
        (request(0, 2, 0xffd, None), 0x2211, Next::Wait),
        (request(0, 1, 0xfff, None), 0x33, Next::Wait),
        (request(0, 1, 0x1000, None), 0x44, Next::Enter),
    ] {
        assert_eq!(answer(&mut machine, part, value), next);
    }
    assert_eq!(gpr(&machine, Gpr::Rax), 0x4433_2211);
}

#[test]
fn interrupts_come_after_the_instruction() {
    let mut machine = with_device();
    machine.hardware.set_rflags(2 | IF);
    machine.settle(|_, event| panic!("{event:?}"));
    assert_eq!(machine.exit(port(0, Width::Byte, true)), Next::Wait);
    let inbox = Inbox::new();
    inbox.post(Message::Interrupt(0x41, Trigger::Edge));
    inbox.post(Message::Nmi);
    let Machine {
        vcpu,
        hardware,
        world,
        ..
    } = &mut machine;
    assert_eq!(vcpu.attend(hardware, world, &inbox), None);
    assert_eq!(vcpu.sleep_deadline(), u64::MAX);
    assert_eq!(resume(&mut machine), Next::Wait, "woken for nothing");
    let next = answer(&mut machine, request(3, 1, 0, None), 7);
    assert_eq!(next, Next::Enter);
    assert_eq!(gpr(&machine, Gpr::Rax) & 0xff, 7);
    let Entered::Delivered(event) = machine.enter() else {
        panic!("nothing is delivered")
    };
    assert_eq!(event.kind, EventKind::Nmi);
    assert_eq!(machine.hardware.rip(), CODE + 2);
}

#[test]
fn a_string_is_asked_element_by_element_and_gives_way_to_interrupts() {
    let mut machine = with_device();
    set(&mut machine, Gpr::Rdi, 0x8000);
    set(&mut machine, Gpr::Rcx, 4);
    machine.hardware.set_rflags(2 | IF);
    // rep movsb
    assert_eq!(runs(&mut machine, &[0xf3, 0xa4], 0x2000), Next::Wait);
    let next = answer(&mut machine, request(0, 1, 0x2000, None), 0x61);
    assert_eq!((next, gpr(&machine, Gpr::Rcx)), (Next::Wait, 3));
    let _accepted = machine.vcpu.lapic.accept(0x41, Trigger::Edge);
    let next = answer(&mut machine, request(0, 1, 0x2001, None), 0x62);
    assert_eq!((next, gpr(&machine, Gpr::Rcx)), (Next::Enter, 2));
    assert_eq!(machine.hardware.rip(), CODE, "the rest is executed again");
    let mut text = [0; 3];
    assert!(machine.world.read(0x8000, &mut text));
    assert_eq!(&text, b"ab\0");
}

/// An interrupt status register, say, forgets what it has given.
#[test]
fn a_device_is_not_read_before_the_other_operand_has_come() {
    for (code, page) in [(&[0xa5][..], 8), (&[0xa5], 9), (&[0xa7], 8)] {
        let mut machine = with_device();
        // The second element of memory reaches into the next page.
        set(&mut machine, Gpr::Rdi, 0x8ffe);
        machine.world.absent.insert(page);
        let at = machine.hardware.rip();
        assert_eq!(runs(&mut machine, code, 0x1000), Next::Wait);
        assert!(!machine.vcpu.has_work(&mut machine.world));
        assert_eq!(machine.world.exchange.take(), None, "it was read");
        machine.world.absent.remove(&page);
        assert!(machine.vcpu.has_work(&mut machine.world));
        machine
            .vcpu
            .before_entry(&mut machine.hardware, &mut machine.world);
        assert_eq!(runs(&mut machine, code, 0x1000), Next::Wait);
        let next = answer(&mut machine, request(0, 4, 0x1000, None), 0x4433_2211);
        assert_eq!((next, machine.hardware.rip()), (Next::Enter, at + 1));
    }
}

#[test]
fn ins_is_asked_element_by_element() {
    let mut machine = with_device();
    set(&mut machine, Gpr::Rdi, 0x8000);
    set(&mut machine, Gpr::Rcx, 2);
    let exit = Exit::Port(PortAccess {
        port: PORTS + 4,
        width: Width::Word,
        input: true,
        string: true,
        repeat: true,
        length: bytes(2),
    });
    assert_eq!(machine.exit(exit), Next::Wait);
    let expected = request(3, 2, 4, None);
    assert_eq!(answer(&mut machine, expected, 0x2211), Next::Wait);
    assert_eq!(answer(&mut machine, expected, 0x4433), Next::Enter);
    assert_eq!(machine.world.read_u32(0x8000), Some(0x4433_2211));
    assert_eq!(
        (gpr(&machine, Gpr::Rcx), machine.hardware.rip()),
        (0, CODE + 2)
    );
}

#[test]
fn doorbells_do_not_wait() {
    let mut machine = with_device();
    // mov [rsi], ax
    let code = [0x66, 0x89, 0x06];
    assert_eq!(runs(&mut machine, &code, 0x3004), Next::Enter);
    assert_eq!(machine.hardware.rip(), CODE + 3);
    assert_eq!(machine.world.rung, [(SLOT, 1)]);
    // Behind the last one, and when read, it is a register like any other.
    assert_eq!(runs(&mut machine, &code, 0x3008), Next::Wait);
    let next = answer(&mut machine, request(0, 2, 0x3008, Some(0)), 0);
    assert_eq!(next, Next::Enter);
    assert_eq!(runs(&mut machine, &[0x8b, 0x06], 0x3000), Next::Wait);
    assert_eq!(machine.world.rung.len(), 1);
}

#[test]
fn a_removed_device_reads_as_all_ones() {
    let mut machine = with_device();
    assert_eq!(machine.exit(port(0, Width::Dword, true)), Next::Wait);
    assert!(machine.world.platform.remove_function(SLOT));
    assert!(!machine.world.exchange.abandon(SLOT + 1));
    assert!(machine.world.exchange.abandon(SLOT));
    assert!(!machine.world.exchange.complete(1), "it was answered");
    assert_eq!(resume(&mut machine), Next::Enter);
    assert_eq!(gpr(&machine, Gpr::Rax), 0xffff_ffff);
    // Memory that is gone in between still answers what was asked before.
    let mut machine = with_device();
    assert_eq!(runs(&mut machine, &[0x8b, 0x06], 0), Next::Wait);
    assert!(machine.world.exchange.abandon(SLOT));
    assert!(machine.world.platform.remove_function(SLOT));
    assert_eq!(resume(&mut machine), Next::Enter);
    assert_eq!(gpr(&machine, Gpr::Rax), 0xffff_ffff);
}

#[test]
fn what_is_not_answered_is_executed_again_elsewhere() {
    let mut machine = with_device();
    assert_eq!(machine.exit(port(0, Width::Byte, true)), Next::Wait);
    assert!(machine.world.exchange.take().is_some());
    let state = machine.hardware.save();
    assert_eq!(state.rip, CODE);
    let mut other = with_device();
    other.hardware.load(&state);
    assert_eq!(other.exit(port(0, Width::Byte, true)), Next::Wait);
    let next = answer(&mut other, request(3, 1, 0, None), 9);
    assert_eq!((next, gpr(&other, Gpr::Rax) & 0xff), (Next::Enter, 9));
    // Put into another state, the first waits for nothing, and the late answer finds nobody.
    machine.vcpu.forget_access(&machine.world);
    assert!(!machine.vcpu.awaits_answer());
    assert!(!machine.world.exchange.complete(1));
    assert_eq!(machine.exit(port(1, Width::Byte, true)), Next::Wait);
    let next = answer(&mut machine, request(3, 1, 1, None), 2);
    assert_eq!(next, Next::Enter);
}

#[test]
fn init_ends_the_wait() {
    let mut machine = with_device();
    assert_eq!(machine.exit(port(0, Width::Byte, true)), Next::Wait);
    let inbox = Inbox::new();
    inbox.post(Message::Init);
    let Machine {
        vcpu,
        hardware,
        world,
        ..
    } = &mut machine;
    let next = vcpu.attend(hardware, world, &inbox);
    assert!(
        matches!(next, Some(Next::End(ending)) if ending.reason == ShutdownReason::Reboot),
        "{next:?}"
    );
}

#[test]
fn another_instruction_than_the_one_that_asked_asks_for_itself() {
    let mut machine = with_device();
    assert_eq!(runs(&mut machine, &[0x8b, 0x06], 0), Next::Wait);
    assert!(machine.world.exchange.take().is_some());
    assert!(machine.world.exchange.complete(5));
    // Another vCPU has changed the code: mov al, [rsi].
    assert!(machine.world.write(CODE, &[0x8a, 0x06]));
    assert_eq!(resume(&mut machine), Next::Wait);
    let next = answer(&mut machine, request(0, 1, 0, None), 6);
    assert_eq!((next, gpr(&machine, Gpr::Rax) & 0xff), (Next::Enter, 6));
}

#[test]
fn a_new_dom0_takes_again_what_the_old_one_has_taken() {
    let mut machine = with_device();
    machine
        .hardware
        .set_segment(SegmentName::Es, Segment::new(8, 0, u32::MAX, 0xc093));
    assert!(!machine.world.exchange.put_back(), "nobody asks");
    assert_eq!(machine.exit(port(0, Width::Byte, true)), Next::Wait);
    assert!(!machine.world.exchange.complete(1), "nobody has taken it");
    let taken = machine.world.exchange.take();
    assert!(machine.world.exchange.put_back());
    assert_eq!(machine.world.exchange.take(), taken);
    assert!(machine.world.exchange.complete(3));
    assert!(!machine.world.exchange.put_back(), "it is answered");
    assert_eq!(resume(&mut machine), Next::Enter);
}
