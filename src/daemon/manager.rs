//! Tells the service manager that started the daemon how far it has come, as sd_notify(3) describes it.
//! Where nobody asks, with `NOTIFY_SOCKET` in the environment, nothing is sent.
//!
//! Invariant: serving does not depend on it; a message that cannot be sent costs a line in the log.

use sd_notify::NotifyState;

/// Every listener is open.
pub fn ready() {
    tell(&NotifyState::Ready);
}

/// The daemon accepts no more, and ends when its connections have.
pub fn stopping() {
    tell(&NotifyState::Stopping);
}

fn tell(state: &NotifyState<'_>) {
    // Two short datagrams in a life: the manager's queue takes them without a wait.
    if let Err(error) = sd_notify::notify(std::slice::from_ref(state)) {
        log::warn!("the service manager cannot be told {state}: {error} (NOTIFY_SOCKET)");
    }
}
