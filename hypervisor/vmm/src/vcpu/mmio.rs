//! Memory-mapped devices: a nested page fault where no RAM is.
//!
//! The page fault says where, not what: the instruction is fetched, decoded and executed by
//! [`crate::emulate`], access by access, against the guest's page tables. An access goes to the
//! local APIC's page (in xAPIC mode), to RAM, to a device of the platform, or to one that dom0 serves
//! ([`super::forward`]); or there is nothing: then the domain has touched memory that does not exist and
//! ends.

use godwit_abi::ShutdownReason;

use super::exchange::Request;
use super::{Ending, Next, Vcpu, World, advance, end, fetch, paging};
use crate::code::INSTRUCTION_BYTES_MAX;
use crate::devices::lapic::ApicMode;
use crate::devices::pci::{Route, Target};
use crate::devices::ports::{Effect, Width};
use crate::emulate::{self, Access, Bus, Ended, Kind, Mode, Undecodable};
use crate::exit::{Exit, NestedFault};
use crate::hardware::{Control, Event, SegmentName, VcpuHardware, vector};
use crate::walk::{self, Intent, Paging};

/// Elements of a repeated instruction done before host interrupts get their turn.
const ELEMENTS_MAX: u32 = 256;
const APIC_PAGE_BYTES: u64 = 4096;

/// Why an access was not made.
enum Stop {
    /// The guest's own page fault.
    PageFault { linear: u64, error_code: u32 },
    /// There is nothing at this guest-physical address.
    Nothing(u64),
    /// The page there has not come; it is noted.
    Absent,
    /// dom0 has to answer this first.
    Forward(Request),
}

/// What a guest-physical access reaches.
struct GuestBus<'a, W: World> {
    vcpu: &'a mut Vcpu,
    world: &'a mut W,
    paging: Paging,
    user: bool,
}

impl Vcpu {
    /// Offset in the local APIC's page, where it is mapped.
    fn apic_offset(&self, gpa: u64) -> Option<u32> {
        const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
        let base = self.lapic.base() & ADDRESS;
        let mapped =
            self.lapic.mode() == ApicMode::XApic && (base..base + APIC_PAGE_BYTES).contains(&gpa);
        mapped.then(|| (gpa - base) as u32)
    }

    /// A nested page fault where no memory is: a device, or nothing.
    #[cold]
    pub(super) fn nested<H: VcpuHardware, W: World>(
        &mut self,
        hw: &mut H,
        world: &mut W,
        fault: NestedFault,
    ) -> Next {
        if fault.fetch {
            return end(ShutdownReason::BadMemory, fault.gpa);
        }
        let mut bytes = [0; INSTRUCTION_BYTES_MAX];
        let count = fetch(hw, world, &mut bytes);
        if count == 0 && world.missed() {
            return self.starve();
        }
        let instruction = match emulate::decode(&bytes[..count], Mode::of(hw)) {
            Ok(instruction) => instruction,
            // The guest has changed its code, or its page tables, since the exit: let the CPU see.
            Err(Undecodable::NoMemory | Undecodable::Truncated) => return Next::Enter,
            Err(Undecodable::TooLong) => return self.inject(hw, Event::GENERAL_PROTECTION),
            Err(Undecodable::Invalid) => return self.inject(hw, Event::INVALID_OPCODE),
            Err(Undecodable::Unsupported(_)) => {
                return end(ShutdownReason::BadInstruction, hw.rip());
            }
        };
        let (paging, user) = (paging(hw), hw.segment(SegmentName::Ss).dpl() == 3);
        let mut bus = GuestBus {
            vcpu: self,
            world,
            paging,
            user,
        };
        let ended = emulate::run(&instruction, hw, &mut bus, ELEMENTS_MAX);
        if let Ended::Stopped(Stop::Forward(request)) = ended {
            return self.await_answer(world, Exit::Nested(fault), request);
        }
        let is_starved = match ended {
            Ended::Stopped(Stop::Absent) => true,
            Ended::Stopped(Stop::PageFault { .. } | Stop::Nothing(_)) => world.missed(),
            Ended::Stopped(Stop::Forward(_))
            | Ended::Complete
            | Ended::Repeats
            | Ended::Fault(_) => false,
        };
        if is_starved {
            return self.starve();
        }
        self.forwarded.commit();
        match ended {
            Ended::Complete => {
                advance(hw, instruction.length());
                self.after_write(hw, world)
            }
            Ended::Repeats => Next::Enter,
            Ended::Fault(fault) => self.inject(hw, fault.event()),
            Ended::Stopped(Stop::PageFault { linear, error_code }) => {
                if !hw.event_pending() {
                    hw.set_control(Control::Cr2, linear);
                }
                self.inject(hw, Event::Exception(vector::PAGE_FAULT, Some(error_code)))
            }
            Ended::Stopped(Stop::Forward(_) | Stop::Absent) => unreachable!("returned above"),
            Ended::Stopped(Stop::Nothing(gpa)) => Next::End(Ending {
                reason: ShutdownReason::BadMemory,
                detail: gpa,
            }),
        }
    }

