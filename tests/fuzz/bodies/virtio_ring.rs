//! A guest that writes anything to its rings, descriptors, registers and memory, while a disk, a
//! network card and a console are served: never a panic, never work without an end, nothing
//! outside of the guest's memory (the arena sees to that), and every chain let go in the end.

use godwit_backends::fake::RamDisk;
use godwit_backends::frame::{Frame, FramePort};
use godwit_backends::memory::PAGE_BYTES;
use godwit_backends::virtio::block::Block;
use godwit_backends::virtio::console::{Console, Terminal};
use godwit_backends::virtio::fake::{Counter, Driver, drive, guest, negotiate, settle};
use godwit_backends::virtio::net::Net;
use godwit_backends::virtio::{Device, VirtioFunction};
use std::cell::Cell;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};

const PAGES: u64 = 32;
/// Rings of queue `n` are in three pages from page `1 + 3 * n` on.
const QUEUES_MAX: u64 = 3;
const SIZE: u16 = 16;
/// Bytes of an instruction of the input.
const STEP_BYTES: usize = 8;

/// A cable that repeats a frame a few times, and a keyboard that repeats a key.
struct Noise(Cell<u32>);

impl FramePort for Noise {
    fn send(&self, frame: Frame) -> bool {
        frame.bytes.len().is_multiple_of(2)
    }
    fn poll_receive(&self, _context: &mut Context<'_>) -> Poll<Frame> {
        let Some(left) = self.0.get().checked_sub(1) else {
            return Poll::Pending;
        };
        self.0.set(left);
        Poll::Ready(Frame {
            bytes: vec![0xff; 60 + left as usize * 100],
            ..Frame::default()
        })
    }
}

impl Terminal for Noise {
    fn write(&self, _bytes: &[u8]) {}
    fn poll_read(&self, _context: &mut Context<'_>, out: &mut [u8]) -> Poll<usize> {
        let Some(left) = self.0.get().checked_sub(1) else {
            return Poll::Pending;
        };
        self.0.set(left);
        out[0] = b'x';
        Poll::Ready(1)
    }
}

/// One input: the device and its features, then instructions of eight bytes: what, where, value.
/// Returns whether the device survived without a reset.
pub(crate) fn judge(input: &[u8]) -> bool {
    let Some(([kind, features], steps)) = input.split_first_chunk() else {
        return true;
    };
    let memory = guest(PAGES);
    let noise = Rc::new(Noise(Cell::new(0)));
    let (device, queues): (Rc<dyn Device>, u64) = match kind % 3 {
        0 => {
            let disk = RamDisk::new(memory.memory().clone(), 64, 512 << (3 * (kind >> 7)));
            (Block::new(disk, memory.memory().clone(), "fuzz", None), 1)
        }
        1 => (Net::new(noise.clone(), [2, 0, 0, 0, 0, 1], 1500), 3),
        _third => (Console::new(noise.clone(), 80, 25), 2),
    };
    let interrupts = Rc::new(Counter::default());
    let function = VirtioFunction::new(memory.clone(), device, interrupts);
    // Of the features, those of the rings by bit, of the device all or none.
    let mut wanted = 1 << 32 | u64::from(features & 3) << 28;
    if features & 4 != 0 {
        wanted |= 0xff_ffff;
    }
    negotiate(&function, wanted);
    let mut drivers: Vec<Driver> = (0..queues)
        .map(|n| Driver::new(&memory, (1 + 3 * n) * PAGE_BYTES, SIZE, features & 2 != 0))
        .collect();
    for (index, driver) in drivers.iter().enumerate() {
        driver.enable(&function, index as u16, 0);
    }
    drive(&function);
    let mut run = pin!(function.run());
    for step in steps.chunks_exact(STEP_BYTES) {
        let step = u64::from_le_bytes(step.try_into().expect("eight bytes"));
        let (what, place, value) = (step as u8, (step >> 8) as u16, step >> 24);
        let driver = &mut drivers[usize::from(what >> 4) % queues as usize];
        match what % 8 {
            // Anywhere in the rings and the data.
            0 => {
                let gpa = u64::from(place) % (PAGES * PAGE_BYTES - 8);
                memory
                    .write(gpa, &value.to_le_bytes())
                    .expect("guest memory");
            }
            // A descriptor: mostly of memory that there is, in pieces of 16 bytes.
            1 => {
                let gpa = value & 0x1_ffff;
                let bytes = (value >> 17 & 0xfff) as u32;
                let flags = (value >> 29 & 7) as u16;
                let next = (value >> 32) as u16 & 0x1f;
                driver.describe(
                    driver.setup.descriptors,
                    place % SIZE,
                    (gpa, bytes),
                    flags,
                    next,
                );
            }
            2 => driver.push(place % (SIZE + 1)),
            3 => driver.store(driver.setup.available_index(), place),
            4 => function.doorbell(value),
            5 => {
                function.write(
                    what >> 6,
                    u64::from(place) & 0x3fff,
                    1 << (value & 3),
                    value >> 2,
                );
                function.read(what >> 6, u64::from(place) & 0x3fff, 1 << (value & 3));
            }
            6 => noise.0.set(u32::from(place % 64)),
            _seventh => {
                assert!(settle(run.as_mut()).is_none(), "serving does not end");
            }
        }
    }
    assert!(settle(run.as_mut()).is_none(), "serving does not end");
    let survived = function.broken().is_none();
    assert!(
        survived || function.read(0, 0x14, 1) & 0x40 != 0,
        "the driver is told"
    );
    assert!(
        settle(pin!(function.quiesce())).is_some(),
        "nothing stays in flight"
    );
    assert!(
        (0..PAGES).all(|page| !memory.is_held(page)),
        "all is let go"
    );
    // What is saved is taken back, unless the rings are where none can be.
    let saved = function.save();
    if survived {
        function.restore(&saved).expect("its own state");
        assert_eq!(function.save(), saved);
    }
    survived
}

const _: () = assert!(QUEUES_MAX * 3 < PAGES);
