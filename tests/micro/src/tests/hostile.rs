//! `hostile`: a driver of a virtio disk that means harm. Whatever it does, only this guest may suffer; who looks at that is the host's test.
//!
//! Each round makes one attack of [`ATTACKS`], chosen by chance from `seed=`: chains that loop or point outside memory, rings outside memory,
//! indices that jump, doorbell storms, resets with requests under way, BARs over RAM and interrupt controllers, accesses of every width to every
//! register. The device is given no address of this program, so the guest itself stays whole and says `PASS` after `iters=` rounds.

use crate::command_line::Arguments;
use crate::cpu::{Random, in8, in16, in32, out8, out16, out32};
use crate::report::Verdict;
use crate::start_info::StartInfo;
use crate::tests::device::{self, DOORBELLS, MEMORY, STATUS, TABLE, read, set_config, write};
use crate::{check, say, skip};

/// A virtio disk: red-hat, 0x1040 + 2.
const BLOCK: u32 = 0x1042_1af4;
const ROUNDS_DEFAULT: u64 = 400;
/// Registers of a queue in the common configuration (virtio 1.2 section 4.1.4.3).
const FEATURE_SELECT: u64 = 0x08;
const FEATURES: u64 = 0x0c;
const QUEUE_SELECT: u64 = 0x16;
const QUEUE_SIZE: u64 = 0x18;
const QUEUE_ENABLE: u64 = 0x1c;
const QUEUE_ADDRESSES: [u64; 3] = [0x20, 0x28, 0x30];
/// Descriptors of the ring.
const ENTRIES: u64 = 16;
/// Of the area: descriptors, available ring, used ring, then data.
const AVAILABLE: u64 = 0x1000;
const USED: u64 = 0x2000;
const DATA: u64 = 0x4000;
/// The area's size.
const AREA_BYTES: u64 = 0x1_0000;
/// Bytes of the memory BAR and of the MSI-X table's.
const MEMORY_BYTES: u64 = 0x4000;
const TABLE_BYTES: u64 = 0x1000;
/// PCI configuration space in memory: one bus.
const ECAM: u64 = 0xe000_0000;
const ECAM_BYTES: u64 = 1 << 20;
/// Ports that end this guest or its messages when they are written: debug console, keyboard controller, system control, UARTs,
/// PM1 and reset control.
const SPARED_PORTS: &[core::ops::Range<u16>] = &[
    0x60..0x65,
    0x92..0x93,
    0xe9..0xea,
    0x2f8..0x300,
    0x3f8..0x400,
    0x600..0x610,
    0xcf8..0xd00,
];

/// The guest and its chance.
struct Driver {
    random: Random,
    slot: u32,
    /// Memory the device may write, and nobody else has.
    area: u64,
}

type Attack = fn(&mut Driver);

const ATTACKS: &[Attack] = &[
    Driver::garbage_chains,
    Driver::loops,
    Driver::rings_nowhere,
    Driver::storm,
    Driver::reset_in_flight,
    Driver::bars_anywhere,
    Driver::wild_registers,
    Driver::wild_table,
    Driver::wild_config,
    Driver::wild_ports,
];

pub(crate) fn run(info: &StartInfo, arguments: &Arguments) -> Verdict {
    let Some(slot) = device::find(BLOCK) else {
        skip!("no virtio disk");
    };
    let Some(free) = info.free_ram().max_by_key(|range| range.end - range.start) else {
        skip!("no free memory");
    };
    check!(free.end - free.start >= 2 * AREA_BYTES, "too little memory");
    let mut driver = Driver {
        random: Random::new(arguments.seed.unwrap_or(1)),
        slot,
        area: (free.end - AREA_BYTES) & !0xfff,
    };
    let rounds = arguments.iters.unwrap_or(ROUNDS_DEFAULT);
    for round in 0..rounds {
        driver.set_up();
        let choice = driver.below(ATTACKS.len() as u64) as usize;
        if round % 50 == 0 {
            say!("round {round}");
        }
        ATTACKS[choice](&mut driver);
    }
    driver.set_up();
    let status = read::<u8>(STATUS);
    check!(
        status & 4 != 0,
        "the device is not itself again: status {status:#x}"
    );
    Ok(())
}

