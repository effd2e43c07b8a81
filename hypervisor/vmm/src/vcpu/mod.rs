//! What happens to a vCPU between an exit and the next entry.
//!
//! ```text
//! exit -> Vcpu::handle(exit) -> Next          decide, by kind of exit (the fast ones inline)
//! Next::Enter -> Vcpu::before_entry(...)      the one common tail: interrupts, windows
//! ```
//!
//! The hardware is behind [`VcpuHardware`], the domain and the host behind [`World`]; both are
//! generic, so that on each vendor this becomes straight code. Handling an exit allocates nothing
//! and, for CPUID, MSRs, HLT and ports without a device, takes no lock.

mod absent;
mod call;
mod clock;
mod control;
mod dirty;
mod entry;
mod exchange;
mod forward;
mod inbox;
mod mmio;
mod msr;
mod port;
mod saved;
#[cfg(test)]
mod tests;

use godwit_abi::{Access, Answer, MAX_ARGUMENTS, ShutdownReason};

pub use dirty::{BURST_NS, Quota};
pub use exchange::{Exchange, Request};
pub use inbox::{Inbox, Message};

use crate::code::{self, Opcode};
use crate::cpuid::{Policy, Viewer};
use crate::devices::lapic::{Address, Ipi, Lapic, Trigger};
use crate::devices::ports::Platform;
use crate::exit::{Exit, Length};
use crate::hardware::{Control, Event, Gpr, SegmentName, SwitchedMsr, VcpuHardware, vector};
use crate::walk::{self, GuestMemory, Intent, Paging};
use entry::{PicLine, Running};
use forward::Forwarded;

/// How a domain has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ending {
    /// Why.
    pub reason: ShutdownReason,
    /// Guest-physical address, RIP or exit number, see [`ShutdownReason`].
    pub detail: u64,
}

/// What is to happen with the vCPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// Enter it again.
    Enter,
    /// Let host interrupts in, then enter it again or run another.
    Interrupted,
    /// It waits for an event, at the latest until its timer.
    Wait,
    /// It gives up its CPU for now.
    Yield,
    /// Its domain has ended.
    End(Ending),
}

/// What a vCPU needs from its domain and from the host.
pub trait World: GuestMemory {
    /// The host's TSC.
    fn host_tsc(&self) -> u64;
    /// Works with the domain's port devices.
    fn platform<R>(&mut self, action: impl FnOnce(&mut Platform) -> R) -> R;
    /// The domain's CPUID policy.
    fn policy(&self) -> &Policy;
    /// Makes a hypercall.
    fn hypercall(&mut self, access: Access, number: u64, arguments: [u64; MAX_ARGUMENTS])
    -> Answer;
    /// Sends a message to those of the domain's other vCPUs that it addresses. IPIs are edges; a
    /// device's interrupt may be a level.
    fn send_ipi(&mut self, ipi: Ipi, trigger: Trigger);
    /// The vCPU that watches the platform, the bootstrap one, is to look at it again: posts
    /// [`Message::PlatformChanged`] to it.
    fn wake_watcher(&mut self);
    /// A write was refused to the guest where something is mapped. If that was for dirty tracking, the page is dirty and
    /// writable from now on. Whether the guest tries again.
    fn write_fault(&mut self, gpa: u64) -> bool;
    /// A guest-physical access found no present page. What is there; an absent page is noted as the one that this vCPU
    /// stands at, and dom0 finds it.
    fn contents(&mut self, gpa: u64) -> Contents;
    /// Whether a read or write of guest memory has failed at an absent page since this was asked last. The page is noted, too.
    fn missed(&mut self) -> bool;
    /// Whether the contents of the page noted last have come.
    fn has_come(&self) -> bool;
    /// The processor has logged writes to pages in the naturally aligned 2 MiB around this address, and set their dirty bits.
    fn logged_write(&mut self, gpa: u64);
    /// How fast each vCPU may make pages dirty.
    fn write_quota(&self) -> Option<Quota>;
    /// Where this vCPU asks dom0.
    fn exchange(&self) -> &Exchange;
    /// This vCPU has asked dom0 something: dom0 is to be told.
    fn asked(&mut self);
    /// A doorbell of the device in a slot was rung.
    fn ring(&mut self, slot: u8, doorbell: u8);
    /// This vCPU's APIC is addressed by other messages than before.
    fn apic_moved(&mut self, address: Address);
    /// XCR0 as loaded now.
    fn xcr0(&self) -> u64;
    /// Loads a checked XCR0.
    fn set_xcr0(&mut self, value: u64);
    /// Somebody may want to read the debug console.
    fn console_output(&mut self);
    /// Something was refused by name: counted, and logged at most now and then.
    fn refused(&mut self, what: Refused);
}

