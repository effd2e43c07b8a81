//! The I/O APICs: where the serial line's and the passed-through devices' wired interrupts come in
//! (Intel 82093AA).

use arrayvec::ArrayVec;
use spin::mutex::TicketMutex;

use super::acpi::{Override, Tables};
use crate::memory::tables::map_device;

const SELECT: usize = 0;
const WINDOW: usize = 0x10;
const VERSION: u8 = 1;
const REDIRECTION: u8 = 0x10;
const MASKED: u32 = 1 << 16;
const LEVEL: u32 = 1 << 15;
const ACTIVE_LOW: u32 = 1 << 13;

struct IoApic {
    base: *mut u8,
    first_gsi: u32,
    pins: u32,
}

// SAFETY: the registers are reached only under the lock of IOAPICS.
unsafe impl Send for IoApic {}

impl IoApic {
    fn read(&self, register: u8) -> u32 {
        // SAFETY: `base` is the mapped register page; select and window are its two registers.
        unsafe {
            self.base
                .add(SELECT)
                .cast::<u32>()
                .write_volatile(register.into());
            self.base.add(WINDOW).cast::<u32>().read_volatile()
        }
    }

    fn write(&self, register: u8, value: u32) {
        // SAFETY: as in `read`.
        unsafe {
            self.base
                .add(SELECT)
                .cast::<u32>()
                .write_volatile(register.into());
            self.base.add(WINDOW).cast::<u32>().write_volatile(value);
        }
    }
}

static IOAPICS: TicketMutex<ArrayVec<IoApic, 16>> = TicketMutex::new(ArrayVec::new_const());
static OVERRIDES: spin::once::Once<ArrayVec<Override, 32>> = spin::once::Once::new();

/// Takes the controllers over: every pin masked. Masks the two 8259s as well.
pub(crate) fn init(tables: &Tables) {
    use x86_64::instructions::port::Port;
    // SAFETY: the 8259 mask registers; all ones keeps both from ever interrupting.
    unsafe {
        Port::<u8>::new(0x21).write(0xff);
        Port::<u8>::new(0xa1).write(0xff);
    }
    let mut ioapics = IOAPICS.lock();
    for entry in &tables.ioapics {
        let base = map_device(entry.address.into(), 32);
        let mut io = IoApic {
            base,
            first_gsi: entry.first_gsi,
            pins: 0,
        };
        io.pins = (io.read(VERSION) >> 16 & 0xff) + 1;
        for pin in 0..io.pins {
            io.write(REDIRECTION + 2 * pin as u8, MASKED);
        }
        ioapics.push(io);
    }
    OVERRIDES.call_once(|| tables.overrides.clone());
}

/// A wired interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    gsi: u32,
    level: bool,
    active_low: bool,
}

impl Line {
    /// Whether both arrive at one pin, whatever their polarity and trigger.
    pub(crate) fn is_same_pin(&self, other: &Line) -> bool {
        self.gsi == other.gsi
    }

    /// Whether it is level triggered.
    pub(crate) fn is_level(&self) -> bool {
        self.level
    }
}

/// Where an ISA interrupt arrives: identity, edge, active high, unless the MADT says otherwise.
pub(crate) fn isa_line(irq: u8) -> Line {
    let over = OVERRIDES
        .get()
        .and_then(|list| list.iter().find(|over| over.irq == irq));
    match over {
        None => Line {
            gsi: irq.into(),
            level: false,
            active_low: false,
        },
        Some(over) => Line {
            gsi: over.gsi,
            level: over.flags >> 2 & 3 == 3,
            active_low: over.flags & 3 == 3,
        },
    }
}

/// Where a PCI function's INTx arrives, by the line number firmware left in its configuration
/// space. PCI lines are level triggered; their polarity is active low unless an override of that
/// ISA line says active high. (Firmware's `_PRT` would need an AML interpreter.)
pub(crate) fn pci_line(irq: u8) -> Line {
    let over = OVERRIDES
        .get()
        .and_then(|list| list.iter().find(|over| over.irq == irq));
    let active_low = over.is_none_or(|over| over.flags & 3 != 1);
    Line {
        gsi: over.map_or(irq.into(), |over| over.gsi),
        level: true,
        active_low,
    }
}

/// Routes a line to `vector` on the CPU with `apic_id`, unmasked. `false`: no controller has it.
pub(crate) fn route(line: Line, vector: u8, apic_id: u32) -> bool {
    with_pin(line, |io, register| {
        io.write(register + 1, apic_id << 24);
        let mode =
            if line.level { LEVEL } else { 0 } | if line.active_low { ACTIVE_LOW } else { 0 };
        io.write(register, u32::from(vector) | mode);
    })
}

/// Masks or unmasks a routed line.
pub(crate) fn set_masked(line: Line, masked: bool) {
    with_pin(line, |io, register| {
        let value = io.read(register) & !MASKED;
        io.write(register, value | if masked { MASKED } else { 0 });
    });
}

fn with_pin(line: Line, action: impl FnOnce(&IoApic, u8)) -> bool {
    let ioapics = IOAPICS.lock();
    let Some(io) = ioapics
        .iter()
        .find(|io| (io.first_gsi..io.first_gsi + io.pins).contains(&line.gsi))
    else {
        return false;
    };
    action(io, REDIRECTION + 2 * (line.gsi - io.first_gsi) as u8);
    true
}
