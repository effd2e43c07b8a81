//! Seeing to domains that have ended, while the shell does something else.

use crate::executor::EventPort;
use crate::site::Tools;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::RefCell;
use critical_section::Mutex;
use embassy_futures::select::select;
use embassy_sync::blocking_mutex::raw::CriticalSectionRawMutex;
use embassy_sync::signal::Signal;
use godwit_abi::DomainId;

#[derive(Default)]
struct State {
    /// The domain whose console is being shown: it stays until its last words are.
    held: Option<DomainId>,
    notices: Vec<String>,
}

static STATE: Mutex<RefCell<Option<State>>> = Mutex::new(RefCell::new(None));

/// There are notices.
pub(super) static NOTICE: Signal<CriticalSectionRawMutex, ()> = Signal::new();
/// To who shows a console: some domain has changed its state.
pub(super) static CHANGED: Signal<CriticalSectionRawMutex, ()> = Signal::new();
/// Somebody wants the domains looked at.
static LOOK: Signal<CriticalSectionRawMutex, ()> = Signal::new();

fn with<T>(act: impl FnOnce(&mut State) -> T) -> T {
    critical_section::with(|cs| act(STATE.borrow_ref_mut(cs).get_or_insert_default()))
}

/// Has the domains looked at soon.
pub(super) fn look() {
    LOOK.signal(());
}

/// Keeps a domain from being destroyed, and lets go of the one before.
pub(super) fn hold(domain: Option<DomainId>) {
    with(|state| state.held = domain);
    look();
}

/// What there is to tell the operator, once.
pub(super) fn notices() -> Vec<String> {
    NOTICE.reset();
    with(|state| core::mem::take(&mut state.notices))
}

fn tell(lines: impl Iterator<Item = String>) {
    let any = with(|state| {
        let before = state.notices.len();
        state.notices.extend(lines);
        state.notices.len() > before
    });
    if any {
        NOTICE.signal(());
    }
}

/// Starts the domains that are to be started with the host, when this dom0 is the `first` since then;
/// then settles whenever some domain has changed its state.
#[embassy_executor::task]
pub(super) async fn attend(tools: &'static Tools, domain_state: EventPort, first: bool) -> ! {
    if first {
        tell(tools.autostart().await.into_iter());
    }
    loop {
        let ended = tools.settle(with(|state| state.held)).await;
        CHANGED.signal(());
        tell(ended.iter().map(|ended| format!("{ended}")));
        select(domain_state.wait(), LOOK.wait()).await;
    }
}
