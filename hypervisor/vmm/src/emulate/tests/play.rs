//! The interface as a run loop plays it: code in guest memory, behind the guest's own page tables,
//! with a device beside the RAM that answers late.

extern crate std;

use std::collections::BTreeMap;
use std::vec::Vec;

use super::{Memory, set_gprs, vcpu};
use crate::emulate::{Access, Bus, Ended, Kind, Mode, Undecodable, decode, run};
use crate::fake::FakeVcpu;
use crate::hardware::{Control, Gpr, SegmentName, SwitchedMsr, VcpuHardware};
use crate::walk::{GuestMemory, Intent, PageFault, Paging, translate};

const RAM_BYTES: u64 = 0x1_0000;
const DEVICE: u64 = 0xfee0_0000;
/// Linear addresses: RAM is mapped where it is; the device's page at 0x20_0000; the page after it
/// is not present.
const DEVICE_LINEAR: u64 = 0x20_0000;

struct Ram(core::cell::RefCell<Vec<u8>>);

impl GuestMemory for Ram {
    fn read(&self, gpa: u64, out: &mut [u8]) -> bool {
        let ram = self.0.borrow();
        let Some(bytes) = ram.get(gpa as usize..gpa as usize + out.len()) else {
            return false;
        };
        out.copy_from_slice(bytes);
        true
    }
    fn write(&self, gpa: u64, bytes: &[u8]) -> bool {
        let mut ram = self.0.borrow_mut();
        let Some(place) = ram.get_mut(gpa as usize..gpa as usize + bytes.len()) else {
            return false;
        };
        place.copy_from_slice(bytes);
        true
    }
}

#[derive(PartialEq, Eq, Debug)]
enum Stop {
    PageFault(u64, PageFault),
    /// The device was asked; come again with the answer.
    Awaited,
}

struct Host {
    ram: Ram,
    paging: Paging,
    registers: BTreeMap<u64, u64>,
    /// What the device was told and asked, in order.
    log: Vec<(Kind, u64, u8, u64)>,
    /// The answer to this element's read.
    answer: Option<u64>,
    late: bool,
}

impl Host {
    fn at(&self, access: Access) -> Result<u64, Stop> {
        let intent = Intent {
            write: access.kind != Kind::Read,
            user: false,
        };
        let gpa = |linear| {
            translate(&self.ram, &self.paging, linear, intent)
                .map_err(|fault| Stop::PageFault(linear, fault))
        };
        let (first, _, second) = access.parts();
        let gpa_first = gpa(first)?;
        if let Some((next, _)) = second {
            // Only neighbours are crossed here.
            let next = gpa(next)?;
            assert_eq!(next, (gpa_first | 0xfff) + 1);
        }
        Ok(gpa_first)
    }
}

impl Bus for Host {
    type Stop = Stop;

    fn read(&mut self, access: Access) -> Result<u64, Stop> {
        let gpa = self.at(access)?;
        let mut bytes = [0; 8];
        if gpa < RAM_BYTES {
            assert!(self.ram.read(gpa, &mut bytes[..access.bytes.into()]));
            return Ok(u64::from_le_bytes(bytes));
        }
        if let Some(answer) = self.answer {
            return Ok(answer);
        }
        let value = self
            .registers
            .get(&(gpa - DEVICE))
            .copied()
            .unwrap_or(u64::MAX);
        self.log
            .push((access.kind, gpa - DEVICE, access.bytes, value));
        if self.late {
            self.answer = Some(value);
            return Err(Stop::Awaited);
        }
        Ok(value)
    }

    fn write(&mut self, access: Access, value: u64) -> Result<(), Stop> {
        let gpa = self.at(access)?;
        if gpa < RAM_BYTES {
            assert!(
                self.ram
                    .write(gpa, &value.to_le_bytes()[..access.bytes.into()])
            );
        } else {
            self.log
                .push((access.kind, gpa - DEVICE, access.bytes, value));
            self.registers.insert(gpa - DEVICE, value);
        }
        self.answer = None;
        Ok(())
    }
}