/// What is behind a guest-physical address that a vCPU could not reach.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Contents {
    /// Memory whose contents are still on another host.
    Absent,
    /// Memory whose contents have come meanwhile.
    Here,
    /// No memory.
    Nothing,
}

/// Something no part of the hypervisor answers for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// RDMSR of this MSR: #GP.
    ReadMsr(u32),
    /// WRMSR to this MSR: #GP.
    WriteMsr(u32, u64),
    /// A port without a device: reads all ones, writes go nowhere.
    Port(u16),
    /// A hypercall with this number: unknown, or not for this domain.
    Hypercall(u64),
    /// A sleeping state that is not offered.
    Sleep(u8),
    /// A system-management interrupt: dropped.
    Smi,
}

/// The part of a vCPU that is not hardware.
pub struct Vcpu {
    /// Local APIC.
    pub lapic: Lapic,
    /// Whether it may make privileged hypercalls.
    pub access: Access,
    /// Added to the host's TSC: the guest's.
    pub tsc_offset: u64,
    /// Added to the host's TSC: platform time.
    platform_offset: u64,
    /// IA32_TSC_ADJUST.
    tsc_adjust: u64,
    /// An NMI waits for the guest to take it.
    nmi_pending: bool,
    /// An INIT has come and is carried out after the instruction.
    init_pending: bool,
    /// A start-up IPI came with it.
    startup_after_init: Option<u8>,
    /// The back end was asked for an interrupt window.
    window_open: bool,
    running: Running,
    pic: PicLine,
    /// Platform time at which the PIC may request something by itself, all ones for never.
    platform_deadline: u64,
    /// Host TSC at which the local APIC's timer is due, all ones for never.
    apic_due_host_tsc: u64,
    /// Host TSC of `platform_deadline`.
    platform_due_host_tsc: u64,
    mtrr: msr::Mtrrs,
    forwarded: Forwarded,
    /// Host TSC up to which the pages it made dirty use up its quota.
    paid_until: u64,
    /// It sleeps until then.
    stalled: bool,
    /// It sleeps until the page noted by its world has come.
    starved: bool,
    /// The hypercall it makes waits.
    blocked_call: Option<Length>,
}

impl Vcpu {
    /// A vCPU with this local APIC.
    pub fn new(lapic: Lapic, access: Access, tsc_offset: u64) -> Self {
        let running = if lapic.is_bootstrap() {
            Running::Yes
        } else {
            Running::WaitForStartup
        };
        Self {
            lapic,
            access,
            tsc_offset,
            platform_offset: tsc_offset,
            tsc_adjust: 0,
            nmi_pending: false,
            init_pending: false,
            startup_after_init: None,
            window_open: false,
            running,
            pic: PicLine::Unknown,
            platform_deadline: u64::MAX,
            apic_due_host_tsc: u64::MAX,
            platform_due_host_tsc: u64::MAX,
            mtrr: msr::Mtrrs::default(),
            forwarded: Forwarded::default(),
            paid_until: 0,
            stalled: false,
            starved: false,
            blocked_call: None,
        }
    }

    /// The guest's TSC at a host TSC.
    #[inline]
    pub fn guest_tsc(&self, host_tsc: u64) -> u64 {
        host_tsc.wrapping_add(self.tsc_offset)
    }

    /// The domain's platform time at a host TSC: the guest's TSC as it would be had the guest never
    /// moved it, so that moving it does not move the platform's timers.
    #[inline]
    fn platform_tsc(&self, host_tsc: u64) -> u64 {
        host_tsc.wrapping_add(self.platform_offset)
    }

