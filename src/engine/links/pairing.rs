//! Pairing: showing a code and waiting, or typing the one that another device shows.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant};

use super::common::{Common, in_words, lock};
use crate::core::id::{DeviceId, FolderId};
use crate::net::interfaces;
use crate::net::pairing::{Greeting, PAIRING_SECONDS, PairError, Paired, ShownCode, pair_as_joiner, pair_as_shower};
use crate::net::pairing_code::{CodeError, Nameplate, PairingCode};
use crate::net::pairing_link::{self, LINK_ADDRESSES_MAX, PairingLink};
use crate::net::tls::{self, Secured};
use crate::net::{NetError, random_bytes, socket};

/// How long the device that shows a code is looked for: several of its announcements.
const SEARCH: Duration = Duration::from_secs(20);
/// Devices to which the joining side proves that it knows the code, at most: each that does not know it can make one
/// guess, and anybody can announce any number of devices that seem to show it.
const PROOFS_MAX: usize = 3;

/// Why typing a code did not pair.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    #[error(transparent)]
    Code(#[from] CodeError),
    #[error(transparent)]
    Link(#[from] pairing_link::LinkError),
    #[error(transparent)]
    Pair(#[from] PairError),
    #[error(
        "no device that shows this code was found: see that 'p2psync pair' still waits there and that both devices are on one network; without multicast use 'p2psync peer add' on both"
    )]
    NotFound,
}

/// The code that is shown at the moment.
pub struct Pairing {
    shown: Arc<ShownCode>,
    greeting: Greeting,
    outcome: oneshot::Sender<Result<Paired, PairError>>,
    under_way: usize,
    /// Of an attempt that may have used up the code.
    failure: Option<PairError>,
}

impl Pairing {
    /// The public part of the code, as long as it can be used.
    pub fn nameplate(&self) -> Option<Nameplate> {
        self.shown.is_open().then(|| self.shown.nameplate())
    }
}

/// A code that is being shown; dropping it withdraws the code.
pub struct Showing {
    common: Arc<Common>,
    shown: Arc<ShownCode>,
    outcome: oneshot::Receiver<Result<Paired, PairError>>,
}

impl Showing {
    /// The code to type on the other device.
    pub fn code(&self) -> String {
        self.shown.code().to_string()
    }

    /// The code as four words.
    pub fn words(&self) -> String {
        self.shown.code().words()
    }

    /// The code with this device and its addresses.
    pub fn link(&self) -> String {
        let common = &self.common;
        let addresses = interfaces::reachable(common.listening(), LINK_ADDRESSES_MAX);
        let (code, name) = (self.shown.code().clone(), common.config().name.clone());
        PairingLink { code, device: common.own, name, addresses }.to_string()
    }

    pub fn valid_seconds(&self) -> u64 {
        PAIRING_SECONDS
    }

    /// Waits until a device has paired, the code is used up, or its time is over. The caller then adds the device to
    /// the config.
    pub async fn wait(mut self) -> Result<Paired, PairError> {
        match tokio::time::timeout(Duration::from_secs(PAIRING_SECONDS), &mut self.outcome).await {
            Ok(Ok(outcome)) => outcome,
            // Another code took its place.
            Ok(Err(_)) => Err(PairError::Replaced),
            Err(_) => Err(PairError::Expired),
        }
    }
}

impl Drop for Showing {
    fn drop(&mut self) {
        self.shown.expire();
        let mut pairing = lock(&self.common.pairing);
        if pairing.as_ref().is_some_and(|p| Arc::ptr_eq(&p.shown, &self.shown)) {
            close(&self.common, &mut pairing);
        }
    }
}

/// Shows a new code in place of an earlier one.
pub fn show(common: &Arc<Common>, folders: Vec<(FolderId, String)>) -> Showing {
    let shown = Arc::new(ShownCode::new(PairingCode::generate(random_bytes())));
    let (sender, outcome) = oneshot::channel();
    let greeting = Greeting { name: common.config().name.clone(), folders };
    let pairing = Pairing { shown: shown.clone(), greeting, outcome: sender, under_way: 0, failure: None };
    let mut slot = lock(&common.pairing);
    if let Some(before) = slot.replace(pairing) {
        before.shown.expire();
    }
    common.tls.set_pairing_open(true);
    drop(slot);
    common.announce_now.notify_one();
    Showing { common: common.clone(), shown, outcome }
}