    /// A write to the APIC may have sent INIT to this very vCPU.
    fn after_write<H: VcpuHardware, W: World>(&mut self, hw: &mut H, world: &mut W) -> Next {
        if self.init_pending {
            return self.take_init(hw, world);
        }
        Next::Enter
    }
}

impl<W: World> GuestBus<'_, W> {
    fn translate(&self, linear: u64, write: bool) -> Result<u64, Stop> {
        let intent = Intent {
            write,
            user: self.user,
        };
        walk::translate(self.world, &self.paging, linear, intent).map_err(|fault| Stop::PageFault {
            linear,
            error_code: fault.error_code,
        })
    }

    fn read_part(&mut self, gpa: u64, out: &mut [u8]) -> Result<(), Stop> {
        if let Some(offset) = self.vcpu.apic_offset(gpa) {
            let now = self.vcpu.guest_tsc(self.world.host_tsc());
            // Registers are 32 bits wide, 16 bytes apart; narrower reads see a part (SDM 3A 11.4.1).
            let value = self.vcpu.lapic.mmio_read(offset & !3, now).to_le_bytes();
            let from = (offset & 3) as usize;
            for (index, byte) in out.iter_mut().enumerate() {
                *byte = value.get(from + index).copied().unwrap_or(0);
            }
            return Ok(());
        }
        if self.world.read(gpa, out) {
            return Ok(());
        }
        if let Some(route) = self.route(gpa) {
            return self.read_forwarded(route.target(), out);
        }
        let now = self.vcpu.platform_tsc(self.world.host_tsc());
        for (index, part) in out.chunks_mut(4).enumerate() {
            let gpa = gpa + 4 * index as u64;
            let width = Width::from_bytes(part.len() as u8).ok_or(Stop::Nothing(gpa))?;
            let value = self
                .world
                .platform(|platform| platform.mmio_read(gpa, width, now));
            let value = match value {
                Some(value) => value,
                // The device has gone away while it was asked.
                None if self.vcpu.forwarded.skip() => width.all_ones(),
                None => return Err(Stop::Nothing(gpa)),
            };
            part.copy_from_slice(&value.to_le_bytes()[..part.len()]);
        }
        Ok(())
    }

    fn write_part(&mut self, gpa: u64, bytes: &[u8]) -> Result<(), Stop> {
        if let Some(offset) = self.vcpu.apic_offset(gpa) {
            // Only whole registers can be written.
            if let ([a, b, c, d], 0) = (bytes, offset & 3) {
                let now = self.vcpu.guest_tsc(self.world.host_tsc());
                let value = u32::from_le_bytes([*a, *b, *c, *d]);
                let effect = self.vcpu.lapic.mmio_write(offset, value, now);
                self.vcpu.apply(self.world, effect);
            }
            return Ok(());
        }
        if self.world.write(gpa, bytes) {
            return Ok(());
        }
        match self.route(gpa) {
            Some(Route::Doorbell { target, doorbell }) => {
                self.world.ring(target.slot, doorbell);
                return Ok(());
            }
            Some(Route::Device(target)) => return self.write_forwarded(target, bytes),
            None => {}
        }
        let now = self.vcpu.platform_tsc(self.world.host_tsc());
        for (index, part) in bytes.chunks(4).enumerate() {
            let gpa = gpa + 4 * index as u64;
            let width = Width::from_bytes(part.len() as u8).ok_or(Stop::Nothing(gpa))?;
            let mut value = [0; 4];
            value[..part.len()].copy_from_slice(part);
            let value = u32::from_le_bytes(value);
            let effect = self
                .world
                .platform(|platform| platform.mmio_write(gpa, width, value, now));
            let effect = match effect {
                Some(effect) => effect,
                None if self.vcpu.forwarded.skip() => Effect::None,
                None => return Err(Stop::Nothing(gpa)),
            };
            if effect != Effect::None {
                self.vcpu.platform_changed();
            }
        }
        Ok(())
    }
}

