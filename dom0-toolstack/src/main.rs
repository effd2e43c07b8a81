#![no_std]
#![no_main]
//! Godwit.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