/// No code is shown any more; strangers are no longer let in.
fn close(common: &Common, slot: &mut Option<Pairing>) -> Option<Pairing> {
    common.tls.set_pairing_open(false);
    common.announce_now.notify_one();
    slot.take()
}

/// A device has connected to pair.
pub async fn answer(common: &Arc<Common>, secured: Secured) {
    let Some((attempt, greeting)) = Attempt::begin(common) else { return };
    let device = secured.peer;
    let outcome = pair_as_shower(secured, &attempt.shown, common.own, &greeting).await;
    if let Err(error) = &outcome {
        // Of all strangers together: each may have as many ids as it likes.
        if let Some(more) = common.say(DeviceId::NONE, "pairing") {
            tracing::info!("pairing with a device ({}) failed: {}{more}", device.short(), in_words(error));
        }
    }
    attempt.end(outcome);
}

/// One device's try; counted for as long as it goes on, however it ends.
struct Attempt {
    common: Arc<Common>,
    shown: Arc<ShownCode>,
}

impl Attempt {
    fn begin(common: &Arc<Common>) -> Option<(Self, Greeting)> {
        let mut pairing = lock(&common.pairing);
        let pairing = pairing.as_mut()?;
        // No limit of its own: each is a half-open connection, whose number is bounded with regard to the source. A
        // limit here would let a few that say nothing keep everybody else out.
        pairing.under_way += 1;
        Some((Self { common: common.clone(), shown: pairing.shown.clone() }, pairing.greeting.clone()))
    }

    fn end(self, outcome: Result<Paired, PairError>) {
        let mut slot = lock(&self.common.pairing);
        let Some(pairing) = slot.as_mut().filter(|p| Arc::ptr_eq(&p.shown, &self.shown)) else { return };
        match outcome {
            Ok(paired) => {
                if let Some(pairing) = close(&self.common, &mut slot) {
                    // Nobody waits any more: the other side will not be a peer either.
                    let _ = pairing.outcome.send(Ok(paired));
                }
            }
            // This very attempt has used up the code, so the others, which may go on for a while, come to nothing.
            Err(PairError::WrongCode) => {
                if let Some(pairing) = close(&self.common, &mut slot) {
                    let _ = pairing.outcome.send(Err(PairError::WrongCode));
                }
            }
            Err(PairError::Network(error)) => drop(pairing.failure.get_or_insert(PairError::Network(error))),
            // Says that another attempt was faster.
            Err(PairError::Refused | PairError::Replaced | PairError::Expired) => {}
        }
    }
}

/// When the last attempt is over and the code is used up, the failure is the outcome.
impl Drop for Attempt {
    fn drop(&mut self) {
        let mut slot = lock(&self.common.pairing);
        let Some(pairing) = slot.as_mut().filter(|p| Arc::ptr_eq(&p.shown, &self.shown)) else { return };
        pairing.under_way -= 1;
        if pairing.under_way == 0 && !self.shown.is_open() {
            let failure = pairing.failure.take().unwrap_or(PairError::Refused);
            if let Some(pairing) = close(&self.common, &mut slot) {
                let _ = pairing.outcome.send(Err(failure));
            }
        }
    }
}

/// A pairing that was joined.
#[derive(Debug)]
pub struct Joined {
    pub paired: Paired,
    /// Where the device of a link was reached: it may not be found again by multicast.
    pub address: Option<SocketAddr>,
}

/// Finds the device that shows this code, or that this link names, and pairs with it.
pub async fn join(common: &Arc<Common>, typed: &str, folders: Vec<(FolderId, String)>) -> Result<Joined, JoinError> {
    let greeting = Greeting { name: common.config().name.clone(), folders };
    if PairingLink::is_meant(typed) {
        return join_by_link(common, typed.parse()?, greeting).await;
    }
    let mut joining = Joining { common, code: typed.parse()?, device: None, greeting, proofs: 0, failure: None };
    Ok(Joined { paired: joining.search().await?, address: None })
}

