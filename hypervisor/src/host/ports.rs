//! dom0's I/O permission map: the ports of its devices, as `godwit_vmm::passed_ports` decides.

use godwit_vmm::frames::Zone;
use godwit_vmm::passed_ports::{PortRange, passed_ports};
use spin::Once;

use super::domain::VcpuSlot;
use super::{Host, Hosted};
use crate::memory::layout::direct_map;
use crate::memory::{OutOfMemory, allocate};

/// 16 KiB: SVM reads 12 KiB (APM 2, 15.10.1), VT-x two bitmaps of 4 KiB.
const MAP_ORDER: u8 = 2;

/// The map's physical address, made once: a dom0 that is built again uses it too.
static MAP: Once<u64> = Once::new();

/// Lets a vCPU of dom0, not run yet, use the ports of dom0's devices.
pub(super) fn open<B: Hosted>(host: &Host<B>, slot: &VcpuSlot<B>) -> Result<(), OutOfMemory> {
    let map = *MAP.try_call_once(|| {
        let passed = passed_ports(&host.devices, &host.firmware_ports);
        for (device, ports) in &passed.refused {
            log::warn!("{device}: ports {ports} are the hypervisor's: not passed to dom0");
        }
        build(&passed.open)
    })?;
    B::open_ports(&mut slot.state.lock().hardware, map);
    Ok(())
}

/// A map with a 0 for each port of `open`.
fn build(open: &[PortRange]) -> Result<u64, OutOfMemory> {
    let map = allocate(MAP_ORDER, Zone::Any)?.address().0;
    let bytes = 4096usize << MAP_ORDER;
    // SAFETY: the block was just given to us, lies in the direct map and is never freed; no CPU uses
    // it before this function returns, so this is the only reference.
    let bits = unsafe {
        core::ptr::write_bytes(direct_map(map), 0xff, bytes);
        core::slice::from_raw_parts_mut(direct_map(map), bytes)
    };
    for ports in open {
        for port in usize::from(ports.first)..=usize::from(ports.last) {
            bits[port / 8] &= !(1 << (port % 8));
        }
    }
    Ok(map)
}
