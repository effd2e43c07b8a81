//! Building dom0: a bare domain whose guest-physical addresses are host-physical ones, entered in
//! long mode on page tables made here.
//!
//! Its page tables cover all RAM of the machine, writable and not executable, because guests' pages appear
//! at their host-physical addresses when it maps them; its nested tables decide what is there.
//!
//! Its memory, from low to high: image (each segment with its rights), boot strings and modules,
//! start information, an unmapped page, the stack, the heap, the identity page tables.

use core::fmt;
use core::sync::atomic::Ordering;

use godwit_abi::{
    Access as CallAccess, DomainId, MODULES_MAX, Module, PciAddress, START_MAGIC,
    START_STACK_BYTES, StartInfo, Status, VcpuIndex,
};
use godwit_records::{Activity, Segment, VcpuState};
use godwit_vmm::cpuid::PolicyName;
use godwit_vmm::frames::{Frame, FrameError, Owner};
use godwit_vmm::image::{self, Image, ImageError};
use godwit_vmm::lifecycle::Event;
use godwit_vmm::nested::{Access, MemoryType, NestedError};
use godwit_vmm::sched::{DomainKind, WEIGHT_DEFAULT};
use spin::mutex::TicketMutex;
use x86_64::structures::paging::PageTableFlags as Flags;
use zerocopy::IntoBytes;

use super::domain::{Domain, Shape};
use super::{Host, Hosted};
use crate::boot::info::{BootInfo, BootModule, Range};
use crate::boot::options::{Options, dom0_share_mib};
use crate::memory::layout::direct_map;
use crate::memory::tables::{Identity, map_firmware};
use crate::memory::{self, with_frames};
use crate::platform::clock;

/// Set aside for dom0's page tables besides those of the machine's RAM.
const TABLES_BYTES: u64 = 512 << 10;
/// The heap must be at least this large for dom0 to be of use.
const HEAP_BYTES_MIN: u64 = 8 << 20;
const ALIGNMENT_ORDER: u8 = 9;

/// Why dom0 cannot be started.
#[derive(Debug)]
pub(crate) enum Dom0Error {
    NoModule,
    Image(ImageError),
    Memory(FrameError),
    TooSmall,
    Nested(NestedError),
    Refused(Status),
}

impl fmt::Display for Dom0Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dom0Error::NoModule => f.write_str(
                "the boot loader passed no dom0 module (a line 'module2 /boot/dom0.elf dom0 ...' is missing in its menu)",
            ),
            Dom0Error::Image(error) => write!(f, "dom0 image: {error}"),
            Dom0Error::Memory(error) => write!(f, "no contiguous memory for dom0 ({error:?}): give dom0_mem= a smaller value"),
            Dom0Error::TooSmall => f.write_str("its memory has no room for image and modules: give dom0_mem= a larger value"),
            Dom0Error::Nested(error) => write!(f, "nested tables for dom0: {error:?}"),
            Dom0Error::Refused(status) => write!(f, "{status}"),
        }
    }
}

/// Hands out dom0's memory from low to high.
struct Layout {
    next: u64,
    end: u64,
}

impl Layout {
    fn take(&mut self, bytes: u64) -> Result<u64, Dom0Error> {
        let start = self.next;
        let end = start + bytes.next_multiple_of(4096);
        if end > self.end {
            return Err(Dom0Error::TooSmall);
        }
        self.next = end;
        Ok(start)
    }

    fn place(&mut self, bytes: &[u8]) -> Result<u64, Dom0Error> {
        let start = self.take(bytes.len() as u64)?;
        put(start, bytes);
        Ok(start)
    }
}

/// Copies into dom0's memory, which nobody uses yet.
fn put(physical: u64, bytes: &[u8]) {
    // SAFETY: the callers copy only into dom0's memory block, which was just allocated and is in
    // the direct map.
    unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), direct_map(physical), bytes.len()) };
}