/// Tries the addresses of a link, and where none leads to its device, looks for that by multicast.
async fn join_by_link(common: &Arc<Common>, link: PairingLink, greeting: Greeting) -> Result<Joined, JoinError> {
    let device = Some(link.device);
    let mut joining = Joining { common, code: link.code, device, greeting, proofs: 0, failure: None };
    let mut dials = JoinSet::new();
    for address in link.addresses {
        let common = common.clone();
        dials.spawn(async move { (address, dial(&common, address, device).await) });
    }
    while let Some(dialled) = dials.join_next().await {
        match dialled {
            Ok((address, Ok(secured))) => {
                // One connection is enough; the others have said nothing.
                dials.abort_all();
                let paired = joining.prove(secured, address).await?;
                return Ok(Joined { paired, address: Some(address) });
            }
            Ok((_, Err(error))) => joining.note(error),
            Err(_) => {}
        }
    }
    Ok(Joined { paired: joining.search().await?, address: None })
}

/// An attempt to pair with the device that shows a code.
struct Joining<'a> {
    common: &'a Arc<Common>,
    code: PairingCode,
    /// The device that it has to be, where that is known.
    device: Option<DeviceId>,
    greeting: Greeting,
    proofs: usize,
    /// What tells most of what went wrong so far.
    failure: Option<PairError>,
}

impl Joining<'_> {
    /// Tries every device that is heard to show this code, until one is the right one.
    async fn search(&mut self) -> Result<Paired, JoinError> {
        let until = Instant::now() + SEARCH;
        let mut heard = self.common.heard.subscribe();
        let mut tried = BTreeSet::new();
        // Whoever hears of a new device says where it is itself.
        self.common.announce_now.notify_one();
        loop {
            let showing = lock(&self.common.book).showing(&self.code.nameplate(), Instant::now());
            for address in showing.into_iter().filter(|address| tried.insert(*address)) {
                match self.join_at(address).await {
                    Ok(paired) => return Ok(paired),
                    Err(error) => self.note(error),
                }
                if self.proofs >= PROOFS_MAX || Instant::now() >= until {
                    break;
                }
            }
            let has_used_up = self.proofs >= PROOFS_MAX;
            if let Some(error) = self.failure.take_if(|e| has_used_up || !matches!(e, PairError::Network(_))) {
                return Err(error.into());
            }
            if !matches!(tokio::time::timeout_at(until, heard.changed()).await, Ok(Ok(()))) {
                return Err(self.failure.take().map_or(JoinError::NotFound, JoinError::Pair));
            }
        }
    }

    async fn join_at(&mut self, address: SocketAddr) -> Result<Paired, PairError> {
        let secured = dial(self.common, address, self.device).await?;
        self.prove(secured, address).await
    }

    /// Pairs over this connection.
    async fn prove(&mut self, secured: Secured, address: SocketAddr) -> Result<Paired, PairError> {
        self.proofs += 1;
        let paired = pair_as_joiner(secured, &self.code, self.common.own, &self.greeting).await?;
        self.common.note_address(paired.device, address);
        Ok(paired)
    }

    fn note(&mut self, error: PairError) {
        self.failure = Some(heavier(self.failure.take(), error));
    }
}

/// A connection for pairing with whoever listens there, or with this device only.
async fn dial(common: &Common, address: SocketAddr, expected: Option<DeviceId>) -> Result<Secured, PairError> {
    let stream = socket::dial(address).await?;
    let secured = tls::connect(stream, None, &common.tls).await?;
    match expected {
        Some(expected) if expected != secured.peer => {
            Err(NetError::OtherDevice { expected, found: secured.peer }.into())
        }
        _ => Ok(secured),
    }
}

/// Of two failures the one that tells more: what a device said, before that it was not reached.
fn heavier(known: Option<PairError>, error: PairError) -> PairError {
    match known {
        Some(PairError::WrongCode) => PairError::WrongCode,
        Some(known) if matches!(error, PairError::Network(_)) => known,
        _ => error,
    }
}
