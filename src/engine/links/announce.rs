//! Announcements out and in.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::time::{Duration, Instant};

use super::LinkConfig;
use super::common::{Common, in_words, lock};
use super::dial::resolve;
use super::manager::LinkEvent;
use crate::net::discovery::{Discovery, Heard, Options};

/// Time between announcements.
const EVERY: Duration = Duration::from_secs(30);
/// Time between announcements while a pairing code is shown: somebody waits.
const EVERY_WHILE_PAIRING: Duration = Duration::from_secs(3);
/// Least time between two announcements, whatever is heard.
const APART: Duration = Duration::from_secs(1);
/// Most targets besides multicast.
const TARGETS_MAX: usize = 64;

/// Runs until it is aborted.
pub async fn run(common: Arc<Common>, events: mpsc::Sender<LinkEvent>) {
    let mut changed = common.changed.subscribe();
    let mut has_warned = false;
    loop {
        changed.mark_unchanged();
        let config = common.config();
        let targets = targets(&config).await;
        match Discovery::open(options(&config, targets.clone())) {
            Ok(discovery) => {
                has_warned = false;
                converse(&common, &events, &discovery, &config, targets).await;
            }
            Err(error) => {
                if !has_warned {
                    tracing::warn!("devices are not found by themselves: {}", in_words(&error));
                }
                has_warned = true;
                // A change of the config or a while later, whichever is first.
                let _ = tokio::time::timeout(EVERY, changed.changed()).await;
            }
        }
    }
}

/// Announces and hears until the options have changed.
async fn converse(
    common: &Common,
    events: &mpsc::Sender<LinkEvent>,
    discovery: &Discovery,
    config: &LinkConfig,
    opened_for: Vec<SocketAddr>,
) {
    let mut changed = common.changed.subscribe();
    let mut last: Option<Instant> = None;
    let mut next = Instant::now();
    loop {
        tokio::select! {
            heard = discovery.hear() => take(common, events, heard),
            () = discovery.interfaces_changed() => next = soon(last),
            () = common.announce_now.notified() => next = soon(last),
            Ok(()) = changed.changed() => if is_other(config, &common.config()) {
                return;
            },
            () = tokio::time::sleep_until(next) => {
                // Names may stand for other addresses by now.
                if !config.announce_to.is_empty() && targets(config).await != opened_for {
                    return;
                }
                discovery.announce(&common.announcement(), &common.identity).await;
                last = Some(Instant::now());
                next = Instant::now() + if lock(&common.pairing).is_some() { EVERY_WHILE_PAIRING } else { EVERY };
            }
        }
    }
}

fn take(common: &Common, events: &mpsc::Sender<LinkEvent>, heard: Heard) {
    let device = heard.announcement.device;
    if device == common.own {
        return;
    }
    let is_news = lock(&common.book).hear(&heard, Instant::now(), |id| common.is_peer(id));
    if is_news {
        tracing::debug!("heard {} at {}", device.short(), heard.address());
        // It shall know of us as fast.
        common.announce_now.notify_one();
    }
    if is_news || heard.announcement.pairing.is_some() {
        common.heard.send_modify(|n| *n += 1);
    }
    if common.is_peer(&device) {
        // Where the queue is full, the next announcement will do.
        let _ = events.try_send(LinkEvent::Heard(device));
    }
}

fn soon(last: Option<Instant>) -> Instant {
    last.map_or_else(Instant::now, |last| last + APART)
}

fn is_other(a: &LinkConfig, b: &LinkConfig) -> bool {
    let relevant = |c: &LinkConfig| (c.multicast, c.multicast_v4, c.multicast_v6, c.discovery_port);
    relevant(a) != relevant(b) || a.announce_to != b.announce_to
}

fn options(config: &LinkConfig, targets: Vec<SocketAddr>) -> Options {
    Options {
        multicast: config.multicast,
        group_v4: config.multicast_v4,
        group_v6: config.multicast_v6,
        port: config.discovery_port,
        targets,
    }
}

/// The addresses behind the configured names; what can't be found now is tried again later.
async fn targets(config: &LinkConfig) -> Vec<SocketAddr> {
    let mut targets = Vec::new();
    for name in config.announce_to.iter().take(TARGETS_MAX) {
        match resolve(name).await {
            Ok(found) => targets.extend(found),
            Err(error) => tracing::debug!("cannot announce to {name}: {}", in_words(&error)),
        }
    }
    targets
}
