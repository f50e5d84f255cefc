//! Pairing: two devices that know the same short code come to trust each other's keys.
//!
//! SPAKE2 turns the code into a key that is worth nothing to who listens; a guess costs a whole attempt, and one wrong
//! guess ends the code. Both sides then prove that key over everything that was said, both device ids and the secret of
//! this very TLS connection, so nobody can stand in between. The joining side proves first: an attempt that breaks off
//! before has learnt nothing, so it does not use up the code.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ring::hmac;
use serde::{Deserialize, Serialize};
use spake2::{Ed25519Group, Spake2};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::NetError;
use super::bounds::{NAME_CHARS_MAX, clean_text};
use super::codec::{CodecError, labelled_folders, pack, unpack};
use super::connection::stream_error;
use super::pairing_code::{Nameplate, PairingCode};
use super::tls::Secured;
use super::wire::List;
use crate::core::id::{DeviceId, FolderId};
use crate::failpoint;

/// How long a code is good for, in seconds.
pub const PAIRING_SECONDS: u64 = 300;
/// How long the exchange may take once the devices are connected.
const EXCHANGE_SECONDS: u64 = 30;
/// Largest message before the other side has proved that it knows the code.
const MESSAGE_BYTES_MAX: usize = 4 * 1024;
/// Largest greeting.
const GREETING_BYTES_MAX: usize = 32 * 1024;
/// Most folders in a greeting; the device hello tells of all.
const GREETING_FOLDERS_MAX: usize = 64;

const SPAKE: u8 = 1;
const PROOF: u8 = 2;
const GREETING: u8 = 3;
const REFUSAL: u8 = 4;

/// The other device, once both have proved that they know the code.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Paired {
    pub device: DeviceId,
    pub name: String,
    /// Its folders with their labels.
    pub folders: Vec<(FolderId, String)>,
}

/// Why pairing did not work.
#[derive(Debug, thiserror::Error)]
pub enum PairError {
    #[error("the pairing code is wrong, and used up by this attempt; show a new one with: p2psync pair")]
    WrongCode,
    #[error("the pairing code was already used or withdrawn; show a new one with: p2psync pair")]
    Refused,
    #[error("a newer 'p2psync pair' on this device shows another code; this one is void")]
    Replaced,
    #[error("the pairing code has expired; show a new one with: p2psync pair")]
    Expired,
    #[error("the connection for pairing failed")]
    Network(#[from] NetError),
}

/// What a device tells of itself to the one it pairs with.
#[derive(Clone, Debug)]
pub struct Greeting {
    pub name: String,
    pub folders: Vec<(FolderId, String)>,
}

/// A code that this device shows: good for one try.
///
/// Several devices may be in the middle of an attempt, but only the first proof is looked at.
pub struct ShownCode {
    code: PairingCode,
    state: Mutex<State>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Open,
    Used,
    Expired,
}

impl ShownCode {
    pub fn new(code: PairingCode) -> Self {
        Self { code, state: Mutex::new(State::Open) }
    }

    pub fn code(&self) -> &PairingCode {
        &self.code
    }

    pub fn nameplate(&self) -> Nameplate {
        self.code.nameplate()
    }

    /// Ends the code: its time is over, or the user changed their mind.
    pub fn expire(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if *state == State::Open {
            *state = State::Expired;
        }
    }

    pub fn is_open(&self) -> bool {
        self.check().is_ok()
    }

    fn check(&self) -> Result<(), PairError> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).check()
    }

    /// Takes the only try that there is.
    fn use_up(&self) -> Result<(), PairError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.check()?;
        *state = State::Used;
        Ok(())
    }
}

impl State {
    fn check(self) -> Result<(), PairError> {
        match self {
            State::Open => Ok(()),
            State::Used => Err(PairError::Refused),
            State::Expired => Err(PairError::Expired),
        }
    }
}

/// Pairs with the device that shows `code`. The connection is used up.
pub async fn pair_as_joiner(
    secured: Secured,
    code: &PairingCode,
    own: DeviceId,
    greeting: &Greeting,
) -> Result<Paired, PairError> {
    let (peer, exporter, stream) = (secured.peer, secured.exporter, secured.stream);
    in_time(join(stream, code, Parties { joiner: own, shower: peer, exporter }, greeting)).await
}

