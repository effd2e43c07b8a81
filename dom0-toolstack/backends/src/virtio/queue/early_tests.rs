//! Chains whose memory has yet to come.

use super::*;
use crate::virtio::fake::{Driver, guest};

#[test]
fn a_chain_waits_for_its_memory_and_keeps_its_place() {
    let memory = guest(32);
    let mut driver = Driver::new(&memory, 0x1000, 8, false);
    let mut queue = Queue::start(memory, driver.setup, false, true).unwrap();
    let memory = Rc::clone(&queue.memory);
    // The table of indirect descriptors and two buffers.
    memory.absent().set(alloc::vec![1 << 4 | 1 << 6 | 1 << 7]);
    driver.offer(&[(0x9000, 8)], &[]).unwrap();
    driver
        .offer_indirect(0x4000, &[(0x6000, 8)], &[(0x7ff0, 8)])
        .unwrap();
    let first = queue.take().unwrap().expect("nothing of it is missing");
    assert!(queue.take().unwrap().is_none());
    assert_eq!(queue.arm(), Ok(0), "nobody is to look again");
    assert_eq!(memory.absent().wanted(), [4]);
    // What is put back behind it can be taken again.
    queue.put_back(first);
    assert_eq!(queue.arm(), Ok(1));
    let first = queue.take().unwrap().unwrap();
    assert!(memory.absent().fill(4..5));
    assert!(queue.take().unwrap().is_none());
    assert_eq!(memory.absent().wanted(), [6, 7]);
    assert!(!memory.is_held(6), "nobody works on it");
    memory.absent().fill(6..8);
    let second = queue.take().unwrap().expect("all has come");
    assert_eq!(queue.arm(), Ok(0));
    queue.complete(second, 8).unwrap();
    queue.complete(first, 0).unwrap();
    assert!(queue.is_idle());
}

#[test]
fn a_queue_that_the_driver_starts_on_absent_pages_waits_for_its_rings() {
    let memory = guest(32);
    let mut driver = Driver::new(&memory, 0x1000, 8, false);
    driver.offer(&[(0x9000, 8)], &[]).unwrap();
    let mut queue = Queue::start(memory, driver.setup, false, true).unwrap();
    let memory = Rc::clone(&queue.memory);
    let rings: alloc::collections::BTreeSet<u64> = queue
        .ring_pages()
        .into_iter()
        .flat_map(|(first, last)| first..=last)
        .collect();
    let words = rings.iter().fold(0, |words, page| words | 1u64 << page);
    memory.absent().set(alloc::vec![words]);
    assert!(queue.take().unwrap().is_none());
    assert_eq!(queue.arm(), Ok(0));
    // All are asked for at once.
    assert!(
        memory
            .absent()
            .wanted()
            .into_iter()
            .eq(rings.iter().copied())
    );
    for page in rings {
        assert!(queue.take().unwrap().is_none());
        assert!(memory.absent().fill(page..page + 1), "its device is called");
    }
    assert!(queue.take().unwrap().is_some());
}

#[test]
fn a_queue_goes_on_where_it_was_when_its_rings_come_after_a_new_dom0() {
    let memory = guest(32);
    let mut driver = Driver::new(&memory, 0x1000, 8, false);
    let mut queue = Queue::start(memory, driver.setup, false, true).unwrap();
    let memory = Rc::clone(&queue.memory);
    driver.offer(&[(0x9000, 8)], &[]).unwrap();
    driver.offer(&[(0x9100, 8)], &[]).unwrap();
    let first = queue.take().unwrap().unwrap();
    queue.complete(first, 0).unwrap();
    queue.publish().unwrap();
    // What is in the frame of a page that has not come is not what the guest wrote.
    let index = driver.setup.used_index();
    let mut written = [0; 2];
    memory.read(index, &mut written).unwrap();
    memory.write(index, &[0xee; 2]).unwrap();
    let page = index / crate::memory::PAGE_BYTES;
    memory.absent().set(alloc::vec![1 << page]);
    let mut again = Queue::resume(Rc::clone(&memory), driver.setup, false, true).unwrap();
    assert_eq!(memory.absent().wanted(), [page]);
    assert!(again.take().unwrap().is_none());
    memory.write(index, &written).unwrap();
    memory.absent().fill(page..page + 1);
    let second = again.take().unwrap().expect("it was in flight");
    assert_eq!(second.position(), 1);
    assert!(again.take().unwrap().is_none());
}
