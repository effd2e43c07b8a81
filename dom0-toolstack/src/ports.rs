//! I/O ports of devices passed to dom0, which its permission map lets through.

use x86_64::instructions::port::{Port, PortRead, PortWrite};

/// A range of ports of a device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ports {
    first: u16,
    count: u16,
}

impl Ports {
    /// `count` ports from `first` on.
    ///
    /// # Safety
    /// They are a passed device's, and its holder tells the device no DMA addresses but those of
    /// memory that it keeps for it meanwhile.
    pub(crate) unsafe fn new(first: u16, count: u16) -> Self {
        Self { first, count }
    }

    /// How many there are.
    pub(crate) fn count(self) -> u16 {
        self.count
    }

    /// The ports from `offset` on; `None` if there are not `count`.
    pub(crate) fn part(self, offset: u16, count: u16) -> Option<Self> {
        let fits = offset
            .checked_add(count)
            .is_some_and(|end| end <= self.count);
        fits.then(|| Self {
            first: self.first + offset,
            count,
        })
    }

    /// Reads a port.
    pub(crate) fn read<T: PortRead>(self, offset: u16) -> T {
        // SAFETY: `port` gives a port of the device that `new` promised.
        unsafe { Port::new(self.port::<T>(offset)).read() }
    }

    /// Writes a port.
    pub(crate) fn write<T: PortWrite>(self, offset: u16, value: T) {
        // SAFETY: as in `read`; what the write makes the device do is bounded by `new`.
        unsafe { Port::new(self.port::<T>(offset)).write(value) }
    }

    fn port<T>(self, offset: u16) -> u16 {
        let end = usize::from(offset) + size_of::<T>();
        assert!(
            end <= usize::from(self.count),
            "port {offset:#x} of a device with {:#x}",
            self.count
        );
        self.first + offset
    }
}