/// Pairs with a device that has connected while `shown` is open. The connection is used up.
pub async fn pair_as_shower(
    secured: Secured,
    shown: &ShownCode,
    own: DeviceId,
    greeting: &Greeting,
) -> Result<Paired, PairError> {
    let (peer, exporter, stream) = (secured.peer, secured.exporter, secured.stream);
    in_time(show(stream, shown, Parties { joiner: peer, shower: own, exporter }, greeting)).await
}

/// As [`pair_as_joiner`], over any stream. For tests.
#[cfg(feature = "testing")]
pub async fn join_over<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    code: &PairingCode,
    devices: (DeviceId, DeviceId),
    greeting: &Greeting,
) -> Result<Paired, PairError> {
    let (joiner, shower) = devices;
    in_time(join(stream, code, Parties { joiner, shower, exporter: [0; 32] }, greeting)).await
}

/// As [`pair_as_shower`], over any stream. For tests.
#[cfg(feature = "testing")]
pub async fn show_over<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    shown: &ShownCode,
    devices: (DeviceId, DeviceId),
    greeting: &Greeting,
) -> Result<Paired, PairError> {
    let (joiner, shower) = devices;
    in_time(show(stream, shown, Parties { joiner, shower, exporter: [0; 32] }, greeting)).await
}

/// What a greeting of these bytes says. For tests.
#[cfg(feature = "testing")]
pub fn read_greeting(device: DeviceId, body: &[u8]) -> Result<Paired, PairError> {
    unpack_greeting(device, body)
}

/// The bytes of a greeting. For tests.
#[cfg(feature = "testing")]
pub fn write_greeting(greeting: &Greeting) -> Result<Vec<u8>, PairError> {
    pack_greeting(greeting)
}

/// What a pairing is bound to.
struct Parties {
    joiner: DeviceId,
    shower: DeviceId,
    exporter: [u8; 32],
}

#[derive(Clone, Copy)]
enum Role {
    Joiner,
    Shower,
}

async fn join<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    code: &PairingCode,
    parties: Parties,
    greeting: &Greeting,
) -> Result<Paired, PairError> {
    let (exchange, ours) = start(code, &parties, Role::Joiner);
    send(&mut stream, SPAKE, &ours).await?;
    failpoint::hit("pairing.asked");
    let theirs = receive(&mut stream, SPAKE, MESSAGE_BYTES_MAX).await?;
    let key = finish(exchange, &theirs)?;
    let transcript = [ours, theirs];
    send(&mut stream, PROOF, hmac::sign(&key, &proven(Role::Joiner, &transcript, &parties)).as_ref()).await?;
    failpoint::hit("pairing.proved");
    let proof = receive(&mut stream, PROOF, MESSAGE_BYTES_MAX).await?;
    hmac::verify(&key, &proven(Role::Shower, &transcript, &parties), &proof).map_err(|_| PairError::WrongCode)?;
    send(&mut stream, GREETING, &pack_greeting(greeting)?).await?;
    failpoint::hit("pairing.greeted");
    let theirs = receive(&mut stream, GREETING, GREETING_BYTES_MAX).await?;
    let paired = unpack_greeting(parties.shower, &theirs)?;
    end(&mut stream).await;
    Ok(paired)
}

async fn show<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    shown: &ShownCode,
    parties: Parties,
    greeting: &Greeting,
) -> Result<Paired, PairError> {
    let outcome = show_inner(&mut stream, shown, &parties, greeting).await;
    if let Err(error) = &outcome {
        // The connection may be gone; the outcome stands anyway.
        let _ = send(&mut stream, REFUSAL, &[refusal_number(error)]).await;
    }
    end(&mut stream).await;
    outcome
}

