//! The hypercalls. Buffers are named by the caller's guest-physical address and a length in
//! bytes; the hypervisor copies, it never keeps a pointer.

use crate::declare::{Access, Answer, Argument, CallDoc, MAX_ARGUMENTS, Refusal, Trap, hypercalls};
use crate::ids::{
    Answered, DomainId, EventSource, InterruptKind, PciAddress, Port, PowerAction, VcpuIndex,
};
use crate::status::Status;

fn take<T: Argument>(rest: &mut impl Iterator<Item = u64>) -> Result<T, Status> {
    rest.next().and_then(T::decode).ok_or(Status::BadArgument)
}

hypercalls! {
    /// Does nothing. The cost of a hypercall.
    0 Any Nop = nop() -> ();
    /// The version of this interface that the hypervisor speaks.
    1 Control AbiVersion = abi_version() -> u32;
    /// Writes to the host's serial console. Returns the bytes taken, which may be fewer.
    2 Control ConsoleWrite = console_write(address: u64, length: u64) -> u64;
    /// Reads what was typed on the host's serial console, up to `length` bytes. Returns the
    /// bytes read, 0 when there are none.
    3 Control ConsoleRead = console_read(address: u64, length: u64) -> u64;
    /// Takes the pending event ports: writes up to `capacity` port numbers (u32) to `address` and
    /// returns how many. With none pending it sleeps until one is or until the TSC reaches
    /// `deadline_tsc` (then returns 0). Deadline 0 only looks; all ones waits for ever.
    4 Control Wait = wait(deadline_tsc: u64, address: u64, capacity: u64) -> u64;
    /// Makes an event port for a source. Full: no port is left. Exists: the source has one.
    5 Control PortBind = port_bind(source: EventSource) -> Port;
    /// Closes an event port. NotFound: not open.
    6 Control PortClose = port_close(port: Port) -> ();
    /// Reads the hypervisor's log ring from the absolute byte `offset`. Returns the bytes read, 0
    /// at its end. NotFound: overwritten meanwhile, begin again at `log_start`.
    7 Control LogRead = log_read(offset: u64, address: u64, length: u64) -> u64;
    /// The absolute offset of the oldest byte in the log ring.
    8 Control LogStart = log_start() -> u64;
    /// Writes [`crate::HostInfo`]; `length` is the size of the caller's structure.
    9 Control HostInfo = host_info(address: u64, length: u64) -> ();
    /// Writes [`crate::CpuInfo`] of the host CPU `cpu`. NotFound: no such CPU.
    10 Control CpuInfo = cpu_info(cpu: u32, address: u64, length: u64) -> ();
    /// Restarts or switches off the machine. Returns only when it cannot.
    11 Control HostPower = host_power(action: PowerAction) -> ();
    /// Makes a domain, paused, without memory, from [`crate::DomainConfig`].
    /// Full: no slot is left. BadArgument: the configuration is out of range.
    12 Control DomainCreate = domain_create(address: u64, length: u64) -> DomainId;
    /// Destroys a domain. Its id is gone at once, its memory leaves the caller and is free: the caller
    /// has stopped its devices' DMA to it before.
    13 Control DomainDestroy = domain_destroy(domain: DomainId) -> ();
    /// Pauses a domain; pauses count. Returns when none of its vCPUs runs.
    14 Control DomainPause = domain_pause(domain: DomainId) -> ();
    /// Takes one pause back. BadState: it is not paused, or it is no longer runnable.
    15 Control DomainUnpause = domain_unpause(domain: DomainId) -> ();
    /// The id of the first domain in a slot from `slot` on. NotFound: no more.
    16 Control DomainAt = domain_at(slot: u16) -> DomainId;
    /// Writes [`crate::DomainInfo`].
    17 Control DomainInfo = domain_info(domain: DomainId, address: u64, length: u64) -> ();
    /// Writes [`crate::VcpuInfo`].
    18 Control VcpuInfo = vcpu_info(domain: DomainId, vcpu: VcpuIndex, address: u64, length: u64) -> ();
    /// Sets a vCPU's architectural state from an encoded `VcpuState` record. BadState: the domain
    /// is not paused. BadRecord: it does not decode, or no CPU could be in that state.
    19 Control VcpuStateSet = vcpu_state_set(domain: DomainId, vcpu: VcpuIndex, address: u64, length: u64) -> ();
    /// Writes a vCPU's `VcpuState` record. Returns its length. BadState: the domain is not paused.
    20 Control VcpuStateRead = vcpu_state_read(domain: DomainId, vcpu: VcpuIndex, address: u64, length: u64) -> u64;
    /// Gives a domain up to `pages` zeroed pages of memory from the guest page `page` on. Works
    /// in bounded steps: returns the pages done, repeat for the rest. NoMemory: the host has no more.
    21 Control MemoryPopulate = memory_populate(domain: DomainId, page: u64, pages: u64) -> u64;
    /// Copies from the caller's `address` into the memory of `domain` at `target`. At most
    /// 1 MiB a call. BadAddress: some of either range is not memory; nothing is copied then.
    22 Control MemoryWrite = memory_write(domain: DomainId, target: u64, address: u64, length: u64) -> ();
    /// Copies from the memory of `domain` at `source` to the caller's `address`. As `memory_write`.
    23 Control MemoryRead = memory_read(domain: DomainId, source: u64, address: u64, length: u64) -> ();
    /// Reads a domain's debug console from the absolute byte `offset`. As `log_read`.
    24 Control GuestConsoleRead = guest_console_read(domain: DomainId, offset: u64, address: u64, length: u64) -> u64;
    /// The absolute offset of the oldest byte kept of a domain's debug console.
    25 Control GuestConsoleStart = guest_console_start(domain: DomainId) -> u64;
    /// Writes [`crate::PciDevice`] of the `index`th function passed to the caller. NotFound: no more.
    26 Control PciDevice = pci_device(index: u32, address: u64, length: u64) -> ();
    /// Reads configuration space; `width` is 1, 2 or 4 and divides `offset`.
    27 Control PciConfigRead = pci_config_read(device: PciAddress, offset: u16, width: u8) -> u32;
    /// Writes configuration space. Denied: a field the hypervisor owns (BARs, interrupt messages).
    28 Control PciConfigWrite = pci_config_write(device: PciAddress, offset: u16, width: u8, value: u32) -> ();
    /// Makes an event port for an interrupt of a PCI function and switches that interrupt on.
    /// NotSupported: the function has no such interrupt. Exists: bound already.
    29 Control InterruptBind = interrupt_bind(device: PciAddress, kind: InterruptKind) -> Port;
    /// Lets a level-triggered interrupt come again, after the device has been served.
    30 Control InterruptUnmask = interrupt_unmask(port: Port) -> ();
    /// Sets a domain's scheduling weight (1 to 65535) and cap (percent of one CPU, 0 for none).
    31 Control SchedulerSet = scheduler_set(domain: DomainId, weight: u32, cap_percent: u32) -> ();
    /// Does what the debug key `key` does on the hypervisor's console. BadArgument: no such key.
    32 Control DebugKey = debug_key(key: u8) -> ();
    /// Types `length` bytes into a domain's serial port. Returns the bytes taken; the rest when
    /// the guest has read some.
    33 Control GuestInput = guest_input(domain: DomainId, address: u64, length: u64) -> u64;
    /// Presses a domain's ACPI power button.
    34 Control PowerButton = power_button(domain: DomainId) -> ();
    /// Sets a domain's real-time clock to nanoseconds since 1970, UTC.
    35 Control DomainClockSet = domain_clock_set(domain: DomainId, unix_ns: u64) -> ();
    /// The CPUs a vCPU may run on, a bit each. BadArgument: none of them is there.
    36 Control VcpuAffinitySet = vcpu_affinity_set(domain: DomainId, vcpu: VcpuIndex, cpus: u64) -> ();
    /// The host's time of day, nanoseconds since 1970, UTC. NotSupported: the machine has no clock.
    37 Control WallClock = wall_clock() -> u64;
    /// Puts a domain that is paused or has ended back to where it was built: devices and vCPUs as
    /// after power-up, memory as it is, paused once. BadState: it runs.
    38 Control DomainReset = domain_reset(domain: DomainId) -> ();
    /// Writes the records of a paused domain's devices, local APICs included. Returns the length.
    39 Control PlatformStateRead = platform_state_read(domain: DomainId, address: u64, length: u64) -> u64;
    /// Sets the devices of a paused domain from records. BadRecord: nothing was changed.
    40 Control PlatformStateSet = platform_state_set(domain: DomainId, address: u64, length: u64) -> ();
    /// Writes a vCPU's `XsaveState` record. Returns its length. BadState: the domain is not paused.
    41 Control XsaveStateRead = xsave_state_read(domain: DomainId, vcpu: VcpuIndex, address: u64, length: u64) -> u64;
    /// Sets a vCPU's extended state from a record. As `vcpu_state_set`.
    42 Control XsaveStateSet = xsave_state_set(domain: DomainId, vcpu: VcpuIndex, address: u64, length: u64) -> ();
    /// Maps guest pages into the caller, each at its host-physical address, and writes where they
    /// are as [`crate::MemoryRun`]s, in order, to `address`. Returns how many runs. A full buffer, or
    /// 64 MiB, ends the call early: repeat behind the last run until there are none. Mapped twice is
    /// mapped once.
    43 Control MemoryMap = memory_map(domain: DomainId, page: u64, pages: u64, address: u64, capacity: u64) -> u64;
    /// Takes guest pages out of the caller, which has stopped its devices' DMA to them before. Holes
    /// are passed over. Returns the pages looked at, repeat for the rest.
    44 Control MemoryUnmap = memory_unmap(domain: DomainId, page: u64, pages: u64) -> u64;
    /// Gives up to 4096 guest pages, u64 numbers at `address`, back to the host; the caller's mapping
    /// of them ends too, as in `memory_unmap`. Returns how many were the domain's. A guest that
    /// touches one afterwards ends; `memory_populate` gives it a new one there.
    45 Control MemoryRelease = memory_release(domain: DomainId, address: u64, count: u64) -> u64;
    /// Gives a domain a PCI function served by the caller, from [`crate::DeviceDefinition`].
    /// Returns its PCI device number. Full: no number is free. BadArgument: it cannot be.
    46 Control DeviceAdd = device_add(domain: DomainId, address: u64, length: u64) -> u32;
    /// Takes a function away. Accesses under way answer all ones.
    47 Control DeviceRemove = device_remove(domain: DomainId, device: u32) -> ();
    /// Answers an access with `value`, if `answered` names one, then waits as `wait` does, but for an
    /// access to a device as well: one call for each access, where nothing else is to be done.
    /// Fills in [`crate::Served`] at `address`, as far as there is something; returns the number of
    /// ports, plus [`crate::SERVED_REQUEST`] with an access. An access is given once, and again to a
    /// restarted control domain. An answer nobody waits for any more is dropped.
    48 Control DeviceServe = device_serve(deadline_tsc: u64, address: u64, answered: Answered, value: u64) -> u64;
    /// Answers the access a vCPU waits for; the value is that of a read. NotFound: it waits for none.
    49 Control DeviceRequestComplete = device_request_complete(domain: DomainId, vcpu: VcpuIndex, value: u64) -> ();
    /// Takes up to `capacity` doorbells that were rung as [`crate::Doorbell`]s. Returns how many.
    50 Control DoorbellsTake = doorbells_take(address: u64, capacity: u64) -> u64;
    /// Interrupts a guest for a device: its MSI-X or MSI vector `vector`, or its INTx pin while both
    /// are off. 65535 stands for the pin, and for MSI's first message while that replaces it.
    51 Control DeviceInterrupt = device_interrupt(domain: DomainId, device: u32, vector: u16) -> ();
    /// Lowers a device's INTx pin.
    52 Control DeviceInterruptClear = device_interrupt_clear(domain: DomainId, device: u32) -> ();
    /// Keeps bytes for the control domain under `key`, as long as the domain lives and over a
    /// restart of the control domain; no bytes removes them. At most [`crate::BLOB_BYTES_MAX`]
    /// each, [`crate::BLOBS_MAX`] a domain (the control domain itself included).
    53 Control BlobWrite = blob_write(domain: DomainId, key: u32, address: u64, length: u64) -> ();
    /// Reads what is kept under `key`. Returns its whole length, copies what fits. NotFound: nothing is.
    54 Control BlobRead = blob_read(domain: DomainId, key: u32, address: u64, length: u64) -> u64;
    /// A step of starting dirty tracking: from now on each page written to is noted. Returns the
    /// guest-physical pages not looked at yet: repeat until 0; what is armed already stays so. NoMemory:
    /// no memory to split large pages with; repeat or disarm.
    55 Control DirtyArm = dirty_arm(domain: DomainId) -> u64;
    /// Takes the pages written to since they were armed or harvested last: one bit a page from
    /// `first_page` on, in u64 words at `address`. Returns the pages looked at, repeat for the rest. A
    /// page read after this call has all writes that it reports. A page that was not armed is reported
    /// and is armed by that; one that is part of a larger one beyond the range stays as it is and is
    /// reported each time. BadState: not tracked.
    56 Control DirtyHarvest = dirty_harvest(domain: DomainId, first_page: u64, pages: u64, address: u64) -> u64;
    /// Makes pages dirty whose bits are set: what was harvested and could not be sent, or what the
    /// caller has written to. As `dirty_harvest`.
    57 Control DirtyPutBack = dirty_put_back(domain: DomainId, first_page: u64, pages: u64, address: u64) -> u64;
    /// A step of ending dirty tracking; large pages come back. As `dirty_arm`.
    58 Control DirtyDisarm = dirty_disarm(domain: DomainId) -> u64;
    /// Lets each vCPU of a tracked domain make so many pages dirty in a second; it sleeps when it is ahead
    /// of that. 0: as many as it likes.
    59 Control DirtyQuota = dirty_quota(domain: DomainId, pages_per_s: u64) -> ();
    /// Writes the `CpuPolicyState` record of what a domain's CPUs answer to CPUID. Returns its length.
    60 Control CpuPolicyRead = cpu_policy_read(domain: DomainId, address: u64, length: u64) -> u64;
    /// Lets a domain that has not run yet answer CPUID as a record says. BadRecord: it is none, or this
    /// host lacks something of it (the log has what). BadState: the domain has run or has had one.
    61 Control CpuPolicySet = cpu_policy_set(domain: DomainId, address: u64, length: u64) -> ();
    /// Makes pages absent of a domain that does not run: a bit each from `first_page` on, in u64 words at
    /// `address`. What is in them is still on another host; every access waits for `absent_fill`. Returns the
    /// pages looked at, repeat for the rest. BadAddress: a bit of a page that is not there. NoMemory: none to split
    /// large pages with. BadState: the domain runs.
    62 Control AbsentArm = absent_arm(domain: DomainId, first_page: u64, pages: u64, address: u64) -> u64;
    /// Writes which pages are absent: a bit each from `first_page` on. Returns the pages looked at, repeat for the rest.
    63 Control AbsentRead = absent_read(domain: DomainId, first_page: u64, pages: u64, address: u64) -> u64;
    /// Writes the numbers (u64) of up to `capacity` absent pages that vCPUs of the domain wait for now. Returns how many.
    64 Control AbsentWanted = absent_wanted(domain: DomainId, address: u64, capacity: u64) -> u64;
    /// Puts contents from `address` into absent pages, up to 64 from `first_page` on, and lets vCPUs that wait for
    /// them go on. A page that is not absent is left alone. Returns how many were filled.
    65 Control AbsentFill = absent_fill(domain: DomainId, first_page: u64, pages: u64, address: u64) -> u64;
    /// Gives a domain another name: the field of [`crate::DomainConfig`] at `address`, `length` its size.
    /// BadArgument: it is no name. Exists: another domain has it. Denied: the control domain.
    66 Control DomainRename = domain_rename(domain: DomainId, address: u64, length: u64) -> ();
    /// Gives a domain the name and uuid of another, and that one its own: of two copies, the other is the domain from
    /// now on. BadState: one of them may run, not being built or paused. BadArgument: they are the same. Denied: the control domain.
    67 Control DomainExchangeIdentity = domain_exchange_identity(domain: DomainId, other: DomainId) -> ();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_dense_and_in_order() {
        for (index, row) in TABLE.iter().enumerate() {
            assert_eq!(row.number, index as u64, "{}", row.name);
            assert!(row.arguments.len() <= MAX_ARGUMENTS, "{}", row.name);
        }
    }

    #[test]
    fn every_call_decodes_to_what_was_encoded() {
        for row in TABLE {
            let zeroes = [0; MAX_ARGUMENTS];
            let call = Call::decode(row.number, zeroes).expect(row.name);
            assert_eq!(call.encode(), (row.number, zeroes), "{}", row.name);
        }
    }

    #[test]
    fn too_wide_arguments_are_refused() {
        let wide = [u64::MAX; MAX_ARGUMENTS];
        assert_eq!(Call::decode(6, wide), Err(Status::BadArgument));
        assert_eq!(Call::decode(11, wide), Err(Status::BadArgument));
        assert_eq!(
            Call::decode(29, [0, 1 << 16 | 1, 0, 0, 0]),
            Err(Status::BadArgument)
        );
    }

    #[test]
    fn unknown_numbers_answer_by_name() {
        assert_eq!(
            Call::decode(TABLE.len() as u64, [0; 5]),
            Err(Status::UnknownCall)
        );
        assert_eq!(Call::decode(u64::MAX, [0; 5]), Err(Status::UnknownCall));
        assert_eq!(Call::name_of(4), Some("wait"));
    }
}
