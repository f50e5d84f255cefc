//! Word to the service manager that started the agent, where one did: ready, stopping, and still alive.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::task::JoinHandle;

/// Tells that the agent lives as often as the service manager wants to hear it; ends when dropped.
pub struct Heartbeat(Option<JoinHandle<()>>);

/// The agent answers commands and takes connections from now on.
///
/// Must be called within a tokio runtime.
pub fn ready() -> Heartbeat {
    tell(NotifyState::Ready);
    // Twice within the time, so that one late word is no reason to kill the agent.
    let task = sd_notify::watchdog_enabled().map(|within| tokio::spawn(beat(within / 2)));
    Heartbeat(task)
}

/// The agent ends by itself or because it was told to.
pub fn stopping() {
    tell(NotifyState::Stopping);
}

async fn beat(pause: Duration) {
    loop {
        tell(NotifyState::Watchdog);
        tokio::time::sleep(pause).await;
    }
}

fn tell(state: NotifyState<'_>) {
    // Without a service manager there is nobody to tell, and that is fine.
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::debug!("cannot reach the service manager: {error}");
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        if let Some(task) = self.0.take() {
            task.abort();
        }
    }
}