async fn show_inner<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    shown: &ShownCode,
    parties: &Parties,
    greeting: &Greeting,
) -> Result<Paired, PairError> {
    shown.check()?;
    let (exchange, ours) = start(&shown.code, parties, Role::Shower);
    let theirs = receive_from_joiner(stream, SPAKE, MESSAGE_BYTES_MAX).await?;
    let key = finish(exchange, &theirs)?;
    let transcript = [theirs, ours];
    send(stream, SPAKE, &transcript[1]).await?;
    failpoint::hit("pairing.answered");
    let proof = receive_from_joiner(stream, PROOF, MESSAGE_BYTES_MAX).await?;
    // From here on the code is dead, whatever comes out.
    shown.use_up()?;
    failpoint::hit("pairing.used_up");
    hmac::verify(&key, &proven(Role::Joiner, &transcript, parties), &proof).map_err(|_| PairError::WrongCode)?;
    send(stream, PROOF, hmac::sign(&key, &proven(Role::Shower, &transcript, parties)).as_ref()).await?;
    send(stream, GREETING, &pack_greeting(greeting)?).await?;
    failpoint::hit("pairing.confirmed");
    let theirs = receive_from_joiner(stream, GREETING, GREETING_BYTES_MAX).await?;
    unpack_greeting(parties.joiner, &theirs)
}

fn start(code: &PairingCode, parties: &Parties, role: Role) -> (Spake2<Ed25519Group>, Vec<u8>) {
    let password = spake2::Password::new(code.password());
    let joiner = spake2::Identity::new(&parties.joiner.0);
    let shower = spake2::Identity::new(&parties.shower.0);
    match role {
        Role::Joiner => Spake2::start_a(&password, &joiner, &shower),
        Role::Shower => Spake2::start_b(&password, &joiner, &shower),
    }
}

fn finish(exchange: Spake2<Ed25519Group>, theirs: &[u8]) -> Result<hmac::Key, PairError> {
    let secret = exchange.finish(theirs).map_err(|e| malformed(&e.to_string()))?;
    Ok(hmac::Key::new(hmac::HMAC_SHA256, &secret))
}

/// What a proof covers: who proves, both SPAKE2 messages (the joiner's first), both devices, this connection.
fn proven(role: Role, transcript: &[Vec<u8>; 2], parties: &Parties) -> Vec<u8> {
    let role = match role {
        Role::Joiner => b'J',
        Role::Shower => b'S',
    };
    let mut all = b"p2psync pairing 1".to_vec();
    all.push(role);
    for part in [&transcript[0][..], &transcript[1], &parties.joiner.0, &parties.shower.0, &parties.exporter] {
        all.extend_from_slice(&(part.len() as u32).to_be_bytes());
        all.extend_from_slice(part);
    }
    all
}

#[derive(Serialize, Deserialize)]
struct WireGreeting<'a> {
    name: &'a str,
    #[serde(borrow)]
    folders: List<(&'a str, &'a str), GREETING_FOLDERS_MAX>,
}

/// The greeting with as many folders as fit.
fn pack_greeting(greeting: &Greeting) -> Result<Vec<u8>, PairError> {
    let name = clean_text(&greeting.name, NAME_CHARS_MAX);
    let labels: Vec<_> = greeting.folders.iter().map(|(id, label)| (id, clean_text(label, NAME_CHARS_MAX))).collect();
    let folders = labels.iter().take(GREETING_FOLDERS_MAX).map(|(id, label)| (id.as_str(), label.as_str())).collect();
    Ok(pack("greeting", &WireGreeting { name: &name, folders: List(folders) }).map_err(NetError::from)?)
}

fn unpack_greeting(device: DeviceId, body: &[u8]) -> Result<Paired, PairError> {
    let wire: WireGreeting<'_> = unpack("greeting", body).map_err(NetError::from)?;
    let folders = labelled_folders("greeting", wire.folders.0).map_err(NetError::from)?;
    Ok(Paired { device, name: clean_text(wire.name, NAME_CHARS_MAX), folders })
}

/// Two bytes of length (of what follows), one of type, the body.
async fn send<S: AsyncWrite + Unpin>(stream: &mut S, kind: u8, body: &[u8]) -> Result<(), PairError> {
    let length = u16::try_from(1 + body.len()).map_err(|_| malformed("too long"))?;
    let message = [&length.to_be_bytes()[..], &[kind], body].concat();
    stream.write_all(&message).await.map_err(stream_error)?;
    stream.flush().await.map_err(stream_error)?;
    Ok(())
}

