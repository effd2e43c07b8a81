//! IN, OUT, INS and OUTS.

use godwit_abi::ShutdownReason;

use super::exchange::Request;
use super::msr::is_canonical;
use super::{Ending, Next, Refused, Vcpu, World, advance, end, is_long_code, paging};
use crate::devices::pci::Route;
use crate::devices::ports::{Effect, PortResult, Width};
use crate::exit::{Exit, PortAccess};
use crate::hardware::{Control, Event, Gpr, SegmentName, VcpuHardware, vector};
use crate::walk::{self, Intent};

/// Elements of a repeated string access done before the vCPU goes back to the guest, where host
/// interrupts get their turn; RCX says how many are left.
const REPEAT_MAX: u64 = 256;
const RFLAGS_DF: u64 = 1 << 10;

impl Vcpu {
    #[inline]
    pub(super) fn port<H: VcpuHardware, W: World>(
        &mut self,
        hw: &mut H,
        world: &mut W,
        access: PortAccess,
    ) -> Next {
        if access.string {
            return self.string(hw, world, access);
        }
        let now = self.platform_tsc(world.host_tsc());
        if access.input {
            let result = match self.read_port(world, &access, now) {
                Ok(result) => result,
                Err(request) => return self.await_answer(world, Exit::Port(access), request),
            };
            if result.effect != Effect::None
                && let Some(ending) = self.port_effect(world, access.port, result.effect)
            {
                return Next::End(ending);
            }
            set_result(hw, access.width, result.value);
        } else {
            let value = hw.gprs()[Gpr::Rax as usize] as u32 & access.width.all_ones();
            let effect = match self.write_port(world, &access, value, now) {
                Ok(effect) => effect,
                Err(request) => return self.await_answer(world, Exit::Port(access), request),
            };
            if effect != Effect::None
                && let Some(ending) = self.port_effect(world, access.port, effect)
            {
                return Next::End(ending);
            }
        }
        self.end_port(hw, access)
    }

    /// dom0 has answered an IN or OUT, which is one access and is thereby done.
    pub(super) fn port_answered<H: VcpuHardware>(
        &mut self,
        hw: &mut H,
        access: PortAccess,
        answer: u64,
    ) -> Next {
        if access.input {
            set_result(hw, access.width, answer as u32 & access.width.all_ones());
        }
        self.end_port(hw, access)
    }

    #[inline]
    fn end_port<H: VcpuHardware>(&mut self, hw: &mut H, access: PortAccess) -> Next {
        self.forwarded.commit();
        match access.length {
            Some(length) => {
                advance(hw, length.get());
                Next::Enter
            }
            // Both vendors say how long an I/O instruction is.
            None => end(ShutdownReason::BadInstruction, hw.rip()),
        }
    }

    /// `Err`: dom0 has to be asked.
    #[inline]
    fn read_port<W: World>(
        &mut self,
        world: &mut W,
        access: &PortAccess,
        now: u64,
    ) -> Result<PortResult, Request> {
        let PortAccess { port, width, .. } = *access;
        let local = world.platform(|platform| match platform.forwarded_port(port) {
            None => Ok(platform.read(port, width, now)),
            Some(route) => Err(route.target()),
        });
        local.or_else(|target| {
            let request = Request::new(target, width as u8, None);
            let value = self.forwarded.answer(&request).ok_or(request)?;
            Ok(PortResult {
                value: value as u32 & width.all_ones(),
                effect: Effect::None,
            })
        })
    }

    /// `Err`: dom0 has to be asked.
    #[inline]
    fn write_port<W: World>(
        &mut self,
        world: &mut W,
        access: &PortAccess,
        value: u32,
        now: u64,
    ) -> Result<Effect, Request> {
        let PortAccess { port, width, .. } = *access;
        let local = world.platform(|platform| match platform.forwarded_port(port) {
            None => Ok(platform.write(port, width, value, now)),
            Some(route) => Err(route),
        });
        local.or_else(|route| match route {
            Route::Doorbell { target, doorbell } => {
                world.ring(target.slot, doorbell);
                Ok(Effect::None)
            }
            Route::Device(target) => {
                let request = Request::new(target, width as u8, Some(value.into()));
                self.forwarded.answer(&request).ok_or(request)?;
                Ok(Effect::None)
            }
        })
    }

