//! A source of random bytes (virtio 1.2, 5.4).

use crate::virtio::console::no_state;
use crate::virtio::queue::Chain;
use crate::virtio::{CONFIG_BYTES_MAX, Device, Identity, Serving, VirtioFunction};
use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec::Vec;
use godwit_records::DecodeError;

const QUEUE_SIZES: &[u16] = &[16];
/// What has no class of its own.
const PCI_CLASS: u32 = 0xff_00_00;
const DEVICE_ID: u16 = 4;
/// Most bytes of one request; the driver asks again for more (5.4.6.2 allows any number).
const REQUEST_BYTES_MAX: usize = 1024;

/// Random bytes fit for keys.
pub trait RandomSource {
    /// Fills `out`.
    fn fill(&self, out: &mut [u8]);
}

/// The device.
pub struct Entropy {
    source: Rc<dyn RandomSource>,
}

impl Entropy {
    /// A device that gives bytes of `source`.
    pub fn new(source: Rc<dyn RandomSource>) -> Rc<Entropy> {
        Rc::new(Entropy { source })
    }

    fn give(&self, chain: &Chain) -> u32 {
        let mut bytes = [0; REQUEST_BYTES_MAX];
        let length = chain.writable_bytes().min(REQUEST_BYTES_MAX as u64) as usize;
        self.source.fill(&mut bytes[..length]);
        chain.write(0, &bytes[..length]) as u32
    }
}

impl Device for Entropy {
    fn identity(&self) -> Identity {
        Identity {
            device_id: DEVICE_ID,
            pci_class: PCI_CLASS,
        }
    }

    fn features(&self) -> u64 {
        0
    }

    fn consistent(&self, _features: u64) -> bool {
        true
    }

    fn queue_sizes(&self) -> &'static [u16] {
        QUEUE_SIZES
    }

    fn read_config(&self, _features: u64, _out: &mut [u8; CONFIG_BYTES_MAX]) {}

    fn write_config(&self, _features: u64, _offset: usize, _bytes: &[u8]) {}

    fn reset(&self) {}

    fn save(&self, _out: &mut Vec<u8>) {}

    fn restore(&self, bytes: &[u8]) -> Result<(), DecodeError> {
        no_state("entropy", bytes)
    }

    fn serve<'a>(&'a self, function: &'a VirtioFunction) -> Serving<'a> {
        let give = async |chain: &Chain| self.give(chain);
        Box::pin(async move { function.serve(0, 1, give).await })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::virtio::fake::{Counter, Driver, drive, guest, negotiate, settle};
    use core::pin::pin;

    struct Sevens;

    impl RandomSource for Sevens {
        fn fill(&self, out: &mut [u8]) {
            out.fill(7);
        }
    }

    #[test]
    fn buffers_are_filled_up_to_the_most() {
        let memory = guest(64);
        let interrupts = Rc::new(Counter::default());
        let device = Entropy::new(Rc::new(Sevens));
        let function = VirtioFunction::new(memory.clone(), device, interrupts);
        negotiate(&function, u64::MAX);
        let mut driver = Driver::new(&memory, 0x1000, 16, true);
        driver.enable(&function, 0, 1);
        drive(&function);
        driver.offer(&[], &[(0x8000, 10), (0x8010, 20)]).unwrap();
        driver.offer(&[], &[(0x9000, 4096)]).unwrap();
        driver.offer(&[(0x8000, 1)], &[]).unwrap();
        settle(pin!(function.run()).as_mut());
        let lengths: Vec<_> = core::iter::from_fn(|| driver.returned())
            .map(|r| r.1)
            .collect();
        assert_eq!(lengths, [30, 1024, 0]);
        let mut bytes = [0; 40];
        memory.read(0x8000, &mut bytes).unwrap();
        let sevens = |range: core::ops::Range<usize>| bytes[range].iter().all(|b| *b == 7);
        assert!(sevens(0..10) && sevens(16..36));
        assert_eq!((bytes[10], bytes[36]), (0, 0));
    }
}