async fn receive<S: AsyncRead + Unpin>(stream: &mut S, expected: u8, bytes_max: usize) -> Result<Vec<u8>, PairError> {
    let length = usize::from(stream.read_u16().await.map_err(stream_error)?);
    if length == 0 || length > bytes_max {
        return Err(NetError::from(CodecError::TooLong { bytes: length, max: bytes_max }).into());
    }
    let kind = stream.read_u8().await.map_err(stream_error)?;
    let mut body = vec![0; length - 1];
    stream.read_exact(&mut body).await.map_err(stream_error)?;
    match kind {
        REFUSAL => Err(refusal(&body)),
        kind if kind == expected => Ok(body),
        _ => Err(malformed("unexpected message")),
    }
}

/// As [`receive`]. A joiner has nothing to refuse: that a code was wrong is only true where this side has seen it.
async fn receive_from_joiner<S: AsyncRead + Unpin>(
    stream: &mut S,
    expected: u8,
    bytes_max: usize,
) -> Result<Vec<u8>, PairError> {
    receive(stream, expected, bytes_max).await.map_err(|error| match error {
        PairError::Network(_) => error,
        _ => malformed("a refusal by the joiner"),
    })
}

async fn end<S: AsyncWrite + Unpin>(stream: &mut S) {
    // All that counts has been said; a connection that is already gone needs no end.
    let _ = stream.shutdown().await;
}

fn refusal_number(error: &PairError) -> u8 {
    match error {
        PairError::WrongCode => 1,
        PairError::Expired => 2,
        PairError::Refused | PairError::Replaced | PairError::Network(_) => 0,
    }
}

fn refusal(body: &[u8]) -> PairError {
    match body {
        [1, ..] => PairError::WrongCode,
        [2, ..] => PairError::Expired,
        _ => PairError::Refused,
    }
}

fn malformed(what: &str) -> PairError {
    NetError::from(CodecError::Malformed { frame: "pairing", what: what.into() }).into()
}

