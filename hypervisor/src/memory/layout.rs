//! Where things are in the hypervisor's address space (canonical upper half, 4-level paging).
//!
//! | from | what |
//! |---|---|
//! | `DIRECT_BASE` | all RAM, writable, never executable, without the image |
//! | `DEVICE_BASE` | device registers, uncached, page by page as they are asked for |
//! | `STACK_BASE` | stacks, each with an unmapped page below it |
//! | `IMAGE_BASE` | the image: text RX, read-only data R, data RW |

/// Direct map of physical memory.
pub(crate) const DIRECT_BASE: u64 = 0xffff_8000_0000_0000;
/// Device registers, at `DEVICE_BASE` + physical address.
pub(crate) const DEVICE_BASE: u64 = 0xffff_c000_0000_0000;
/// Stacks.
pub(crate) const STACK_BASE: u64 = 0xffff_e000_0000_0000;
/// The image: virtual = physical + this.
pub(crate) const IMAGE_BASE: u64 = 0xffff_ffff_8000_0000;
/// The highest physical address the direct and device maps have room for: 64 TiB.
pub(crate) const PHYSICAL_MAX: u64 = 1 << 46;

/// The direct-map address of a byte of RAM.
pub(crate) fn direct_map(physical: u64) -> *mut u8 {
    assert!(
        physical < PHYSICAL_MAX,
        "physical address {physical:#x} beyond the direct map"
    );
    (DIRECT_BASE + physical) as *mut u8
}

unsafe extern "C" {
    static _image_physical: u8;
    static _text_start: u8;
    static _text_end: u8;
    static _rodata_end: u8;
    static _image_end: u8;
    static boot_stack_guard: u8;
}

/// The borders of the image, as virtual addresses except `physical_start`.
pub(crate) struct ImageBorders {
    pub(crate) physical_start: u64,
    pub(crate) text_start: u64,
    pub(crate) text_end: u64,
    pub(crate) rodata_end: u64,
    pub(crate) end: u64,
    /// The page below the first CPU's stack, which is never mapped.
    pub(crate) stack_guard: u64,
}

impl ImageBorders {
    /// From the link script's symbols, of which only the addresses mean anything.
    pub(crate) fn here() -> Self {
        Self {
            physical_start: (&raw const _image_physical) as u64,
            text_start: (&raw const _text_start) as u64,
            text_end: (&raw const _text_end) as u64,
            rodata_end: (&raw const _rodata_end) as u64,
            end: (&raw const _image_end) as u64,
            stack_guard: (&raw const boot_stack_guard) as u64,
        }
    }

    /// First byte behind the image, physical.
    pub(crate) fn physical_end(&self) -> u64 {
        self.end - IMAGE_BASE
    }
}