    /// Does what the exit asks for.
    #[inline]
    pub fn handle<H: VcpuHardware, W: World>(
        &mut self,
        hw: &mut H,
        world: &mut W,
        exit: Exit,
    ) -> Next {
        if let Some(priority) = hw.virtual_tpr()
            && u64::from(priority) != self.lapic.cr8()
        {
            self.lapic.set_cr8(priority.into());
        }
        match exit {
            Exit::Cpuid(length) => {
                let viewer = Viewer {
                    apic_id: self.lapic.id(),
                    cr4: hw.control(Control::Cr4),
                    xcr0: world.xcr0(),
                };
                let gprs = hw.gprs();
                let (leaf, subleaf) = (
                    gprs[Gpr::Rax as usize] as u32,
                    gprs[Gpr::Rcx as usize] as u32,
                );
                let answer = world.policy().answer(leaf, subleaf, &viewer);
                let gprs = hw.gprs_mut();
                gprs[Gpr::Rax as usize] = answer.eax.into();
                gprs[Gpr::Rbx as usize] = answer.ebx.into();
                gprs[Gpr::Rcx as usize] = answer.ecx.into();
                gprs[Gpr::Rdx as usize] = answer.edx.into();
                self.step_over(hw, world, length, Opcode::Cpuid)
            }
            Exit::Hypercall(length) => self.hypercall(hw, world, length),
            Exit::Port(access) => self.port(hw, world, access),
            Exit::Rdmsr(length) => self.read_msr(hw, world, length),
            Exit::Wrmsr(length) => self.write_msr(hw, world, length),
            Exit::Hlt(length) => match self.step_over(hw, world, length, Opcode::Hlt) {
                // The trap of a single step ends HLT at once.
                Next::Enter if hw.rflags() & RFLAGS_TF != 0 => Next::Enter,
                Next::Enter => {
                    if hw.rflags() & RFLAGS_IF == 0 {
                        self.running = Running::HaltedMasked;
                    }
                    Next::Wait
                }
                other => other,
            },
            Exit::HostInterrupt | Exit::HostNmi => Next::Interrupted,
            Exit::Deadline => Next::Interrupted,
            Exit::InterruptWindow => {
                self.window_open = false;
                hw.set_interrupt_window(false);
                Next::Enter
            }
            Exit::NmiWindow => {
                hw.set_nmi_window(false);
                Next::Enter
            }
            Exit::Nested(fault) => self.nested_fault(hw, world, fault),
            rare => self.rare(hw, world, rare),
        }
    }

    #[cold]
    fn rare<H: VcpuHardware, W: World>(&mut self, hw: &mut H, world: &mut W, exit: Exit) -> Next {
        match exit {
            Exit::Control(access, length) => self.control(hw, world, access, length),
            Exit::Xsetbv(length) => self.xsetbv(hw, world, length),
            // Guests see coherent caches; flushing the host's for them would stall everybody.
            Exit::CacheFlush(length) => {
                self.step_over_either(hw, world, length, Opcode::Wbinvd, Opcode::Invd)
            }
            Exit::Pause(length) => match self.step_over(hw, world, length, Opcode::Pause) {
                Next::Enter => Next::Yield,
                other => other,
            },
            Exit::Forbidden => self.inject(hw, Event::INVALID_OPCODE),
            Exit::Exception(vector::MACHINE_CHECK, _) => {
                panic!(
                    "machine check while a guest ran, at guest RIP {:#x}",
                    hw.rip()
                )
            }
            Exit::Exception(vector, error) => self.inject(hw, Event::Exception(vector, error)),
            Exit::TripleFault => end(ShutdownReason::TripleFault, hw.rip()),
            Exit::Startup => Next::Enter,
            Exit::TaskSwitch => end(ShutdownReason::BadInstruction, hw.rip()),
            Exit::NestedMisconfigured { gpa } => {
                panic!("nested tables misconfigured at guest address {gpa:#x}")
            }
            Exit::DirtyLogFull => self.log_full(hw, world),
            Exit::EntryFailed { .. } => end(ShutdownReason::EntryFailed, hw.rip()),
            Exit::Unknown { code, .. } => end(ShutdownReason::UnknownExit, code),
            Exit::Cpuid(_)
            | Exit::Hypercall(_)
            | Exit::Port(_)
            | Exit::Rdmsr(_)
            | Exit::Wrmsr(_)
            | Exit::Hlt(_)
            | Exit::HostInterrupt
            | Exit::HostNmi
            | Exit::Deadline
            | Exit::InterruptWindow
            | Exit::NmiWindow
            | Exit::Nested(_) => unreachable!("handled by the caller"),
        }
    }

    /// Injects a fault for the instruction at RIP, unless an event is on its way already: then the
    /// instruction runs, and faults, again.
    fn inject<H: VcpuHardware>(&mut self, hw: &mut H, event: Event) -> Next {
        if !hw.event_pending() {
            hw.inject(event);
        }
        Next::Enter
    }