async fn in_time(exchange: impl Future<Output = Result<Paired, PairError>>) -> Result<Paired, PairError> {
    let limit = Duration::from_secs(EXCHANGE_SECONDS);
    let timed_out = NetError::TimedOut { what: "pairing", seconds: EXCHANGE_SECONDS };
    tokio::time::timeout(limit, exchange).await.unwrap_or_else(|_| Err(timed_out.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{DuplexStream, duplex};

    const CODE: [u8; 5] = [1, 2, 3, 4, 5];

    fn parties() -> Parties {
        Parties { joiner: DeviceId([1; 32]), shower: DeviceId([2; 32]), exporter: [3; 32] }
    }

    fn greeting(name: &str) -> Greeting {
        Greeting { name: name.into(), folders: vec![("default".parse().unwrap(), "My\u{7} folder".into())] }
    }

    fn streams() -> (DuplexStream, DuplexStream) {
        duplex(64 * 1024)
    }

    async fn pair(
        typed: [u8; 5],
        shown: &ShownCode,
        at_joiner: Parties,
    ) -> (Result<Paired, PairError>, Result<Paired, PairError>) {
        let (a, b) = streams();
        let (code, to_shower, to_joiner) = (PairingCode::generate(typed), greeting("lap\ntop"), greeting("desk"));
        tokio::join!(join(a, &code, at_joiner, &to_shower), show(b, shown, parties(), &to_joiner))
    }

    #[tokio::test]
    async fn the_right_code_pairs_once_and_each_learns_the_other() {
        let shown = ShownCode::new(PairingCode::generate(CODE));
        let (joined, showed) = pair(CODE, &shown, parties()).await;
        let folders = vec![("default".parse().unwrap(), "My folder".to_string())];
        assert_eq!(
            joined.unwrap(),
            Paired { device: DeviceId([2; 32]), name: "desk".into(), folders: folders.clone() }
        );
        assert_eq!(showed.unwrap(), Paired { device: DeviceId([1; 32]), name: "laptop".into(), folders });
        let (again, _) = pair(CODE, &shown, parties()).await;
        assert!(matches!(again, Err(PairError::Refused)));
    }

    #[tokio::test]
    async fn one_wrong_guess_ends_the_code_and_both_learn_it() {
        let shown = ShownCode::new(PairingCode::generate(CODE));
        let (joined, showed) = pair([5; 5], &shown, parties()).await;
        assert!(matches!((joined, showed), (Err(PairError::WrongCode), Err(PairError::WrongCode))));
        assert!(!shown.is_open());
        let (joined, showed) = pair(CODE, &shown, parties()).await;
        assert!(matches!((joined, showed), (Err(PairError::Refused), Err(PairError::Refused))));
    }

    #[tokio::test]
    async fn an_expired_code_pairs_nobody() {
        let shown = ShownCode::new(PairingCode::generate(CODE));
        shown.expire();
        let (joined, showed) = pair(CODE, &shown, parties()).await;
        assert!(matches!((joined, showed), (Err(PairError::Expired), Err(PairError::Expired))));
    }

    #[tokio::test]
    async fn somebody_in_between_is_noticed_even_with_the_right_code() {
        let other_key = Parties { shower: DeviceId([9; 32]), ..parties() };
        let other_connection = Parties { exporter: [9; 32], ..parties() };
        for seen_by_joiner in [other_key, other_connection] {
            let shown = ShownCode::new(PairingCode::generate(CODE));
            let (joined, showed) = pair(CODE, &shown, seen_by_joiner).await;
            assert!(matches!((joined, showed), (Err(PairError::WrongCode), Err(PairError::WrongCode))));
        }
    }

    #[tokio::test]
    async fn an_attempt_that_proves_nothing_does_not_use_up_the_code() {
        let shown = ShownCode::new(PairingCode::generate(CODE));
        for garbage in [&b""[..], b"\xff\xff", b"\x00\x00", b"\x00\x02\x01A", b"\x00\x02\x63x", b"\x00\x03\x01AB"] {
            let (mut a, b) = streams();
            a.write_all(garbage).await.unwrap();
            drop(a);
            assert!(matches!(show(b, &shown, parties(), &greeting("desk")).await, Err(PairError::Network(_))));
        }
        assert!(shown.is_open());
        assert!(pair(CODE, &shown, parties()).await.0.is_ok());
    }

    #[tokio::test]
    async fn a_joiner_that_reflects_the_messages_it_gets_does_not_pair() {
        let shown = ShownCode::new(PairingCode::generate(CODE));
        let (mut a, b) = streams();
        let (exchange, ours) = start(&PairingCode::generate([7; 5]), &parties(), Role::Joiner);
        drop(exchange);
        let reflecting = async {
            send(&mut a, SPAKE, &ours).await.unwrap();
            let theirs = receive(&mut a, SPAKE, MESSAGE_BYTES_MAX).await.unwrap();
            send(&mut a, PROOF, &theirs[..32]).await.unwrap();
            receive(&mut a, PROOF, MESSAGE_BYTES_MAX).await
        };
        let to_joiner = greeting("desk");
        let (heard, showed) = tokio::join!(reflecting, show(b, &shown, parties(), &to_joiner));
        assert!(matches!((heard, showed), (Err(PairError::WrongCode), Err(PairError::WrongCode))));
    }

    #[tokio::test]
    async fn a_joiner_cannot_claim_that_the_code_was_wrong() {
        let shown = ShownCode::new(PairingCode::generate(CODE));
        let (mut a, b) = streams();
        send(&mut a, REFUSAL, &[1]).await.unwrap();
        assert!(matches!(show(b, &shown, parties(), &greeting("desk")).await, Err(PairError::Network(_))));
        assert!(shown.is_open());
    }

    #[tokio::test]
    async fn pairing_works_over_the_real_transport() {
        use super::super::tls::tests::{device, meet};
        let ((a, a_id), (b, b_id)) = (device(|_| false), device(|_| false));
        b.set_pairing_open(true);
        let (at_a, at_b) = meet(&a, None, &b).await;
        let shown = ShownCode::new(PairingCode::generate(CODE));
        let (code, ours, theirs) = (PairingCode::generate(CODE), greeting("a"), greeting("b"));
        let joining = pair_as_joiner(at_a.unwrap(), &code, a_id, &ours);
        let showing = pair_as_shower(at_b.unwrap(), &shown, b_id, &theirs);
        let (joined, showed) = tokio::join!(joining, showing);
        assert_eq!((joined.unwrap().device, showed.unwrap().device), (b_id, a_id));
    }
}