/// The bytes of a boot module.
fn module_bytes(module: &BootModule) -> &'static [u8] {
    let pointer = map_firmware(module.range.start, module.range.bytes());
    // SAFETY: the boot loader's module, kept by `memory::init`, mapped and never written.
    unsafe { core::slice::from_raw_parts(pointer.cast_const(), module.range.bytes() as usize) }
}

/// What dom0 is built from, the first time and whenever it has failed: the boot loader's modules, which stay where
/// they are, and the memory it was given.
pub(super) struct Origin {
    info: BootInfo,
    memory: Range,
}

impl Origin {
    fn module(&self) -> Result<&BootModule, Dom0Error> {
        dom0_module(&self.info)
    }
}

fn dom0_module(info: &BootInfo) -> Result<&BootModule, Dom0Error> {
    info.modules
        .iter()
        .find(|module| module.name() == "dom0")
        .ok_or(Dom0Error::NoModule)
}

/// Builds dom0 and lets it run.
pub(crate) fn create<B: Hosted>(
    host: &'static Host<B>,
    info: BootInfo,
    options: &Options,
) -> Result<(), Dom0Error> {
    dom0_module(&info)?;
    let share_mib = || dom0_share_mib(memory::total_bytes());
    let bytes = options.dom0_mib.unwrap_or_else(share_mib) << 20;
    let shape = Shape {
        name: TicketMutex::new(alloc::string::String::from("Domain-0")),
        uuid: TicketMutex::new([0; 16]),
        pages_max: bytes / 4096,
        vcpus: 1,
        weight: WEIGHT_DEFAULT,
        cap_percent: 0,
        access: CallAccess::Control,
        policy: PolicyName::Host,
    };
    let domain = host
        .assemble(DomainId::CONTROL, shape, DomainKind::Control)
        .map_err(Dom0Error::Refused)?;
    let memory = allocate(domain.memory.owner(), bytes)?;
    domain
        .memory
        .map_identity(memory.start, bytes, Access::ALL, MemoryType::WriteBack)
        .map_err(Dom0Error::Nested)?;
    let origin = host.origin.call_once(|| Origin { info, memory });
    let state = build(host, &domain, origin, 0)?;
    host.control.call_once(|| domain.clone());
    host.domains.write().insert(domain.clone());
    let slot = &domain.vcpus()[usize::from(VcpuIndex(0).0)];
    super::ports::open(host, slot).map_err(|_| Dom0Error::Refused(Status::NoMemory))?;
    slot.state.lock().pending_state = Some(alloc::boxed::Box::new(state));
    host.dom0_entry_tsc.store(clock::tsc(), Ordering::Relaxed);
    host.step_life(&domain, Event::Built);
    Ok(())
}

/// Builds dom0 once more. It does not run, nothing is mapped into it, and no device writes to its memory.
pub(super) fn rebuild<B: Hosted>(
    host: &Host<B>,
    domain: &Domain<B>,
    restarts: u64,
) -> Result<VcpuState, Dom0Error> {
    let origin = host.origin.get().ok_or(Dom0Error::NoModule)?;
    build(host, domain, origin, restarts)
}

