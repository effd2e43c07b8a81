//! Device registers: ranges of physical addresses that are mapped one to one.

/// What a register can be wide.
pub(crate) trait Register: Copy {}
impl Register for u8 {}
impl Register for u16 {}
impl Register for u32 {}

/// The registers of a device, or a part of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mmio {
    address: usize,
    bytes: usize,
}

impl Mmio {
    /// The registers in `[address, address + bytes)`.
    ///
    /// # Safety
    /// The range is a device's memory BAR, mapped one to one, and its holder tells the device no
    /// DMA addresses but those of buffers from [`crate::dma`] that it keeps its hands off meanwhile.
    pub(crate) unsafe fn new(address: usize, bytes: usize) -> Self {
        Self { address, bytes }
    }

    /// A part of the registers; `None` if it is not wholly inside or not aligned to a word.
    pub(crate) fn part(self, offset: usize, bytes: usize) -> Option<Self> {
        let end = offset.checked_add(bytes)?;
        let address = self.address.checked_add(offset)?;
        (end <= self.bytes && address.is_multiple_of(4)).then_some(Self { address, bytes })
    }

    /// Bytes of the range.
    pub(crate) fn bytes(self) -> usize {
        self.bytes
    }

    /// Reads a register.
    pub(crate) fn read<T: Register>(self, offset: usize) -> T {
        // SAFETY: `register` gives an aligned address inside the range; `new` promised that a
        // device is there.
        unsafe { self.register::<T>(offset).read_volatile() }
    }

    /// Writes a register.
    pub(crate) fn write<T: Register>(self, offset: usize, value: T) {
        // SAFETY: as in `read`; what the write makes the device do is bounded by `new`.
        unsafe { self.register::<T>(offset).write_volatile(value) }
    }

    fn register<T: Register>(self, offset: usize) -> *mut T {
        let end = offset.checked_add(size_of::<T>());
        assert!(
            end.is_some_and(|end| end <= self.bytes) && offset.is_multiple_of(size_of::<T>()),
            "register {offset:#x} of a device with {:#x} bytes",
            self.bytes
        );
        (self.address + offset) as *mut T
    }
}
