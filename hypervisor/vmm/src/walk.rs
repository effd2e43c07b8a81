//! A guest's own paging: linear to guest-physical, as the CPU would do it for a supervisor read
//! (SDM 3A, chapter 4). Used to fetch an instruction's bytes and for string I/O.
//!
//! Protection keys, SMEP and SMAP are not checked: what the CPU has executed it could fetch.
//! String I/O checks user, write and presence bits.

/// Reads 8 bytes of guest-physical memory; `None` where there is none.
pub trait GuestMemory {
    /// Copies from guest-physical `gpa`. `false` if not all of it is memory.
    fn read(&self, gpa: u64, out: &mut [u8]) -> bool;
    /// Copies to guest-physical `gpa`. `false` if not all of it is memory; part may be written then.
    fn write(&self, gpa: u64, bytes: &[u8]) -> bool;

    /// A little-endian word.
    fn read_u64(&self, gpa: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        self.read(gpa, &mut bytes)
            .then(|| u64::from_le_bytes(bytes))
    }

    /// A 32-bit little-endian word.
    fn read_u32(&self, gpa: u64) -> Option<u32> {
        let mut bytes = [0; 4];
        self.read(gpa, &mut bytes)
            .then(|| u32::from_le_bytes(bytes))
    }
}

/// The registers that say how a guest's addresses are translated.
#[derive(Clone, Copy, Debug)]
pub struct Paging {
    /// CR0.
    pub cr0: u64,
    /// CR3.
    pub cr3: u64,
    /// CR4.
    pub cr4: u64,
    /// EFER.
    pub efer: u64,
}

/// What kind of access is to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Intent {
    /// It writes.
    pub write: bool,
    /// It is made at CPL 3.
    pub user: bool,
}

/// Why an address does not translate: the error code of the page fault the guest would get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageFault {
    /// #PF error code.
    pub error_code: u32,
}

const CR0_PG: u64 = 1 << 31;
const CR0_WP: u64 = 1 << 16;
const CR4_PSE: u64 = 1 << 4;
const CR4_PAE: u64 = 1 << 5;
const CR4_LA57: u64 = 1 << 12;
const EFER_LMA: u64 = 1 << 10;
const PRESENT: u64 = 1;
const WRITABLE: u64 = 2;
const USER: u64 = 4;
const LARGE: u64 = 1 << 7;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Translates one linear address.
pub fn translate(
    memory: &impl GuestMemory,
    paging: &Paging,
    linear: u64,
    intent: Intent,
) -> Result<u64, PageFault> {
    if paging.cr0 & CR0_PG == 0 {
        return Ok(linear & 0xffff_ffff);
    }
    let (levels, wide) = if paging.efer & EFER_LMA != 0 {
        (if paging.cr4 & CR4_LA57 != 0 { 5 } else { 4 }, true)
    } else if paging.cr4 & CR4_PAE != 0 {
        (3, true)
    } else {
        (2, false)
    };
    let linear = if paging.efer & EFER_LMA != 0 {
        linear
    } else {
        linear & 0xffff_ffff
    };
    let bits_per_level = if wide { 9 } else { 10 };
    let mut table = match levels {
        3 => paging.cr3 & 0xffff_ffe0,
        2 => paging.cr3 & 0xffff_f000,
        _ => paging.cr3 & ADDRESS,
    };
    let mut rights = WRITABLE | USER;
    for level in (0..levels).rev() {
        let shift = 12 + bits_per_level * level;
        let index = linear >> shift & ((1 << bits_per_level) - 1);
        let entry = if wide {
            memory.read_u64(table + index * 8)
        } else {
            memory.read_u32(table + index * 4).map(u64::from)
        };
        let entry = entry.unwrap_or(0);
        if entry & PRESENT == 0 {
            return Err(fault(false, intent));
        }
        // PAE's top level has no rights bits.
        if !(levels == 3 && level == 2) {
            rights &= entry;
        }
        let large = entry & LARGE != 0
            && match level {
                1 => wide || paging.cr4 & CR4_PSE != 0,
                2 => levels >= 4,
                _ => false,
            };
        if level == 0 || large {
            check(rights, paging, intent)?;
            let base = if large && !wide {
                // PSE-36: address bits 39:32 in bits 20:13.
                entry & 0xffc0_0000 | (entry >> 13 & 0xff) << 32
            } else {
                entry & ADDRESS & !((1 << shift) - 1)
            };
            return Ok(base | linear & ((1 << shift) - 1));
        }
        table = entry & if wide { ADDRESS } else { 0xffff_f000 };
    }
    Err(fault(false, intent))
}

fn check(rights: u64, paging: &Paging, intent: Intent) -> Result<(), PageFault> {
    let user_ok = !intent.user || rights & USER != 0;
    let write_ok =
        !intent.write || rights & WRITABLE != 0 || (!intent.user && paging.cr0 & CR0_WP == 0);
    if user_ok && write_ok {
        Ok(())
    } else {
        Err(fault(true, intent))
    }
}