/// Devices that dom0 serves.
impl<W: World> GuestBus<'_, W> {
    fn route(&mut self, gpa: u64) -> Option<Route> {
        self.world
            .platform(|platform| platform.forwarded_memory(gpa))
    }

    fn forward(&mut self, target: Target, width: usize, write: Option<u64>) -> Result<u64, Stop> {
        let request = Request::new(target, width as u8, write);
        let answer = self.vcpu.forwarded.answer(&request);
        answer.ok_or(Stop::Forward(request))
    }

    fn read_forwarded(&mut self, mut target: Target, out: &mut [u8]) -> Result<(), Stop> {
        let mut rest = out;
        while !rest.is_empty() {
            let (part, behind) = rest.split_at_mut(1 << rest.len().ilog2());
            let value = self.forward(target, part.len(), None)?;
            part.copy_from_slice(&value.to_le_bytes()[..part.len()]);
            target.offset += part.len() as u64;
            rest = behind;
        }
        Ok(())
    }

    fn write_forwarded(&mut self, mut target: Target, bytes: &[u8]) -> Result<(), Stop> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let (part, behind) = rest.split_at(1 << rest.len().ilog2());
            let mut value = [0; 8];
            value[..part.len()].copy_from_slice(part);
            self.forward(target, part.len(), Some(u64::from_le_bytes(value)))?;
            target.offset += part.len() as u64;
            rest = behind;
        }
        Ok(())
    }
}

impl<W: World> Bus for GuestBus<'_, W> {
    type Stop = Stop;

    fn reach(&mut self, access: Access) -> Result<(), Stop> {
        let (linear, _, rest) = access.parts();
        let write = access.kind != Kind::Read;
        for linear in [Some(linear), rest.map(|(linear, _)| linear)] {
            let Some(linear) = linear else { continue };
            let gpa = self.translate(linear, write)?;
            // A device's page cannot be read either, but is not absent.
            if !self.world.read(gpa, &mut [0]) && self.world.missed() {
                return Err(Stop::Absent);
            }
        }
        Ok(())
    }

    fn read(&mut self, access: Access) -> Result<u64, Stop> {
        let write = access.kind == Kind::ReadForWrite;
        let (linear, count, rest) = access.parts();
        let first = self.translate(linear, write)?;
        let second = match rest {
            Some((linear, _)) => Some(self.translate(linear, write)?),
            None => None,
        };
        let mut bytes = [0; 8];
        self.read_part(first, &mut bytes[..usize::from(count)])?;
        if let (Some(gpa), Some((_, more))) = (second, rest) {
            self.read_part(
                gpa,
                &mut bytes[usize::from(count)..usize::from(count + more)],
            )?;
        }
        Ok(u64::from_le_bytes(bytes))
    }

    fn write(&mut self, access: Access, value: u64) -> Result<(), Stop> {
        let (linear, count, rest) = access.parts();
        let first = self.translate(linear, true)?;
        let second = match rest {
            Some((linear, _)) => Some(self.translate(linear, true)?),
            None => None,
        };
        let bytes = value.to_le_bytes();
        self.write_part(first, &bytes[..usize::from(count)])?;
        if let (Some(gpa), Some((_, more))) = (second, rest) {
            self.write_part(gpa, &bytes[usize::from(count)..usize::from(count + more)])?;
        }
        Ok(())
    }

    /// Interrupts that came while dom0 was asked are not to wait for the rest of a long string.
    fn committed(&mut self) -> bool {
        !(self.vcpu.forwarded.commit() && self.vcpu.interrupt_requested())
    }
}
