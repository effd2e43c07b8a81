//! I/O ports from user space, and where dom0's ports are.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

/// Ports of one device.
pub(crate) const VIRTIO_VENDOR: &str = "0x1af4";
/// In a resource's flags: it is of I/O ports (Linux, `IORESOURCE_IO`).
const IO: u64 = 0x100;

/// Lets this process use all ports; false without the right to.
pub(crate) fn allowed() -> bool {
    static ALLOWED: OnceLock<bool> = OnceLock::new();
    // SAFETY: iopl only changes what this process may do; it touches no memory.
    *ALLOWED.get_or_init(|| unsafe { libc::syscall(libc::SYS_iopl, 3) } == 0)
}

/// Reads a byte.
pub(crate) fn read(port: u16) -> u8 {
    assert!(allowed(), "asked before");
    let value: u8;
    // SAFETY: the process may use ports (above). The ports read here are of devices that a read
    // does not change; none of them reaches memory.
    unsafe {
        std::arch::asm!("in al, dx", out("al") value, in("dx") port, options(nomem, nostack));
    }
    value
}

/// Writes a byte.
pub(crate) fn write(port: u16, value: u8) {
    assert!(allowed(), "asked before");
    // SAFETY: as for `read`; what is written are ports without a device and a scratch register.
    unsafe {
        std::arch::asm!("out dx, al", in("al") value, in("dx") port, options(nomem, nostack));
    }
}

/// The first port of the first virtio device that has an I/O BAR: dom0 answers there.
pub(crate) fn of_virtio_device() -> Option<u16> {
    let mut devices: Vec<_> = fs::read_dir("/sys/bus/pci/devices")
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    devices.sort();
    devices.iter().find_map(|device| io_of_virtio(device))
}

fn io_of_virtio(device: &Path) -> Option<u16> {
    let vendor = fs::read_to_string(device.join("vendor")).ok()?;
    if vendor.trim() != VIRTIO_VENDOR {
        return None;
    }
    let resources = fs::read_to_string(device.join("resource")).ok()?;
    resources.lines().find_map(io_port)
}

/// The first port of a line `start end flags` of a device's resource file.
fn io_port(line: &str) -> Option<u16> {
    let number = |word: &str| u64::from_str_radix(word.trim_start_matches("0x"), 16).ok();
    let mut numbers = line.split_whitespace().map(number);
    let (start, _end, flags) = (numbers.next()??, numbers.next()??, numbers.next()??);
    (flags & IO != 0).then(|| u16::try_from(start).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_port_resources_count() {
        let memory = "0x00000000fe000000 0x00000000fe003fff 0x0000000000140204";
        let ports = "0x000000000000c000 0x000000000000c03f 0x0000000000040101";
        assert_eq!((io_port(memory), io_port(ports)), (None, Some(0xc000)));
        assert_eq!(io_port("0x0 0x0 0x0"), None);
    }
}
