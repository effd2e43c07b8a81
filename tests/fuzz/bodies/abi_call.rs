//! A hypercall as a guest makes it: any number, any registers.
//!
//! What decodes encodes to the registers it came from; the dispatcher lets through exactly what
//! decodes and is allowed, as the same call with the same arguments.

use godwit_abi::ids::{Answered, EventSource, InterruptKind};
use godwit_abi::{
    Access, Answer, Call, DomainId, Handler, MAX_ARGUMENTS, PciAddress, Port, PowerAction, Refusal,
    Status, TABLE, VcpuIndex, dispatch,
};

/// Notes the call it was asked to make, and refuses it.
struct Witness(Option<Call>);

macro_rules! witness {
    ($( $Name:ident $name:ident($($arg:ident: $ty:ty),*) -> $ret:ty; )+) => {
        impl Handler for Witness { $(
            fn $name(&mut self, $($arg: $ty),*) -> Result<$ret, Refusal> {
                assert!(self.0.replace(Call::$Name { $($arg),* }).is_none(), "made twice");
                Err(Status::Busy.into())
            }
        )+ }
    };
}

witness! {
    Nop nop() -> ();
    AbiVersion abi_version() -> u32;
    ConsoleWrite console_write(address: u64, length: u64) -> u64;
    ConsoleRead console_read(address: u64, length: u64) -> u64;
    Wait wait(deadline_tsc: u64, address: u64, capacity: u64) -> u64;
    PortBind port_bind(source: EventSource) -> Port;
    PortClose port_close(port: Port) -> ();
    LogRead log_read(offset: u64, address: u64, length: u64) -> u64;
    LogStart log_start() -> u64;
    HostInfo host_info(address: u64, length: u64) -> ();
    CpuInfo cpu_info(cpu: u32, address: u64, length: u64) -> ();
    HostPower host_power(action: PowerAction) -> ();
    DomainCreate domain_create(address: u64, length: u64) -> DomainId;
    DomainDestroy domain_destroy(domain: DomainId) -> ();
    DomainPause domain_pause(domain: DomainId) -> ();
    DomainUnpause domain_unpause(domain: DomainId) -> ();
    DomainAt domain_at(slot: u16) -> DomainId;
    DomainInfo domain_info(domain: DomainId, address: u64, length: u64) -> ();
    VcpuInfo vcpu_info(domain: DomainId, vcpu: VcpuIndex, address: u64, length: u64) -> ();
    VcpuStateSet vcpu_state_set(domain: DomainId, vcpu: VcpuIndex, address: u64, length: u64) -> ();
    VcpuStateRead vcpu_state_read(domain: DomainId, vcpu: VcpuIndex, address: u64, length: u64) -> u64;
    MemoryPopulate memory_populate(domain: DomainId, page: u64, pages: u64) -> u64;
    MemoryWrite memory_write(domain: DomainId, target: u64, address: u64, length: u64) -> ();
    MemoryRead memory_read(domain: DomainId, source: u64, address: u64, length: u64) -> ();
    GuestConsoleRead guest_console_read(domain: DomainId, offset: u64, address: u64, length: u64) -> u64;
    GuestConsoleStart guest_console_start(domain: DomainId) -> u64;
    PciDevice pci_device(index: u32, address: u64, length: u64) -> ();
    PciConfigRead pci_config_read(device: PciAddress, offset: u16, width: u8) -> u32;
    PciConfigWrite pci_config_write(device: PciAddress, offset: u16, width: u8, value: u32) -> ();
    InterruptBind interrupt_bind(device: PciAddress, kind: InterruptKind) -> Port;
    InterruptUnmask interrupt_unmask(port: Port) -> ();
    SchedulerSet scheduler_set(domain: DomainId, weight: u32, cap_percent: u32) -> ();
    DebugKey debug_key(key: u8) -> ();
    GuestInput guest_input(domain: DomainId, address: u64, length: u64) -> u64;
    PowerButton power_button(domain: DomainId) -> ();
    DomainClockSet domain_clock_set(domain: DomainId, unix_ns: u64) -> ();
    VcpuAffinitySet vcpu_affinity_set(domain: DomainId, vcpu: VcpuIndex, cpus: u64) -> ();
    WallClock wall_clock() -> u64;
    DomainReset domain_reset(domain: DomainId) -> ();
    PlatformStateRead platform_state_read(domain: DomainId, address: u64, length: u64) -> u64;
    PlatformStateSet platform_state_set(domain: DomainId, address: u64, length: u64) -> ();
    XsaveStateRead xsave_state_read(domain: DomainId, vcpu: VcpuIndex, address: u64, length: u64) -> u64;
    XsaveStateSet xsave_state_set(domain: DomainId, vcpu: VcpuIndex, address: u64, length: u64) -> ();
    MemoryMap memory_map(domain: DomainId, page: u64, pages: u64, address: u64, capacity: u64) -> u64;
    MemoryUnmap memory_unmap(domain: DomainId, page: u64, pages: u64) -> u64;
    MemoryRelease memory_release(domain: DomainId, address: u64, count: u64) -> u64;
    DeviceAdd device_add(domain: DomainId, address: u64, length: u64) -> u32;
    DeviceRemove device_remove(domain: DomainId, device: u32) -> ();
    DeviceServe device_serve(deadline_tsc: u64, address: u64, answered: Answered, value: u64) -> u64;
    DeviceRequestComplete device_request_complete(domain: DomainId, vcpu: VcpuIndex, value: u64) -> ();
    DoorbellsTake doorbells_take(address: u64, capacity: u64) -> u64;
    DeviceInterrupt device_interrupt(domain: DomainId, device: u32, vector: u16) -> ();
    DeviceInterruptClear device_interrupt_clear(domain: DomainId, device: u32) -> ();
    BlobWrite blob_write(domain: DomainId, key: u32, address: u64, length: u64) -> ();
    BlobRead blob_read(domain: DomainId, key: u32, address: u64, length: u64) -> u64;
    DirtyArm dirty_arm(domain: DomainId) -> u64;
    DirtyHarvest dirty_harvest(domain: DomainId, first_page: u64, pages: u64, address: u64) -> u64;
    DirtyPutBack dirty_put_back(domain: DomainId, first_page: u64, pages: u64, address: u64) -> u64;
    DirtyDisarm dirty_disarm(domain: DomainId) -> u64;
    DirtyQuota dirty_quota(domain: DomainId, pages_per_s: u64) -> ();
    CpuPolicyRead cpu_policy_read(domain: DomainId, address: u64, length: u64) -> u64;
    CpuPolicySet cpu_policy_set(domain: DomainId, address: u64, length: u64) -> ();
    AbsentArm absent_arm(domain: DomainId, first_page: u64, pages: u64, address: u64) -> u64;
    AbsentRead absent_read(domain: DomainId, first_page: u64, pages: u64, address: u64) -> u64;
    AbsentWanted absent_wanted(domain: DomainId, address: u64, capacity: u64) -> u64;
    AbsentFill absent_fill(domain: DomainId, first_page: u64, pages: u64, address: u64) -> u64;
    DomainRename domain_rename(domain: DomainId, address: u64, length: u64) -> ();
    DomainExchangeIdentity domain_exchange_identity(domain: DomainId, other: DomainId) -> ();
}