/// Fills dom0's memory. Returns the registers it begins with.
fn build<B: Hosted>(
    host: &Host<B>,
    domain: &Domain<B>,
    origin: &Origin,
    restarts: u64,
) -> Result<VcpuState, Dom0Error> {
    let (module, memory) = (origin.module()?, origin.memory);
    let image = image::parse(module_bytes(module)).map_err(Dom0Error::Image)?;
    let room = TABLES_BYTES + Identity::bytes_needed(origin.info.memory_end);
    let mut layout = Layout {
        next: memory.start,
        end: memory.end - room,
    };
    let mut tables = Identity::new(Range {
        start: layout.end,
        end: memory.end,
    });
    let base = layout.take(image.bytes)?;
    load(&image, base)?;
    map_image(&image, base, &mut tables);
    let after_image = layout.next;
    let mut start = start_info::<B>(&origin.info, module, memory, &mut layout)?;
    let start_address = layout.take(StartInfo::SIZE_BYTES as u64)?;
    let guard = layout.take(4096)?;
    let stack_top = layout.take(START_STACK_BYTES)? + START_STACK_BYTES;
    start.restarts = restarts;
    start.heap_base = layout.next;
    start.heap_bytes = layout.end - layout.next;
    start.tables_base = layout.end;
    if start.heap_bytes < HEAP_BYTES_MIN {
        return Err(Dom0Error::TooSmall);
    }
    put(start_address, start.as_bytes());
    let data = Flags::PRESENT | Flags::WRITABLE | Flags::NO_EXECUTE;
    tables.map(after_image, guard, data);
    tables.map(guard + 4096, layout.end, data);
    tables.map(layout.end, memory.end, Flags::PRESENT | Flags::NO_EXECUTE);
    pass_devices(host, domain, &mut tables)?;
    map_other_memory(memory, &mut tables);
    Ok(entry_state(
        tables.root(),
        base + image.entry,
        start_address,
        stack_top,
    ))
}

fn allocate(owner: Owner, bytes: u64) -> Result<Range, Dom0Error> {
    const FOUR_GIB: Frame = Frame(1 << 20);
    let pages = (bytes / 4096).next_multiple_of(1 << ALIGNMENT_ORDER);
    let frame = with_frames(|frames| frames.allocate_run(pages, ALIGNMENT_ORDER, FOUR_GIB, owner))
        .map_err(Dom0Error::Memory)?;
    let start = frame.address().0;
    Ok(Range {
        start,
        end: start + bytes,
    })
}

fn load(image: &Image<'_>, base: u64) -> Result<(), Dom0Error> {
    for segment in &image.segments {
        let contents = image.contents(segment);
        put(base + segment.address, contents);
        let rest = segment.bytes - contents.len() as u64;
        // SAFETY: the tail of the segment lies in dom0's block: `Layout::take` made room for it.
        unsafe {
            core::ptr::write_bytes(
                direct_map(base + segment.address + contents.len() as u64),
                0,
                rest as usize,
            )
        };
    }
    image
        .relocate(base, |offset, value| {
            put(base + offset, &value.to_le_bytes())
        })
        .map_err(Dom0Error::Image)
}

fn map_image(image: &Image<'_>, base: u64, tables: &mut Identity) {
    for segment in &image.segments {
        let mut flags = Flags::PRESENT;
        flags.set(Flags::WRITABLE, segment.writable);
        flags.set(Flags::NO_EXECUTE, !segment.executable);
        let start = base + (segment.address & !4095);
        let end = base + (segment.address + segment.bytes).next_multiple_of(4096);
        tables.map(start, end, flags);
    }
}

/// Copies command line and modules in.
fn start_info<B: Hosted>(
    info: &BootInfo,
    own: &BootModule,
    memory: Range,
    layout: &mut Layout,
) -> Result<StartInfo, Dom0Error> {
    let mut modules = [Module {
        address: 0,
        bytes: 0,
        string_address: 0,
        string_bytes: 0,
    }; MODULES_MAX];
    let mut count = 0;
    for module in info
        .modules
        .iter()
        .filter(|module| module.range != own.range)
        .take(MODULES_MAX)
    {
        let contents = module_bytes(module);
        modules[count] = Module {
            address: layout.place(contents)?,
            bytes: contents.len() as u64,
            string_address: layout.place(module.string.as_bytes())?,
            string_bytes: module.string.len() as u64,
        };
        count += 1;
    }
    let arguments = own
        .string
        .trim_start()
        .strip_prefix("dom0")
        .unwrap_or("")
        .trim();
    Ok(StartInfo {
        magic: START_MAGIC,
        abi_version: godwit_abi::ABI_VERSION,
        vendor: B::VENDOR,
        tsc_hz: clock::tsc_hz(),
        boot_tsc: clock::boot_tsc(),
        memory_base: memory.start,
        memory_bytes: memory.bytes(),
        heap_base: 0,
        heap_bytes: 0,
        cmdline_address: layout.place(arguments.as_bytes())?,
        cmdline_bytes: arguments.len() as u64,
        module_count: count as u32,
        reserved: 0,
        modules,
        boot_ns: 0,
        restarts: 0,
        tables_base: 0,
    })
}

