//! Virtio over PCI (virtio 1.2, 4.1), the device's side of it: what the hypervisor is told of a
//! function, its registers, and the function itself with its queues.

mod definition;
mod function;
mod registers;
mod saving;
mod serve;
#[cfg(test)]
mod tests;

pub use definition::{CONFIG_BYTES_MAX, definition};
pub use function::{Broken, Interrupts, VirtioFunction};
pub use saving::RestoreError;
