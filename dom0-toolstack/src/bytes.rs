//! What the compiler calls and a C library would bring: copying, filling and comparing bytes, and two names of unwinding that
//! `core` of a hosted target mentions. This image is built for a target with vector registers (decision 17), whose `core`
//! brings none of them.

// In a file of its own for the test that assembles it on the build machine.
core::arch::global_asm!(include_str!("bytes.s"));

core::arch::global_asm!(
    ".globl memcpy",
    ".set memcpy, godwit_copy",
    ".globl memmove",
    ".set memmove, godwit_move",
    ".globl memset",
    ".set memset, godwit_fill",
    ".globl memcmp",
    ".set memcmp, godwit_compare",
    ".globl bcmp",
    ".set bcmp, godwit_compare",
    // Panics end the domain (`panic = "abort"`): nothing ever unwinds, and nobody reads unwind tables.
    ".globl _Unwind_Resume",
    "_Unwind_Resume:",
    ".globl rust_eh_personality",
    "rust_eh_personality:",
    "ud2",
);