    /// Moves RIP behind the instruction, as if it had run.
    #[inline]
    fn step_over<H: VcpuHardware, W: World>(
        &mut self,
        hw: &mut H,
        world: &mut W,
        length: Length,
        opcode: Opcode,
    ) -> Next {
        let length = match length {
            Some(length) => Some(length),
            None => self.decode_length(hw, world, &[opcode]),
        };
        match length {
            Some(length) => {
                advance(hw, length.get());
                Next::Enter
            }
            None => end(ShutdownReason::BadInstruction, hw.rip()),
        }
    }

    fn step_over_either<H: VcpuHardware, W: World>(
        &mut self,
        hw: &mut H,
        world: &mut W,
        length: Length,
        one: Opcode,
        other: Opcode,
    ) -> Next {
        match length.or_else(|| self.decode_length(hw, world, &[one, other])) {
            Some(length) => {
                advance(hw, length.get());
                Next::Enter
            }
            None => end(ShutdownReason::BadInstruction, hw.rip()),
        }
    }

    fn decode_length<H: VcpuHardware, W: World>(
        &mut self,
        hw: &mut H,
        world: &W,
        opcodes: &[Opcode],
    ) -> Length {
        let mut bytes = [0; code::INSTRUCTION_BYTES_MAX];
        let count = fetch(hw, world, &mut bytes);
        let long = is_long_code(hw);
        opcodes
            .iter()
            .find_map(|opcode| code::length(&bytes[..count], *opcode, long))
    }
}

/// A domain's end as the next step.
fn end(reason: ShutdownReason, detail: u64) -> Next {
    Next::End(Ending { reason, detail })
}

const RFLAGS_TF: u64 = 1 << 8;
const RFLAGS_IF: u64 = 1 << 9;
const EFER_LMA: u64 = 1 << 10;

/// Whether CS is 64-bit code.
fn is_long_code<H: VcpuHardware>(hw: &H) -> bool {
    use godwit_records::Segment;
    hw.msr(SwitchedMsr::Efer) & EFER_LMA != 0
        && hw.segment(SegmentName::Cs).attributes & Segment::LONG != 0
}

/// A linear address outside 64-bit code: 32 bits wide, in compatibility mode too (SDM 1, 3.3.7).
fn linear_32(base: u64, offset: u64) -> u64 {
    base.wrapping_add(offset) & 0xffff_ffff
}

#[inline]
fn advance<H: VcpuHardware>(hw: &mut H, length: u8) {
    let rip = hw.rip().wrapping_add(length.into());
    // A carry beyond 32 bits can only be seen where code is not 64-bit.
    let rip = if rip >> 32 != 0 && !is_long_code(hw) {
        rip & 0xffff_ffff
    } else {
        rip
    };
    hw.set_rip(rip);
    hw.clear_interrupt_shadow();
    if hw.rflags() & RFLAGS_TF != 0 {
        hw.step_trap();
    }
}

/// The registers that translate the guest's addresses.
fn paging<H: VcpuHardware>(hw: &H) -> Paging {
    Paging {
        cr0: hw.control(Control::Cr0),
        cr3: hw.control(Control::Cr3),
        cr4: hw.control(Control::Cr4),
        efer: hw.msr(SwitchedMsr::Efer),
    }
}

/// Reads code at RIP, up to a page that cannot be read. Returns the bytes read.
fn fetch<H: VcpuHardware, W: World>(hw: &H, world: &W, out: &mut [u8]) -> usize {
    let paging = paging(hw);
    let rip = hw.rip();
    let long = is_long_code(hw);
    let mut linear = if long {
        rip
    } else {
        linear_32(hw.segment(SegmentName::Cs).base, rip)
    };
    let mut done = 0;
    while done < out.len() {
        let intent = Intent {
            write: false,
            user: false,
        };
        let Ok(gpa) = walk::translate(world, &paging, linear, intent) else {
            break;
        };
        let in_page = (4096 - (gpa & 4095)) as usize;
        let count = in_page.min(out.len() - done);
        if !world.read(gpa, &mut out[done..done + count]) {
            break;
        }
        done += count;
        linear = linear.wrapping_add(count as u64);
        if !long {
            linear &= 0xffff_ffff;
        }
    }
    done
}