/// Writes guest-physical memory of the area.
fn store<T>(address: u64, value: T) {
    // SAFETY: callers give addresses in the area, free RAM that entry.rs maps to itself and no object lies in.
    unsafe { (address as *mut T).write_volatile(value) }
}

impl Driver {
    fn below(&mut self, bound: u64) -> u64 {
        self.random.next() % bound
    }

    /// An address that is no place for a buffer or a ring, or is one.
    fn address(&mut self) -> u64 {
        let offset = self.below(0x2000);
        let bases = [
            self.area + DATA,
            self.area + AREA_BYTES - 8,
            0x4000_0000,
            ECAM,
            MEMORY,
            0xfec0_0000,
            0xfee0_0000,
            0xffff_f000,
            1 << 40,
            u64::MAX - 0x1000,
        ];
        let base = bases[self.below(bases.len() as u64) as usize];
        base.wrapping_add(offset)
    }

    /// BARs at their places, features agreed on, one queue at the area's rings.
    fn set_up(&mut self) {
        device::place(self.slot);
        write::<u8>(STATUS, 0);
        for status in [1, 3] {
            write::<u8>(STATUS, status);
        }
        write::<u32>(FEATURE_SELECT, 1);
        write::<u32>(FEATURES, 1);
        write::<u8>(STATUS, 11);
        for at in (0..DATA).step_by(8) {
            store::<u64>(self.area + at, 0);
        }
        let area = self.area;
        self.queue([area, area + AVAILABLE, area + USED]);
        write::<u8>(STATUS, 15);
    }

    fn queue(&mut self, addresses: [u64; 3]) {
        write::<u16>(QUEUE_SELECT, 0);
        write::<u16>(QUEUE_SIZE, ENTRIES as u16);
        for (register, address) in QUEUE_ADDRESSES.into_iter().zip(addresses) {
            write::<u32>(register, address as u32);
            write::<u32>(register + 4, (address >> 32) as u32);
        }
        write::<u16>(QUEUE_ENABLE, 1);
    }

    fn descriptor(&mut self, index: u64, address: u64, length: u32, flags: u16, next: u16) {
        let at = self.area + index * 16;
        store::<u64>(at, address);
        store::<u32>(at + 8, length);
        store::<u16>(at + 12, flags);
        store::<u16>(at + 14, next);
    }

    /// Offers descriptors, and says there are `count`.
    fn offer(&mut self, count: u16) {
        for entry in 0..ENTRIES {
            let head = self.random.next() as u16 % 20;
            store::<u16>(self.area + AVAILABLE + 4 + entry * 2, head);
        }
        store::<u16>(self.area + AVAILABLE + 2, count);
        write::<u16>(DOORBELLS, 0);
    }

    fn garbage_chains(&mut self) {
        for index in 0..ENTRIES {
            let (address, bits) = (self.address(), self.random.next());
            let lengths = [0, 1, 16, 512, 4096, u32::MAX];
            let length = lengths[self.below(lengths.len() as u64) as usize];
            self.descriptor(
                index,
                address,
                length,
                bits as u16 & 7,
                (bits >> 16) as u16 % 20,
            );
        }
        let count = [1, 5, 16, 17, 0x8000, 0xffff][self.below(6) as usize];
        self.offer(count);
    }

    fn loops(&mut self) {
        let data = self.area + DATA;
        for index in 0..ENTRIES {
            self.descriptor(index, data, 16, 1, (index as u16 + 1) % 2);
        }
        // One that is a table of tables: itself.
        let area = self.area;
        self.descriptor(2, area, 256, 4, 0);
        self.offer(3);
    }

    fn rings_nowhere(&mut self) {
        write::<u8>(STATUS, 0);
        for status in [1, 3] {
            write::<u8>(STATUS, status);
        }
        write::<u32>(FEATURE_SELECT, 1);
        write::<u32>(FEATURES, 1);
        write::<u8>(STATUS, 11);
        let addresses = core::array::from_fn(|_| self.address());
        self.queue(addresses);
        write::<u8>(STATUS, 15);
        write::<u16>(DOORBELLS, 0);
    }