fn fault(present: bool, intent: Intent) -> PageFault {
    PageFault {
        error_code: u32::from(present) | u32::from(intent.write) << 1 | u32::from(intent.user) << 2,
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use core::cell::RefCell;
    use std::collections::BTreeMap;

    #[derive(Default)]
    struct Memory(RefCell<BTreeMap<u64, u8>>);

    impl Memory {
        fn put(&self, gpa: u64, value: u64, bytes: usize) {
            for (index, byte) in value.to_le_bytes()[..bytes].iter().enumerate() {
                self.0.borrow_mut().insert(gpa + index as u64, *byte);
            }
        }
    }

    impl GuestMemory for Memory {
        fn read(&self, gpa: u64, out: &mut [u8]) -> bool {
            for (index, slot) in out.iter_mut().enumerate() {
                *slot = self
                    .0
                    .borrow()
                    .get(&(gpa + index as u64))
                    .copied()
                    .unwrap_or(0);
            }
            true
        }
        fn write(&self, gpa: u64, bytes: &[u8]) -> bool {
            for (index, byte) in bytes.iter().enumerate() {
                self.0.borrow_mut().insert(gpa + index as u64, *byte);
            }
            true
        }
    }

    const READ: Intent = Intent {
        write: false,
        user: false,
    };

    #[test]
    fn long_mode_all_page_sizes() {
        let memory = Memory::default();
        let paging = Paging {
            cr0: CR0_PG | CR0_WP,
            cr3: 0x1000,
            cr4: CR4_PAE,
            efer: EFER_LMA,
        };
        memory.put(0x1000 + 8, 0x2007, 8);
        memory.put(0x2000, 0x3007, 8);
        memory.put(0x2000 + 8, 0x4000_0087, 8);
        memory.put(0x3000, 0x4007, 8);
        memory.put(0x3000 + 8, 0x60_0087, 8);
        memory.put(0x4000 + 16, 0x8_5003, 8);
        let base = 1 << 39;
        assert_eq!(
            translate(&memory, &paging, base + 0x2345, READ),
            Ok(0x8_5345)
        );
        assert_eq!(
            translate(&memory, &paging, base + 0x20_0000 + 0x1234, READ),
            Ok(0x60_1234)
        );
        assert_eq!(
            translate(&memory, &paging, base + 0x4000_0000 + 0x123_4567, READ),
            Ok(0x4123_4567)
        );
        assert_eq!(
            translate(&memory, &paging, base + 0x1000, READ),
            Err(PageFault { error_code: 0 })
        );
        let user = Intent {
            write: true,
            user: true,
        };
        assert_eq!(
            translate(&memory, &paging, base + 0x2000, user),
            Err(PageFault { error_code: 7 })
        );
    }

    #[test]
    fn write_protection_counts_for_supervisor_only_with_wp() {
        let memory = Memory::default();
        let mut paging = Paging {
            cr0: CR0_PG | CR0_WP,
            cr3: 0x1000,
            cr4: CR4_PAE,
            efer: EFER_LMA,
        };
        memory.put(0x1000, 0x2007, 8);
        memory.put(0x2000, 0x85, 8);
        let write = Intent {
            write: true,
            user: false,
        };
        assert_eq!(
            translate(&memory, &paging, 0x10, write),
            Err(PageFault { error_code: 3 })
        );
        paging.cr0 &= !CR0_WP;
        assert_eq!(translate(&memory, &paging, 0x10, write), Ok(0x10));
    }

    #[test]
    fn two_level_paging_with_pse36() {
        let memory = Memory::default();
        let paging = Paging {
            cr0: CR0_PG,
            cr3: 0x1000,
            cr4: CR4_PSE,
            efer: 0,
        };
        memory.put(0x1000 + 4, 0x2007, 4);
        memory.put(0x2000 + 12, 0x9007, 4);
        memory.put(0x1000 + 8, 0x0140_2087, 4);
        assert_eq!(translate(&memory, &paging, 0x40_3678, READ), Ok(0x9678));
        assert_eq!(
            translate(&memory, &paging, 0x80_1111, READ),
            Ok(0x1_0140_1111)
        );
    }

    #[test]
    fn pae_top_level_has_no_rights() {
        let memory = Memory::default();
        let paging = Paging {
            cr0: CR0_PG | CR0_WP,
            cr3: 0x1020,
            cr4: CR4_PAE,
            efer: 0,
        };
        memory.put(0x1020, 0x2001, 8);
        memory.put(0x2000, 0x20_0083, 8);
        let write = Intent {
            write: true,
            user: false,
        };
        assert_eq!(translate(&memory, &paging, 0x1234, write), Ok(0x20_1234));
    }

    #[test]
    fn without_paging_addresses_are_physical() {
        let paging = Paging {
            cr0: 0,
            cr3: 0,
            cr4: 0,
            efer: 0,
        };
        assert_eq!(
            translate(&Memory::default(), &paging, 0x1_0000_1234, READ),
            Ok(0x1234)
        );
    }
}