/// Maps the registers of dom0's devices: uncached in the nested tables, which decide the type.
/// Without an IOMMU dom0 is trusted not to misuse their DMA; with one, this is where its domain
/// would be set up.
fn pass_devices<B: Hosted>(
    host: &Host<B>,
    domain: &Domain<B>,
    tables: &mut Identity,
) -> Result<(), Dom0Error> {
    let data = Flags::PRESENT | Flags::WRITABLE | Flags::NO_EXECUTE;
    for device in &host.devices {
        for bar in device
            .bars
            .iter()
            .filter(|bar| !bar.is_port() && bar.bytes() != 0 && bar.address != 0)
        {
            let start = bar.address & !4095;
            let end = (bar.address + bar.bytes()).next_multiple_of(4096);
            if touches_memory(start, end) {
                log::warn!(
                    "{}: registers at {start:#x}-{end:#x} lie in memory: not passed to dom0",
                    PciAddress(device.address)
                );
                continue;
            }
            // Two small BARs may share a page.
            for page in (start..end).step_by(4096) {
                match domain.memory.map_identity(
                    page,
                    4096,
                    Access::READ_WRITE,
                    MemoryType::Uncacheable,
                ) {
                    Ok(()) | Err(NestedError::Overlap) => {}
                    Err(error) => return Err(Dom0Error::Nested(error)),
                }
            }
            tables.map(start, end, data);
        }
    }
    Ok(())
}

/// Maps all RAM but dom0's own, which is mapped as it is used.
fn map_other_memory(own: Range, tables: &mut Identity) {
    let data = Flags::PRESENT | Flags::WRITABLE | Flags::NO_EXECUTE;
    with_frames(|frames| {
        for (first, last) in frames.regions() {
            let (start, end) = (first.address().0, last.address().0);
            tables.map_all(start.min(own.start), end.min(own.start), data);
            tables.map_all(start.max(own.end), end.max(own.end), data);
        }
    });
}

/// Whether a range has pages of RAM, which only broken firmware gives to a device.
fn touches_memory(start: u64, end: u64) -> bool {
    with_frames(|frames| {
        frames
            .regions()
            .any(|(first, last)| start < last.address().0 && first.address().0 < end)
    })
}

/// Long mode at the image's entry, RDI the start information, interrupts off.
fn entry_state(root: u64, entry: u64, start: u64, stack_top: u64) -> VcpuState {
    const CR0: u64 = 1 << 31 | 1 << 16 | 1 << 5 | 1 << 4 | 1 << 1 | 1;
    // PAE, PGE, and OSFXSR: the image is compiled to use SSE2 from its first instruction.
    const CR4: u64 = 1 << 5 | 1 << 7 | 1 << 9;
    const EFER: u64 = 1 << 11 | 1 << 10 | 1 << 8;
    let mut state = VcpuState::reset();
    let data = Segment::new(16, 0, u32::MAX, 0xc093);
    state.cr0 = CR0;
    state.cr3 = root;
    state.cr4 = CR4;
    state.efer = EFER;
    state.cs = Segment::new(8, 0, u32::MAX, 0xa09b);
    (state.ds, state.es, state.ss, state.fs, state.gs) = (data, data, data, data, data);
    state.rip = entry;
    state.gprs = [0; 16];
    // As after a call: RSP + 8 is a multiple of 16.
    state.gprs[4] = stack_top - 8;
    state.gprs[7] = start;
    state.activity = Activity::Running;
    state
}