    fn storm(&mut self) {
        for at in 0..500u64 {
            write::<u16>(DOORBELLS + at % 64 * 4, at as u16);
        }
    }

    fn reset_in_flight(&mut self) {
        let data = self.area + DATA;
        store::<u64>(data, 0);
        store::<u64>(data + 8, 0);
        for head in [0, 3, 6, 9] {
            self.descriptor(head, data, 16, 1, head as u16 + 1);
            self.descriptor(head + 1, data + 512, 16384, 3, head as u16 + 2);
            self.descriptor(head + 2, data + 64, 1, 2, 0);
        }
        self.offer(16);
        write::<u8>(STATUS, 0);
        write::<u16>(DOORBELLS, 0);
    }

    fn bars_anywhere(&mut self) {
        for register in [0x10, 0x14, 0x18, 0x1c] {
            let places = [
                0x0010_0000,
                0xfee0_0000,
                0xfec0_0000,
                ECAM as u32,
                u32::MAX,
                TABLE,
            ];
            let place = places[self.below(places.len() as u64) as usize];
            // The upper half of the 64-bit one decides whether it is below 4 GiB.
            let value = if register == 0x14 { place & 1 } else { place };
            set_config(self.slot, register, value);
        }
        // Whatever answers there now: it is read only.
        for _ in 0..20 {
            let offset = self.below(MEMORY_BYTES / 4) * 4;
            self.touch(0xfec0_0000 + offset % 0x20, false);
            self.touch(ECAM + offset, false);
        }
    }

    /// One access of some width. Values have no delivery mode but "fixed": no message may stop this guest.
    fn touch(&mut self, address: u64, may_write: bool) {
        let (choice, value) = (
            self.below(if may_write { 6 } else { 3 }),
            self.random.next(),
        );
        let value = value & !0x700;
        // SAFETY: callers give addresses of devices, which entry.rs maps to themselves; `value` becomes no address of this program in any register
        // that the device follows, for `wild_registers` leaves those out.
        unsafe {
            match choice {
                0 => drop((address as *const u8).read_volatile()),
                1 => drop(((address & !1) as *const u16).read_volatile()),
                2 => drop(((address & !3) as *const u32).read_volatile()),
                3 => (address as *mut u8).write_volatile(value as u8),
                4 => ((address & !1) as *mut u16).write_volatile(value as u16),
                _ => ((address & !3) as *mut u32).write_volatile(value as u32),
            }
        }
    }

    fn wild_registers(&mut self) {
        for _ in 0..40 {
            let offset = self.below(MEMORY_BYTES);
            let is_address = (QUEUE_ADDRESSES[0]..QUEUE_ADDRESSES[2] + 8).contains(&(offset & !3));
            self.touch(MEMORY + offset, !is_address);
        }
    }

    fn wild_table(&mut self) {
        for _ in 0..40 {
            let offset = self.below(TABLE_BYTES);
            self.touch(u64::from(TABLE) + offset, true);
        }
        write::<u16>(DOORBELLS, 0);
    }

    fn wild_config(&mut self) {
        let own = ECAM + (u64::from(self.slot) << 15);
        for _ in 0..40 {
            let (own_offset, any) = (self.below(0x1000), self.below(ECAM_BYTES));
            self.touch(own + own_offset, true);
            self.touch(ECAM + any, false);
        }
    }

    fn wild_ports(&mut self) {
        for _ in 0..40 {
            let (port, value) = (self.random.next() as u16, self.random.next() as u32);
            let spared = (0..4).any(|byte| {
                let port = port.wrapping_add(byte);
                SPARED_PORTS.iter().any(|range| range.contains(&port))
            });
            match self.below(if spared { 3 } else { 6 }) {
                0 => drop(in8(port)),
                1 => drop(in16(port)),
                2 => drop(in32(port)),
                3 => out8(port, value as u8),
                4 => out16(port, value as u16),
                _ => out32(port, value),
            }
        }
    }
}
