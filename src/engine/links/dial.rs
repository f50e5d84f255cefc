//! Dialling a peer: when, and at which of its addresses.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::task::JoinSet;
use tokio::time::{Duration, Instant};

use super::common::Common;
use super::session::{Established, LinkError, establish};
use crate::core::id::DeviceId;
use crate::net::NetError;
use crate::net::random_bytes;
use crate::net::socket;
use crate::net::tls::{self, Secured};

/// Head start of an address over the next one.
const HEAD_START: Duration = Duration::from_millis(250);
/// How long looking up a name may take.
const RESOLVE_SECONDS: u64 = 5;
/// Most addresses of one name that are tried.
const RESOLVED_MAX: usize = 4;
/// Most addresses that are tried at once.
const ADDRESSES_MAX: usize = 16;
/// Pause after a link has ended, and before the first repetition of a failed attempt.
const BACK_OFF_FIRST: Duration = Duration::from_secs(1);
/// Longest pause between attempts.
const BACK_OFF_MAX: Duration = Duration::from_secs(60);
/// A link that lasted as long was a good one.
const STABLE: Duration = Duration::from_secs(10);
/// Least time between two attempts, whatever is heard.
const ATTEMPTS_APART: Duration = Duration::from_secs(1);

/// When to dial one peer.
pub struct Dial {
    pub addresses: Vec<String>,
    pub is_running: bool,
    failures: u32,
    started: Option<Instant>,
    due: Instant,
}

impl Dial {
    pub fn new(addresses: Vec<String>, now: Instant) -> Self {
        Self { addresses, is_running: false, failures: 0, started: None, due: now }
    }

    /// When the next attempt is due; `None` while one is under way.
    pub fn due(&self) -> Option<Instant> {
        (!self.is_running).then_some(self.due)
    }

    pub fn start(&mut self, now: Instant) {
        self.is_running = true;
        self.started = Some(now);
    }

    /// There is nowhere to dial, until something is heard or the config changes.
    pub fn wait(&mut self, now: Instant) {
        self.due = now + BACK_OFF_MAX;
    }

    pub fn failed(&mut self, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        self.due = now + jittered(back_off(self.failures));
    }

    /// A link was up and is no longer.
    pub fn link_ended(&mut self, lasted: Duration, now: Instant) {
        self.failures = if lasted < STABLE { self.failures.saturating_add(1) } else { 1 };
        self.due = now + jittered(back_off(self.failures));
    }

    /// There is reason to believe that the peer can be reached now.
    pub fn hurry(&mut self, now: Instant) {
        self.due = self.started.map_or(now, |started| now.max(started + ATTEMPTS_APART));
    }

    /// Takes over the addresses of the config.
    pub fn set_addresses(&mut self, addresses: &[String], now: Instant) {
        if self.addresses != addresses {
            self.addresses = addresses.to_vec();
            self.failures = 0;
            self.hurry(now);
        }
    }
}

fn back_off(failures: u32) -> Duration {
    BACK_OFF_FIRST.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(BACK_OFF_MAX)
}

/// Up to a quarter more or less, so that two devices don't dial each other in step.
fn jittered(pause: Duration) -> Duration {
    let [random] = random_bytes::<1>();
    pause.mul_f64(0.75 + f64::from(random) / 512.0)
}

/// Tries all addresses, each a little later than the one before, until one answers as this peer.
pub async fn attempt(
    common: Arc<Common>,
    peer: DeviceId,
    named: Vec<String>,
    heard: Vec<SocketAddr>,
) -> Result<Established, LinkError> {
    let mut tries = JoinSet::new();
    let names = named.into_iter().filter(|name| heard.iter().all(|address| address.to_string() != *name));
    let hosts: Vec<Host> = heard.iter().map(|a| Host::Address(*a)).chain(names.map(Host::Name)).collect();
    for (host, n) in hosts.into_iter().take(ADDRESSES_MAX).zip(0u32..) {
        let common = common.clone();
        tries.spawn(async move {
            tokio::time::sleep(HEAD_START * n).await;
            try_host(&common, peer, host).await
        });
    }
    let mut worst: Option<LinkError> = None;
    while let Some(tried) = tries.join_next().await {
        match tried {
            Ok(Ok((secured, address))) => {
                // The others end before they have said anything.
                tries.abort_all();
                return establish(secured, address, true, &common).await;
            }
            Ok(Err(error)) => {
                if worst.as_ref().is_none_or(|known| weight(&error) > weight(known)) {
                    worst = Some(error);
                }
            }
            Err(_) => {}
        }
    }
    Err(worst.unwrap_or(LinkError::Net(NetError::Closed)))
}

enum Host {
    Address(SocketAddr),
    /// `HOST:PORT`.
    Name(String),
}

async fn try_host(common: &Common, peer: DeviceId, host: Host) -> Result<(Secured, SocketAddr), LinkError> {
    let addresses = match host {
        Host::Address(address) => vec![address],
        Host::Name(name) => resolve(&name).await?,
    };
    let mut failure = None;
    for address in addresses {
        match try_address(common, peer, address).await {
            Ok(secured) => return Ok((secured, address)),
            Err(error) => failure = Some(error),
        }
    }
    Err(failure.unwrap_or(NetError::Closed).into())
}

async fn try_address(common: &Common, peer: DeviceId, address: SocketAddr) -> Result<Secured, NetError> {
    let stream = socket::dial(address).await?;
    tls::connect(stream, Some(peer), &common.tls).await
}

/// The addresses of `HOST:PORT`.
pub async fn resolve(name: &str) -> Result<Vec<SocketAddr>, LinkError> {
    let looking = tokio::time::timeout(Duration::from_secs(RESOLVE_SECONDS), tokio::net::lookup_host(name));
    let timed_out = NetError::TimedOut { what: "looking up an address", seconds: RESOLVE_SECONDS };
    let found = looking.await.map_err(|_| timed_out)?;
    let found = found.map_err(|source| LinkError::Resolve { host: name.to_owned(), source })?;
    Ok(found.take(RESOLVED_MAX).collect())
}

/// Which of several failures tells a person most: what a device said, before that none was there.
fn weight(error: &LinkError) -> u8 {
    match error {
        LinkError::Net(NetError::NotTrusted) => 4,
        LinkError::Net(NetError::OtherDevice { .. } | NetError::Itself | NetError::Handshake(_)) => 3,
        LinkError::Resolve { .. } => 1,
        LinkError::Net(NetError::TimedOut { .. }) => 1,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_minute_and_are_jittered() {
        let pauses: Vec<u64> = (1..=8).map(|n| back_off(n).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        for _ in 0..100 {
            let pause = jittered(BACK_OFF_MAX);
            assert!(pause >= BACK_OFF_MAX.mul_f64(0.75) && pause <= BACK_OFF_MAX.mul_f64(1.25));
        }
    }

    #[test]
    fn what_is_heard_makes_an_attempt_due_but_no_more_than_one_a_second() {
        let now = Instant::now();
        let mut dial = Dial::new(vec![], now);
        (0..20).for_each(|_| dial.failed(now));
        assert!(dial.due().unwrap() > now + BACK_OFF_MAX / 2);
        dial.hurry(now);
        assert_eq!(dial.due(), Some(now));
        dial.start(now);
        assert_eq!(dial.due(), None);
        dial.is_running = false;
        dial.hurry(now);
        assert_eq!(dial.due(), Some(now + ATTEMPTS_APART));
    }
}