/// One input: number and arguments, little endian; what is missing is zero.
pub(crate) fn judge(input: &[u8]) {
    let mut registers = [0u64; 1 + MAX_ARGUMENTS];
    for (register, bytes) in registers.iter_mut().zip(input.chunks(8)) {
        let mut word = [0; 8];
        word[..bytes.len()].copy_from_slice(bytes);
        *register = u64::from_le_bytes(word);
    }
    let [number, arguments @ ..] = registers;
    let decoded = Call::decode(number, arguments);
    let row = TABLE.iter().find(|row| row.number == number);
    match (decoded, row) {
        (Ok(call), Some(row)) => {
            let used = row.arguments.len();
            let (again, encoded) = call.encode();
            assert_eq!(
                (again, &encoded[..used]),
                (number, &arguments[..used]),
                "{call:?}"
            );
            assert_eq!(encoded[used..], [0; MAX_ARGUMENTS][used..], "{call:?}");
            assert_eq!(Call::decode(number, encoded), Ok(call));
        }
        (Err(Status::BadArgument), Some(row)) => assert!(!row.arguments.is_empty(), "{}", row.name),
        (Err(Status::UnknownCall), None) => {}
        (answer, _) => panic!("call {number}: {answer:?}"),
    }
    for granted in [Access::Any, Access::Control] {
        let mut witness = Witness(None);
        let answer = dispatch(&mut witness, granted, number, arguments);
        let denied = granted == Access::Any && row.is_some_and(|row| row.access == Access::Control);
        let expected = match decoded {
            _refused_before_looking if denied => (Status::Denied, None),
            Ok(call) => (Status::Busy, Some(call)),
            Err(status) => (status, None),
        };
        assert_eq!(
            (answer, witness.0),
            (Answer::Return(expected.0, 0), expected.1)
        );
    }
}
