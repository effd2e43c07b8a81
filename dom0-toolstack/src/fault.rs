//! The end of dom0: what happened, on the console, and then a triple fault, by which the hypervisor
//! learns that the domain is gone.

use crate::console;
use core::fmt::{self, Write};
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, Ordering};
use x86_64::VirtAddr;
use x86_64::registers::control::Cr2;
use x86_64::structures::DescriptorTablePointer;

/// The most frames of a backtrace.
const BACKTRACE_FRAMES_MAX: usize = 32;
/// A frame pointer further from the last one than this is none.
const FRAME_BYTES_MAX: u64 = 256 << 10;

/// What an exception stub leaves on the stack, from the lowest address on.
#[repr(C)]
pub(crate) struct Frame {
    r15: u64,
    r14: u64,
    r13: u64,
    r12: u64,
    r11: u64,
    r10: u64,
    r9: u64,
    r8: u64,
    rdi: u64,
    rsi: u64,
    rbp: u64,
    rbx: u64,
    rdx: u64,
    rcx: u64,
    rax: u64,
    vector: u64,
    error: u64,
    rip: u64,
    cs: u64,
    rflags: u64,
    rsp: u64,
    ss: u64,
}

/// Names of the exceptions, by vector.
const NAMES: [&str; 22] = [
    "#DE divide error",
    "#DB debug",
    "NMI",
    "#BP breakpoint",
    "#OF overflow",
    "#BR bound range",
    "#UD invalid opcode",
    "#NM device not available",
    "#DF double fault",
    "coprocessor segment overrun",
    "#TS invalid TSS",
    "#NP segment not present",
    "#SS stack fault",
    "#GP general protection",
    "#PF page fault",
    "reserved",
    "#MF x87",
    "#AC alignment",
    "#MC machine check",
    "#XM SIMD",
    "#VE virtualization",
    "#CP control protection",
];

/// Whether somebody is writing last words already.
static ENDING: AtomicBool = AtomicBool::new(false);

/// An exception: says so and ends the domain.
pub(crate) fn exception(frame: &Frame) -> ! {
    begin();
    let name = NAMES.get(frame.vector as usize).unwrap_or(&"exception");
    say(format_args!(
        "\ndom0: FATAL: {name} at image+{:#x}, error {:#x}, cr2 {:#x}\n\
         rax {:016x} rbx {:016x} rcx {:016x} rdx {:016x}\n\
         rsi {:016x} rdi {:016x} rbp {:016x} rsp {:016x}\n\
         r8  {:016x} r9  {:016x} r10 {:016x} r11 {:016x}\n\
         r12 {:016x} r13 {:016x} r14 {:016x} r15 {:016x}\n\
         rip {:016x} cs {:x} ss {:x} rflags {:x}\n",
        frame.rip.wrapping_sub(image_base()),
        frame.error,
        Cr2::read_raw(),
        frame.rax,
        frame.rbx,
        frame.rcx,
        frame.rdx,
        frame.rsi,
        frame.rdi,
        frame.rbp,
        frame.rsp,
        frame.r8,
        frame.r9,
        frame.r10,
        frame.r11,
        frame.r12,
        frame.r13,
        frame.r14,
        frame.r15,
        frame.rip,
        frame.cs,
        frame.ss,
        frame.rflags,
    ));
    backtrace(frame.rsp, frame.rbp);
    end()
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    begin();
    say(format_args!("\ndom0: FATAL: {info}\n"));
    let (rsp, rbp): (u64, u64);
    // SAFETY: reads two registers.
    unsafe {
        core::arch::asm!("mov {}, rsp", "mov {}, rbp", out(reg) rsp, out(reg) rbp, options(nomem, nostack));
    }
    backtrace(rsp, rbp);
    end()
}

/// The longest piece of last words, bytes; more is cut.
const PIECE_BYTES_MAX: usize = 1024;

/// Says something without the heap, which may be what failed.
fn say(text: fmt::Arguments<'_>) {
    let mut piece = heapless::String::<PIECE_BYTES_MAX>::new();
    let mut writer = Cut(&mut piece);
    // `Cut` takes everything.
    let _ = writer.write_fmt(text);
    console::write_last(&piece);
}

/// Writes as much as there is room for.
struct Cut<'a>(&'a mut heapless::String<PIECE_BYTES_MAX>);

impl Write for Cut<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            if self.0.push(c).is_err() {
                break;
            }
        }
        Ok(())
    }
}

/// Ends at once when the last words themselves fail.
fn begin() {
    if ENDING.swap(true, Ordering::Relaxed) {
        end();
    }
}

/// Return addresses as offsets in the image, which `addr2line -e godwit-dom0` understands.
fn backtrace(rsp: u64, rbp: u64) {
    let (mut low, mut frame) = (rsp, rbp);
    for _ in 0..BACKTRACE_FRAMES_MAX {
        if frame < low || frame - low > FRAME_BYTES_MAX || !frame.is_multiple_of(8) {
            break;
        }
        // SAFETY: aligned and just above a frame of the stack in use, so on that stack: with frame
        // pointers in all code the chain leads up to the zero that `_start` put there. Were it
        // damaged, the read could at worst fault, and `begin` ends the domain then.
        let [next, address] = unsafe { (frame as *const [u64; 2]).read_volatile() };
        if address == 0 {
            break;
        }
        let offset = address.wrapping_sub(image_base());
        say(format_args!("  image+{offset:#x}\n"));
        low = frame;
        frame = next;
    }
}

fn image_base() -> u64 {
    unsafe extern "C" {
        /// First byte of the image, from the linker.
        static __executable_start: u8;
    }
    (&raw const __executable_start) as u64
}

/// Ends the domain by a triple fault.
pub(crate) fn end() -> ! {
    let none = DescriptorTablePointer {
        limit: 0,
        base: VirtAddr::zero(),
    };
    // SAFETY: with no gate at all the breakpoint cannot be delivered, nor can the double fault that
    // follows: the CPU shuts down, which is an exit to the hypervisor. Nothing after it runs.
    unsafe {
        x86_64::instructions::tables::lidt(&none);
        core::arch::asm!("int3", "2: hlt", "jmp 2b", options(noreturn));
    }
}