    fn port_effect<W: World>(
        &mut self,
        world: &mut W,
        port: u16,
        effect: Effect,
    ) -> Option<Ending> {
        match effect {
            Effect::None => None,
            Effect::InterruptChanged => {
                self.platform_changed();
                None
            }
            Effect::Unclaimed => {
                world.refused(Refused::Port(port));
                None
            }
            Effect::ConsoleOutput => {
                world.console_output();
                None
            }
            Effect::SerialOutput => {
                self.platform_changed();
                world.console_output();
                None
            }
            Effect::UnsupportedSleep { sleep_type } => {
                // The gravest effect hides the others.
                self.platform_changed();
                world.refused(Refused::Sleep(sleep_type));
                None
            }
            Effect::Reset => Some(Ending {
                reason: ShutdownReason::Reboot,
                detail: 0,
            }),
            Effect::PowerOff => Some(Ending {
                reason: ShutdownReason::PowerOff,
                detail: 0,
            }),
        }
    }

    /// INS and OUTS. OUTS reads from DS:RSI (segment overrides are not decoded: FS and GS bases are
    /// honoured by no known guest here, and an override is rare enough to be named in the status
    /// page), INS writes to ES:RDI.
    fn string<H: VcpuHardware, W: World>(
        &mut self,
        hw: &mut H,
        world: &mut W,
        access: PortAccess,
    ) -> Next {
        let Some(length) = access.length else {
            return end(ShutdownReason::BadInstruction, hw.rip());
        };
        let long = is_long_code(hw);
        let address_mask = if long { u64::MAX } else { address_mask(hw) };
        let (pointer, segment) = if access.input {
            (Gpr::Rdi, SegmentName::Es)
        } else {
            (Gpr::Rsi, SegmentName::Ds)
        };
        let base = if long { 0 } else { hw.segment(segment).base };
        let wrap = if long { u64::MAX } else { 0xffff_ffff };
        let step = (access.width as u64).wrapping_mul(if hw.rflags() & RFLAGS_DF != 0 {
            u64::MAX
        } else {
            1
        });
        let mut left = if access.repeat {
            hw.gprs()[Gpr::Rcx as usize] & address_mask
        } else {
            1
        };
        let mut budget = REPEAT_MAX;
        let mut ending = None;
        while left > 0 && budget > 0 && ending.is_none() {
            let offset = hw.gprs()[pointer as usize];
            let linear = base.wrapping_add(offset & address_mask) & wrap;
            if long
                && !(is_canonical(linear)
                    && is_canonical(linear.wrapping_add(access.width as u64 - 1)))
            {
                return self.inject(hw, Event::GENERAL_PROTECTION);
            }
            match self.string_element(hw, world, &access, linear) {
                Ok(found) => ending = found,
                Err(_) if world.missed() => return self.starve(),
                Err(fault) => return fault,
            }
            let moved = offset.wrapping_add(step);
            hw.gprs_mut()[pointer as usize] = offset & !address_mask | moved & address_mask;
            left -= 1;
            budget -= 1;
            if access.repeat {
                let rcx = &mut hw.gprs_mut()[Gpr::Rcx as usize];
                *rcx = *rcx & !address_mask | left & address_mask;
            }
            // Interrupts that came while dom0 was asked are not to wait for the rest.
            if self.forwarded.commit() && self.interrupt_requested() {
                break;
            }
        }
        if left == 0 {
            advance(hw, length.get());
        }
        ending.map_or(Next::Enter, Next::End)
    }

