//! Pairing: showing a code and waiting, or typing the one that another device shows.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::{Duration, Instant};

use super::common::{Common, in_words, lock};
use crate::core::id::FolderId;
use crate::net::pairing::{Greeting, PAIRING_SECONDS, PairError, Paired, ShownCode, pair_as_joiner, pair_as_shower};
use crate::net::pairing_code::{CodeError, Nameplate, PairingCode};
use crate::net::tls::{self, Secured};
use crate::net::{random_bytes, socket};

/// How long the device that shows a code is looked for: several of its announcements.
const SEARCH: Duration = Duration::from_secs(20);
/// Devices to which the joining side proves that it knows the code, at most: each that does not know it can make one
/// guess, and anybody can announce any number of devices that seem to show it.
const PROOFS_MAX: usize = 3;
/// Most devices that may be in the middle of an attempt.
const ATTEMPTS_MAX: usize = 8;

/// Why typing a code did not pair.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    #[error(transparent)]
    Code(#[from] CodeError),
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

    pub fn valid_seconds(&self) -> u64 {
        PAIRING_SECONDS
    }

    /// Waits until a device has paired, the code is used up, or its time is over. The caller then adds the device to
    /// the config.
    pub async fn wait(mut self) -> Result<Paired, PairError> {
        match tokio::time::timeout(Duration::from_secs(PAIRING_SECONDS), &mut self.outcome).await {
            Ok(Ok(outcome)) => outcome,
            // Another code took its place.
            Ok(Err(_)) => Err(PairError::Refused),
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
        tracing::info!("pairing with a device ({}) failed: {}", device.short(), in_words(error));
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
        let pairing = pairing.as_mut().filter(|p| p.under_way < ATTEMPTS_MAX)?;
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
            Err(PairError::WrongCode) => pairing.failure = Some(PairError::WrongCode),
            Err(PairError::Network(error)) => drop(pairing.failure.get_or_insert(PairError::Network(error))),
            // Says that another attempt was faster.
            Err(PairError::Refused | PairError::Expired) => {}
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

/// Finds the device that shows this code, and pairs with it.
pub async fn join(common: &Arc<Common>, code: &str, folders: Vec<(FolderId, String)>) -> Result<Paired, JoinError> {
    let code: PairingCode = code.parse()?;
    let greeting = Greeting { name: common.config().name.clone(), folders };
    let until = Instant::now() + SEARCH;
    let mut heard = common.heard.subscribe();
    let mut tried = BTreeSet::new();
    let (mut proofs, mut failure) = (0, None);
    // Whoever hears of a new device says where it is itself.
    common.announce_now.notify_one();
    loop {
        let showing = lock(&common.book).showing(&code.nameplate(), Instant::now());
        for address in showing.into_iter().filter(|address| tried.insert(*address)) {
            match join_at(common, address, &code, &greeting, &mut proofs).await {
                Ok(paired) => return Ok(paired),
                Err(error) => failure = Some(heavier(failure, error)),
            }
            if proofs >= PROOFS_MAX || Instant::now() >= until {
                break;
            }
        }
        if let Some(error) = failure.take_if(|e| proofs >= PROOFS_MAX || !matches!(e, PairError::Network(_))) {
            return Err(error.into());
        }
        if !matches!(tokio::time::timeout_at(until, heard.changed()).await, Ok(Ok(()))) {
            return Err(failure.map_or(JoinError::NotFound, JoinError::Pair));
        }
    }
}

/// Pairs with the device at this address; counts it in `proofs` where it comes to that.
async fn join_at(
    common: &Arc<Common>,
    address: SocketAddr,
    code: &PairingCode,
    greeting: &Greeting,
    proofs: &mut usize,
) -> Result<Paired, PairError> {
    let stream = socket::dial(address).await?;
    let secured = tls::connect(stream, None, &common.tls).await?;
    *proofs += 1;
    let paired = pair_as_joiner(secured, code, common.own, greeting).await?;
    common.note_address(paired.device, address);
    Ok(paired)
}

/// Of two failures the one that tells more: what a device said, before that it was not reached.
fn heavier(known: Option<PairError>, error: PairError) -> PairError {
    match known {
        Some(PairError::WrongCode) => PairError::WrongCode,
        Some(known) if matches!(error, PairError::Network(_)) => known,
        _ => error,
    }
}
