//! Seeing to domains that have ended, while the shell does something else.

use crate::executor::EventPort;
use crate::hypercall::Host;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::RefCell;
use critical_section::Mutex;
use embassy_sync::blocking_mutex::raw::CriticalSectionRawMutex;
use embassy_sync::signal::Signal;
use godwit_abi::{DomainId, ShutdownReason, text};
use godwit_toolstack::config::EndActions;
use godwit_toolstack::ends::{Ended, Ends};

#[derive(Default)]
struct State {
    ends: Ends,
    /// The domain whose console is being shown: it stays until its last words are.
    held: Option<DomainId>,
    notices: Vec<String>,
}

static STATE: Mutex<RefCell<Option<State>>> = Mutex::new(RefCell::new(None));

/// There are notices.
pub(super) static NOTICE: Signal<CriticalSectionRawMutex, ()> = Signal::new();
/// To who shows a console: some domain has changed its state.
pub(super) static CHANGED: Signal<CriticalSectionRawMutex, ()> = Signal::new();

fn with<T>(act: impl FnOnce(&mut State) -> T) -> T {
    critical_section::with(|cs| act(STATE.borrow_ref_mut(cs).get_or_insert_default()))
}

/// Remembers what to do when a domain just made ends, which it may have done already.
pub(super) fn watch(domain: DomainId, wishes: EndActions) {
    with(|state| state.ends.watch(domain, wishes));
    settle();
}

/// Keeps a domain from being destroyed, and lets go of the one before.
pub(super) fn hold(domain: Option<DomainId>) {
    with(|state| state.held = domain);
    settle();
}

/// What there is to tell the operator, once.
pub(super) fn notices() -> Vec<String> {
    NOTICE.reset();
    with(|state| core::mem::take(&mut state.notices))
}

/// Settles whenever some domain has changed its state.
#[embassy_executor::task]
pub(super) async fn attend(domain_state: EventPort) -> ! {
    loop {
        domain_state.wait().await;
        settle();
        CHANGED.signal(());
    }
}

fn settle() {
    let any = with(|state| {
        let ended = state.ends.settle(&Host, state.held);
        state.notices.extend(ended.iter().map(notice));
        !ended.is_empty()
    });
    if any {
        NOTICE.signal(());
    }
}

fn notice(ended: &Ended) -> String {
    let reason = ShutdownReason::from_number(ended.info.reason);
    let reason = reason.map_or("for a reason of another version", ShutdownReason::text);
    let (name, id) = (
        text(&ended.info.name),
        DomainId::from_raw(ended.info.domain),
    );
    match ended.destroyed {
        Ok(()) => format!("domain '{name}' (id {id}) has ended: {reason}"),
        Err(status) => {
            format!("domain '{name}' (id {id}) has ended: {reason}; destroying it failed: {status}")
        }
    }
}