    /// Where in guest-physical memory an element lies: its parts in one page or two, the second one empty
    /// or not.
    fn string_parts<H: VcpuHardware, W: World>(
        &mut self,
        hw: &mut H,
        world: &mut W,
        access: &PortAccess,
        linear: u64,
    ) -> Result<[(u64, usize); 2], Next> {
        let bytes = access.width as usize;
        let user = hw.segment(SegmentName::Ss).dpl() == 3;
        let intent = Intent {
            write: access.input,
            user,
        };
        let mut parts = [(0u64, 0usize); 2];
        let first = (4096 - (linear & 4095) as usize).min(bytes);
        for (index, (at, count)) in [(0, first), (first, bytes - first)].into_iter().enumerate() {
            if count == 0 {
                continue;
            }
            let address = linear.wrapping_add(at as u64);
            let address = match is_long_code(hw) {
                true => address,
                false => address & 0xffff_ffff,
            };
            let gpa = match walk::translate(world, &paging(hw), address, intent) {
                Ok(gpa) => gpa,
                Err(_) if world.missed() => return Err(self.starve()),
                Err(fault) => {
                    // A page fault on its way already keeps its address.
                    if !hw.event_pending() {
                        hw.set_control(Control::Cr2, address);
                    }
                    let code = Some(fault.error_code);
                    return Err(self.inject(hw, Event::Exception(vector::PAGE_FAULT, code)));
                }
            };
            parts[index] = (gpa, count);
        }
        Ok(parts)
    }

    fn string_element<H: VcpuHardware, W: World>(
        &mut self,
        hw: &mut H,
        world: &mut W,
        access: &PortAccess,
        linear: u64,
    ) -> Result<Option<Ending>, Next> {
        let parts = self.string_parts(hw, world, access, linear)?;
        let now = self.platform_tsc(world.host_tsc());
        let missing = |gpa| end(ShutdownReason::BadMemory, gpa);
        if access.input {
            // Before the device is asked, which forgets what it has given.
            for (gpa, count) in parts {
                if !world.read(gpa, &mut [0; 4][..count]) {
                    return Err(missing(gpa));
                }
            }
            let result = self
                .read_port(world, access, now)
                .map_err(|request| self.await_answer(world, Exit::Port(*access), request))?;
            let ending = self.port_effect(world, access.port, result.effect);
            let value = result.value.to_le_bytes();
            let mut at = 0;
            for (gpa, count) in parts {
                if !world.write(gpa, &value[at..at + count]) {
                    return Err(missing(gpa));
                }
                at += count;
            }
            return Ok(ending);
        }
        let mut value = [0; 4];
        let mut at = 0;
        for (gpa, count) in parts {
            if !world.read(gpa, &mut value[at..at + count]) {
                return Err(missing(gpa));
            }
            at += count;
        }
        let value = u32::from_le_bytes(value);
        let effect = self
            .write_port(world, access, value, now)
            .map_err(|request| self.await_answer(world, Exit::Port(*access), request))?;
        Ok(self.port_effect(world, access.port, effect))
    }
}

/// IN to AL and AX keeps the rest of RAX; IN to EAX clears its upper half.
#[inline]
fn set_result<H: VcpuHardware>(hw: &mut H, width: Width, value: u32) {
    let rax = &mut hw.gprs_mut()[Gpr::Rax as usize];
    *rax = match width {
        Width::Byte => *rax & !0xff | u64::from(value),
        Width::Word => *rax & !0xffff | u64::from(value),
        Width::Dword => value.into(),
    };
}

/// Bits of an address outside 64-bit code: CS.D, without address-size prefixes.
fn address_mask<H: VcpuHardware>(hw: &H) -> u64 {
    use godwit_records::Segment;
    if hw.segment(SegmentName::Cs).attributes & Segment::BIG != 0 {
        0xffff_ffff
    } else {
        0xffff
    }
}