/// Long mode, tables at 0x1000, code at 0x8000.
fn machine(code: &[u8], late: bool) -> (FakeVcpu, Host) {
    let ram = Ram(std::vec![0; RAM_BYTES as usize].into());
    let mut tables = Vec::from([
        (0x1000, 0x2003u64),
        (0x2000, 0x3003),
        (0x3000, 0x4003),
        (0x3008, 0x5003),
        (0x5000, DEVICE | 3),
    ]);
    tables.extend((0..16).map(|page| (0x4000 + page * 8, page << 12 | 3)));
    for (at, entry) in tables {
        assert!(ram.write(at, &entry.to_le_bytes()));
    }
    assert!(ram.write(0x8000, code));
    let mut vcpu = vcpu(Mode::Code64);
    vcpu.set_control(Control::Cr0, 0x8001_0011);
    vcpu.set_control(Control::Cr3, 0x1000);
    vcpu.set_control(Control::Cr4, 0x20);
    vcpu.set_rip(0x8000);
    let paging = Paging {
        cr0: vcpu.control(Control::Cr0),
        cr3: 0x1000,
        cr4: 0x20,
        efer: vcpu.msr(SwitchedMsr::Efer),
    };
    let host = Host {
        ram,
        paging,
        registers: BTreeMap::new(),
        log: Vec::new(),
        answer: None,
        late,
    };
    (vcpu, host)
}

/// Runs to the HLT, as the run loop does. Returns the number of exits.
fn play(vcpu: &mut FakeVcpu, host: &mut Host) -> Result<u32, Stop> {
    let mut exits = 0;
    loop {
        let mut code = [0; 15];
        assert_eq!(
            vcpu.segment(SegmentName::Cs).base & 0xfff,
            0,
            "64-bit code has no base"
        );
        assert!(host.ram.read(vcpu.rip(), &mut code));
        if code[0] == 0xf4 {
            return Ok(exits);
        }
        exits += 1;
        let instruction = decode(&code, Mode::of(vcpu)).expect("an instruction of the list");
        match run(&instruction, vcpu, host, 4) {
            Ended::Complete => {
                host.answer = None;
                vcpu.set_rip(vcpu.rip() + u64::from(instruction.length()));
            }
            Ended::Repeats | Ended::Stopped(Stop::Awaited) => {}
            Ended::Fault(fault) => panic!("{fault:?}"),
            Ended::Stopped(stop) => return Err(stop),
        }
    }
}

#[test]
fn a_driver_and_its_device() {
    let code = &[
        0xc7, 0x83, 0xf0, 0x00, 0x00, 0x00, 0xff, 0x01, 0x00,
        0x00, // mov dword [rbx+0f0h], 1ffh
        0x8b, 0x43, 0x30, // mov eax, [rbx+30h]
        0x87, 0x43, 0x40, // xchg [rbx+40h], eax
        0x80, 0x4b, 0x50, 0x80, // or byte [rbx+50h], 80h
        0x0f, 0xb6, 0x4b, 0x50, // movzx ecx, byte [rbx+50h]
        0xf4,
    ];
    for late in [false, true] {
        let (mut vcpu, mut host) = machine(code, late);
        host.registers
            .extend([(0x30, 0x50014), (0x40, 7), (0x50, 2)]);
        let mut gprs = [!0u64; 16];
        gprs[Gpr::Rbx as usize] = DEVICE_LINEAR;
        set_gprs(&mut vcpu, gprs);
        let exits = play(&mut vcpu, &mut host).expect("no fault");
        assert_eq!(exits, if late { 9 } else { 5 });
        assert_eq!(vcpu.rip(), 0x8000 + code.len() as u64 - 1);
        assert_eq!(vcpu.gprs()[Gpr::Rax as usize], 7);
        assert_eq!(vcpu.gprs()[Gpr::Rcx as usize], 0x82);
        // Every access once, whether answers are late or not.
        let expected = [
            (Kind::Write, 0xf0, 4, 0x1ff),
            (Kind::Read, 0x30, 4, 0x50014),
            (Kind::ReadForWrite, 0x40, 4, 7),
            (Kind::Write, 0x40, 4, 0x50014),
            (Kind::ReadForWrite, 0x50, 1, 2),
            (Kind::Write, 0x50, 1, 0x82),
            (Kind::Read, 0x50, 1, 0x82),
        ];
        assert_eq!(host.log, expected);
    }
}

