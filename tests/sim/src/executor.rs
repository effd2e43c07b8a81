//! Tasks in virtual time, on one thread: of those that are ready, chance takes one; time goes on by a
//! little with every poll, and to the next timer when nobody is ready. The same seed gives the same
//! run, always.

use crate::random::Random;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

/// What a poll takes at most, microseconds.
const POLL_US_MAX: u64 = 40;

/// Whose a task is: all of an owner's end together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owner {
    /// dom0 of a host.
    Dom0(usize),
}

struct Task {
    owner: Owner,
    waker: Waker,
    future: Pin<Box<dyn Future<Output = ()>>>,
}

type Ready = Arc<Mutex<BTreeSet<u64>>>;

struct TaskWaker {
    id: u64,
    ready: Ready,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.ready.lock().expect("one thread").insert(self.id);
    }
}

/// Runs tasks.
pub struct Executor {
    now_us: Cell<u64>,
    last: Cell<u64>,
    tasks: RefCell<BTreeMap<u64, Task>>,
    ready: Ready,
    timers: RefCell<BTreeMap<(u64, u64), Waker>>,
    random: Random,
    polls: Cell<u64>,
}

impl Executor {
    /// One without tasks.
    pub fn new(random: Random) -> Rc<Self> {
        Rc::new(Self {
            now_us: Cell::new(1_000_000),
            last: Cell::new(0),
            tasks: RefCell::default(),
            ready: Ready::default(),
            timers: RefCell::default(),
            random,
            polls: Cell::new(0),
        })
    }

    /// What time it is, microseconds.
    pub fn now_us(&self) -> u64 {
        self.now_us.get()
    }

    /// Polls so far.
    pub fn polls(&self) -> u64 {
        self.polls.get()
    }

    fn count(&self) -> u64 {
        self.last.set(self.last.get() + 1);
        self.last.get()
    }

    /// Adds a task.
    pub fn spawn(&self, owner: Owner, future: impl Future<Output = ()> + 'static) {
        let id = self.count();
        let ready = Arc::clone(&self.ready);
        let waker = Waker::from(Arc::new(TaskWaker { id, ready }));
        waker.wake_by_ref();
        let future = Box::pin(future);
        let task = Task {
            owner,
            waker,
            future,
        };
        self.tasks.borrow_mut().insert(id, task);
    }

    /// Drops all tasks of an owner, wherever they are.
    pub fn kill(&self, owner: Owner) {
        let mut dead = Vec::new();
        self.tasks.borrow_mut().retain(|_, task| {
            let keep = task.owner != owner;
            if !keep {
                let future = std::mem::replace(&mut task.future, Box::pin(async {}));
                dead.push(future);
            }
            keep
        });
        // Not while the list is borrowed: what they hold may wake others.
        drop(dead);
    }

    /// Waits until `us`.
    pub fn sleep_until(self: &Rc<Self>, us: u64) -> Sleep {
        Sleep {
            executor: Rc::clone(self),
            until_us: us,
            timer: None,
        }
    }

    /// Polls one task, or lets time pass until somebody is ready, at most until `limit_us`.
    pub fn step(&self, limit_us: u64) {
        self.fire();
        let picked = {
            let mut ready = self.ready.lock().expect("one thread");
            let nth = match ready.len() {
                0 => None,
                count => ready
                    .iter()
                    .nth(self.random.below(count as u64) as usize)
                    .copied(),
            };
            if let Some(id) = nth {
                ready.remove(&id);
            }
            nth
        };
        match picked {
            Some(id) => self.poll(id),
            None => {
                let next = self.timers.borrow().keys().next().map(|(us, _)| *us);
                let next_us = next.map_or(limit_us, |us| us.min(limit_us));
                self.now_us.set(next_us.max(self.now_us.get()));
            }
        }
    }

    fn fire(&self) {
        let now_us = self.now_us.get();
        loop {
            let mut timers = self.timers.borrow_mut();
            match timers.first_entry() {
                Some(first) if first.key().0 <= now_us => first.remove().wake(),
                Some(_) | None => break,
            }
        }
    }

    fn poll(&self, id: u64) {
        let Some(mut task) = self.tasks.borrow_mut().remove(&id) else {
            return;
        };
        self.polls.set(self.polls.get() + 1);
        let took_us = self.random.between(1, POLL_US_MAX);
        self.now_us.set(self.now_us.get() + took_us);
        let waker = task.waker.clone();
        let polled = task.future.as_mut().poll(&mut Context::from_waker(&waker));
        if polled.is_pending() {
            self.tasks.borrow_mut().insert(id, task);
        }
    }
}

/// Waits until a time.
pub struct Sleep {
    executor: Rc<Executor>,
    until_us: u64,
    timer: Option<(u64, u64)>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.executor.now_us() >= self.until_us {
            return Poll::Ready(());
        }
        let key = match self.timer {
            Some(key) => key,
            None => (self.until_us, self.executor.count()),
        };
        self.timer = Some(key);
        let mut timers = self.executor.timers.borrow_mut();
        timers.insert(key, context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.timer {
            self.executor.timers.borrow_mut().remove(&key);
        }
    }
}