#[test]
fn copies_from_device_to_ram_in_bounded_pieces() {
    let (mut vcpu, mut host) = machine(&[0xf3, 0xa5, 0xf4], false);
    host.registers
        .extend((0..10).map(|index| (index * 4, 0x1111_1111 * index)));
    let mut gprs = [0u64; 16];
    gprs[Gpr::Rsi as usize] = DEVICE_LINEAR;
    gprs[Gpr::Rdi as usize] = 0x9002;
    gprs[Gpr::Rcx as usize] = 10;
    set_gprs(&mut vcpu, gprs);
    assert_eq!(play(&mut vcpu, &mut host), Ok(3), "4 + 4 + 2 elements");
    assert_eq!(vcpu.gprs()[Gpr::Rcx as usize], 0);
    assert_eq!(vcpu.gprs()[Gpr::Rdi as usize], 0x9002 + 40);
    for index in 0..10 {
        assert_eq!(
            host.ram.read_u32(0x9002 + index * 4),
            Some(0x1111_1111 * index as u32)
        );
    }
    assert_eq!(host.log.len(), 10);
}

#[test]
fn a_page_fault_in_the_middle_keeps_what_is_done() {
    // The destination runs from the device's page into one that is not present.
    let (mut vcpu, mut host) = machine(&[0xf3, 0xa4, 0xf4], false);
    let mut gprs = [0u64; 16];
    gprs[Gpr::Rsi as usize] = 0x8000;
    gprs[Gpr::Rdi as usize] = DEVICE_LINEAR + 0xffe;
    gprs[Gpr::Rcx as usize] = 3;
    set_gprs(&mut vcpu, gprs);
    let fault = Stop::PageFault(DEVICE_LINEAR + 0x1000, PageFault { error_code: 2 });
    assert_eq!(play(&mut vcpu, &mut host), Err(fault));
    assert_eq!(vcpu.gprs()[Gpr::Rcx as usize], 1);
    assert_eq!(vcpu.gprs()[Gpr::Rsi as usize], 0x8002);
    assert_eq!(vcpu.rip(), 0x8000);
    assert_eq!(host.log.len(), 2);
}

#[test]
fn single_stepping_stops_after_every_element() {
    let mut vcpu = vcpu(Mode::Code32);
    vcpu.set_rflags(2 | 1 << 8);
    vcpu.gprs_mut()[Gpr::Rcx as usize] = 2;
    // rep stosb
    let instruction = decode(&[0xf3, 0xaa], Mode::Code32).expect("decodes");
    let mut memory = Memory::default();
    assert_eq!(
        run(&instruction, &mut vcpu, &mut memory, 100),
        Ended::Repeats
    );
    assert_eq!(
        run(&instruction, &mut vcpu, &mut memory, 100),
        Ended::Complete
    );
    assert_eq!(memory.written.len(), 2);
}

#[test]
fn refusals_have_names() {
    for (code, name) in [
        (&[0x66, 0x0f, 0x6f, 0x03][..], "SSE"),
        (&[0x0f, 0x10, 0x03], "SSE"),
        (&[0xc5, 0xf9, 0x6f, 0x03], "VEX"),
        (&[0xff, 0x33], "PUSH"),
        (&[0x8f, 0x03], "POP"),
        (&[0x0f, 0xc7, 0x0b], "CMPXCHG8B"),
        (&[0x48, 0x8b, 0x23], "RSP"),
        (&[0xd1, 0x23], "shift"),
        (&[0xf7, 0x23], "MUL"),
        (&[0x0f, 0x44, 0x03], "CMOV"),
        (&[0xdd, 0x03], "x87"),
    ] {
        let Err(Undecodable::Unsupported(reason)) = decode(code, Mode::Code64) else {
            panic!("{code:02x?}: {:?}", decode(code, Mode::Code64));
        };
        assert!(reason.contains(name), "{code:02x?}: {reason}");
    }
    // MOV to AH is no load of RSP, nor is a store from it.
    assert!(decode(&[0x8a, 0x23], Mode::Code64).is_ok());
    assert!(decode(&[0x48, 0x89, 0x23], Mode::Code64).is_ok());
}
