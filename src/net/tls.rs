//! TLS 1.3 with raw public keys on both sides (RFC 7250): the key is the device, there are no certificates.
//!
//! Who may connect is decided inside the handshake. A device that is not paired gets no further than that, unless
//! this device is showing a pairing code; then it may speak the pairing protocol and nothing else.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{Acceptor, AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage};
use rustls::sign::CertifiedKey;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, CommonState, DigitallySignedStruct, DistinguishedName,
    OtherError, ServerConfig, SignatureScheme,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::{LazyConfigAcceptor, TlsConnector, TlsStream};

use super::NetError;
use super::identity::Identity;
use crate::core::id::DeviceId;

/// Protocol name of a connection between paired devices.
const ALPN_SYNC: &[u8] = b"p2psync/1";
/// Protocol name of a further connection between paired devices, beside a running one.
const ALPN_LANE: &[u8] = b"p2psync-lane/1";
/// Protocol name of a connection that pairs two devices.
const ALPN_PAIR: &[u8] = b"p2psync-pair/1";
/// How long a handshake may take: a stranger shall not hold resources for longer.
const HANDSHAKE_SECONDS: u64 = 10;
/// Sent by the side that was dialled once it has accepted the other, so that a refusal is noticed while dialling.
const READY: u8 = 1;
/// What stands before the 32 bytes of an Ed25519 key in its DER form (RFC 8410).
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
const EXPORTER_LABEL: &[u8] = b"EXPORTER-p2psync-pairing";

/// Says whether a device is paired; asked inside every handshake.
pub type Trusted = Arc<dyn Fn(&DeviceId) -> bool + Send + Sync>;

/// What this device needs for its connections; one for the life of the agent.
pub struct Tls {
    own: DeviceId,
    provider: Arc<CryptoProvider>,
    certified: Arc<CertifiedKey>,
    trusted: Trusted,
    sync_server: Arc<ServerConfig>,
    pair_server: Arc<ServerConfig>,
    pairing_open: AtomicBool,
}

/// What a connection is for; both sides agreed on it in the handshake.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    Sync,
    /// To join a connection for syncing that is up.
    Lane,
    Pair,
}

/// What is encrypted. The TLS library reads a few KiB at a time; the buffer makes one call to the system of many.
pub type Wire = BufReader<TcpStream>;

/// Bytes read from the system at once.
const WIRE_BUFFER_BYTES: usize = 128 * 1024;

/// A connection whose other end has proved to be `peer`.
pub struct Secured {
    pub peer: DeviceId,
    pub purpose: Purpose,
    pub stream: TlsStream<Wire>,
    /// Secret of this very connection: what is bound to it can't be relayed to another.
    pub(super) exporter: [u8; 32],
}

impl Tls {
    pub fn new(identity: &Identity, trusted: Trusted) -> Result<Self, NetError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let key = rustls::crypto::ring::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(identity.pkcs8()))
            .map_err(|e| NetError::Handshake(e.to_string()))?;
        let own = identity.device_id();
        let spki = [&SPKI_PREFIX[..], &own.0].concat();
        let certified = Arc::new(CertifiedKey::new(vec![CertificateDer::from(spki)], key));
        let server = |rule, names: &[&[u8]]| server_config(&provider, &certified, KeyVerifier { own, rule }, names);
        let sync_server = server(Rule::Trusted(trusted.clone()), &[ALPN_SYNC, ALPN_LANE])?;
        let pair_server = server(Rule::Anyone, &[ALPN_PAIR])?;
        let pairing_open = AtomicBool::new(false);
        Ok(Self { own, provider, certified, trusted, sync_server, pair_server, pairing_open })
    }

    /// Lets strangers in for pairing, or no longer.
    pub fn set_pairing_open(&self, open: bool) {
        self.pairing_open.store(open, Ordering::Release);
    }

    pub fn own_id(&self) -> DeviceId {
        self.own
    }
}

/// The server's side of a handshake on a connection that was accepted.
pub async fn accept(stream: TcpStream, tls: &Tls) -> Result<Secured, NetError> {
    let stream = BufReader::with_capacity(WIRE_BUFFER_BYTES, stream);
    in_time(async {
        let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await.map_err(handshake_error)?;
        let wants_pairing = start.client_hello().alpn().is_some_and(|mut names| names.any(|n| n == ALPN_PAIR));
        // Without an open pairing the other configuration is used, which refuses that protocol name.
        let config = match wants_pairing && tls.pairing_open.load(Ordering::Acquire) {
            true => &tls.pair_server,
            false => &tls.sync_server,
        };
        let mut stream = start.into_stream(config.clone()).await.map_err(handshake_error)?;
        stream.write_all(&[READY]).await.map_err(handshake_error)?;
        stream.flush().await.map_err(handshake_error)?;
        secured(TlsStream::Server(stream))
    })
    .await
}

/// The dialling side of a handshake: `expect` is who must answer, `None` to pair with whoever does.
pub async fn connect(stream: TcpStream, expect: Option<DeviceId>, tls: &Tls) -> Result<Secured, NetError> {
    let (rule, alpn) = match expect {
        Some(device) => (Rule::Only(device, tls.trusted.clone()), ALPN_SYNC),
        None => (Rule::Anyone, ALPN_PAIR),
    };
    connect_for(stream, rule, alpn, tls).await
}

/// The same for a further connection with a peer.
pub async fn connect_lane(stream: TcpStream, peer: DeviceId, tls: &Tls) -> Result<Secured, NetError> {
    connect_for(stream, Rule::Only(peer, tls.trusted.clone()), ALPN_LANE, tls).await
}

async fn connect_for(stream: TcpStream, rule: Rule, alpn: &[u8], tls: &Tls) -> Result<Secured, NetError> {
    let stream = BufReader::with_capacity(WIRE_BUFFER_BYTES, stream);
    let config = client_config(tls, KeyVerifier { own: tls.own, rule }, alpn)?;
    // Never sent (SNI is off); the interface asks for some name.
    let name = ServerName::try_from("p2psync").map_err(|e| NetError::Handshake(e.to_string()))?;
    in_time(async {
        let mut stream = TlsConnector::from(config).connect(name, stream).await.map_err(handshake_error)?;
        if stream.read_u8().await.map_err(handshake_error)? != READY {
            return Err(NetError::Handshake("unexpected first byte".into()));
        }
        secured(TlsStream::Client(stream))
    })
    .await
}

async fn in_time(handshake: impl Future<Output = Result<Secured, NetError>>) -> Result<Secured, NetError> {
    let limit = Duration::from_secs(HANDSHAKE_SECONDS);
    let timed_out = NetError::TimedOut { what: "setting up the connection", seconds: HANDSHAKE_SECONDS };
    tokio::time::timeout(limit, handshake).await.unwrap_or(Err(timed_out))
}

fn secured(stream: TlsStream<Wire>) -> Result<Secured, NetError> {
    let failed = |what: &str| NetError::Handshake(what.into());
    let state: &CommonState = match &stream {
        TlsStream::Client(s) => s.get_ref().1,
        TlsStream::Server(s) => s.get_ref().1,
    };
    let purpose = match state.alpn_protocol() {
        Some(ALPN_SYNC) => Purpose::Sync,
        Some(ALPN_LANE) => Purpose::Lane,
        Some(ALPN_PAIR) => Purpose::Pair,
        _ => return Err(failed("no protocol was agreed on")),
    };
    let key = state.peer_certificates().and_then(|keys| keys.first()).ok_or_else(|| failed("no public key"))?;
    let peer = device_of(key).map_err(|_| failed("malformed public key"))?;
    let exporter = match &stream {
        TlsStream::Client(s) => s.get_ref().1.export_keying_material([0; 32], EXPORTER_LABEL, None),
        TlsStream::Server(s) => s.get_ref().1.export_keying_material([0; 32], EXPORTER_LABEL, None),
    };
    let exporter = exporter.map_err(|e| NetError::Handshake(e.to_string()))?;
    Ok(Secured { peer, purpose, stream, exporter })
}

fn server_config(
    provider: &Arc<CryptoProvider>,
    certified: &Arc<CertifiedKey>,
    verifier: KeyVerifier,
    names: &[&[u8]],
) -> Result<Arc<ServerConfig>, NetError> {
    let mut config = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| NetError::Handshake(e.to_string()))?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(certified.clone())));
    config.alpn_protocols = names.iter().map(|name| name.to_vec()).collect();
    // Every connection proves both keys anew: a ticket would outlive the removal of a peer.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}

fn client_config(tls: &Tls, verifier: KeyVerifier, alpn: &[u8]) -> Result<Arc<ClientConfig>, NetError> {
    let mut config = ClientConfig::builder_with_provider(tls.provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| NetError::Handshake(e.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(tls.certified.clone())));
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    Ok(Arc::new(config))
}

/// Whose key is good enough.
enum Rule {
    Trusted(Trusted),
    /// The one that was dialled, as long as it is trusted.
    Only(DeviceId, Trusted),
    /// Any key, for pairing.
    Anyone,
}

struct KeyVerifier {
    own: DeviceId,
    rule: Rule,
}

/// Carries the reason out of a handshake.
#[derive(Clone, Copy, Debug, thiserror::Error)]
enum Refusal {
    #[error("unknown device")]
    Unknown(DeviceId),
    #[error("other device than expected")]
    Other { expected: DeviceId, found: DeviceId },
    #[error("own key")]
    Itself,
}

impl KeyVerifier {
    fn check(&self, key: &CertificateDer<'_>, more: &[CertificateDer<'_>]) -> Result<(), rustls::Error> {
        let found = device_of(key)?;
        if !more.is_empty() {
            return Err(CertificateError::BadEncoding.into());
        }
        let refusal = match &self.rule {
            _ if found == self.own => Some(Refusal::Itself),
            Rule::Only(expected, _) if *expected != found => Some(Refusal::Other { expected: *expected, found }),
            Rule::Only(_, trusted) | Rule::Trusted(trusted) if !trusted(&found) => Some(Refusal::Unknown(found)),
            _ => None,
        };
        refusal.map_or(Ok(()), |r| Err(CertificateError::Other(OtherError(Arc::new(r))).into()))
    }
}

impl fmt::Debug for KeyVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyVerifier").finish_non_exhaustive()
    }
}

fn device_of(key: &CertificateDer<'_>) -> Result<DeviceId, rustls::Error> {
    let raw = key.as_ref().strip_prefix(&SPKI_PREFIX).and_then(|raw| <[u8; 32]>::try_from(raw).ok());
    raw.map(DeviceId).filter(|id| *id != DeviceId::NONE).ok_or_else(|| CertificateError::BadEncoding.into())
}

fn algorithms() -> WebPkiSupportedAlgorithms {
    rustls::crypto::ring::default_provider().signature_verification_algorithms
}

fn verify_signature(
    message: &[u8],
    key: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, rustls::Error> {
    let spki = SubjectPublicKeyInfoDer::from(key.as_ref());
    verify_tls13_signature_with_raw_key(message, &spki, signature, &algorithms())
}

fn no_tls12() -> rustls::Error {
    rustls::Error::General("only TLS 1.3 is spoken".into())
}

impl ClientCertVerifier for KeyVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        key: &CertificateDer<'_>,
        more: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.check(key, more).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _key: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_signature(message, key, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ServerCertVerifier for KeyVerifier {
    fn verify_server_cert(
        &self,
        key: &CertificateDer<'_>,
        more: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.check(key, more).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _key: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_signature(message, key, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// Makes of an error in a handshake what a person can act on.
fn handshake_error(error: io::Error) -> NetError {
    let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
        return NetError::Broken(error);
    };
    match tls {
        rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(reason))) => {
            match reason.downcast_ref::<Refusal>() {
                Some(Refusal::Unknown(id)) => NetError::UnknownDevice(*id),
                Some(Refusal::Other { expected, found }) => {
                    NetError::OtherDevice { expected: *expected, found: *found }
                }
                Some(Refusal::Itself) => NetError::Itself,
                None => NetError::Handshake(tls.to_string()),
            }
        }
        rustls::Error::AlertReceived(AlertDescription::CertificateUnknown) => NetError::NotTrusted,
        rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol) => NetError::NotPairing,
        other => NetError::Handshake(other.to_string()),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use tokio::net::TcpListener;

    /// A device that trusts those for which `trusts` holds.
    pub fn device(trusts: impl Fn(&DeviceId) -> bool + Send + Sync + 'static) -> (Tls, DeviceId) {
        let identity = Identity::generate();
        (Tls::new(&identity, Arc::new(trusts)).unwrap(), identity.device_id())
    }

    /// What both sides of a handshake over loopback come to: the dialling one first.
    pub async fn meet(
        dialler: &Tls,
        expect: Option<DeviceId>,
        server: &Tls,
    ) -> (Result<Secured, NetError>, Result<Secured, NetError>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let dialling = async { connect(TcpStream::connect(address).await.unwrap(), expect, dialler).await };
        let accepting = async { accept(listener.accept().await.unwrap().0, server).await };
        tokio::join!(dialling, accepting)
    }

    #[tokio::test]
    async fn devices_that_trust_each_other_know_whom_they_talk_to() {
        let ((a, a_id), (b, b_id)) = (device(|_| true), device(|_| true));
        let (at_a, at_b) = meet(&a, Some(b_id), &b).await;
        let (mut at_a, mut at_b) = (at_a.unwrap(), at_b.unwrap());
        assert_eq!((at_a.peer, at_a.purpose), (b_id, Purpose::Sync));
        assert_eq!((at_b.peer, at_b.purpose), (a_id, Purpose::Sync));
        assert_eq!(at_a.exporter, at_b.exporter);
        at_a.stream.write_all(b"hello").await.unwrap();
        at_a.stream.flush().await.unwrap();
        let mut heard = [0; 5];
        at_b.stream.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"hello");
    }

    #[tokio::test]
    async fn an_unknown_device_that_dials_is_refused_in_the_handshake_and_both_learn_why() {
        let ((a, a_id), (b, b_id)) = (device(|_| true), device(|_| false));
        let (at_a, at_b) = meet(&a, Some(b_id), &b).await;
        assert!(matches!(at_a.err(), Some(NetError::NotTrusted)));
        assert!(matches!(at_b.err(), Some(NetError::UnknownDevice(id)) if id == a_id));
    }

    #[tokio::test]
    async fn a_device_that_is_dialled_but_not_trusted_any_more_is_refused() {
        let ((a, _), (b, b_id)) = (device(|_| false), device(|_| true));
        let (at_a, at_b) = meet(&a, Some(b_id), &b).await;
        assert!(matches!(at_a.err(), Some(NetError::UnknownDevice(id)) if id == b_id));
        assert!(at_b.is_err());
    }

    #[tokio::test]
    async fn another_device_than_the_expected_one_is_refused_even_if_trusted() {
        let ((a, _), (b, b_id), (_, c_id)) = (device(|_| true), device(|_| true), device(|_| true));
        let (at_a, at_b) = meet(&a, Some(c_id), &b).await;
        assert!(
            matches!(at_a.err(), Some(NetError::OtherDevice { expected, found }) if (expected, found) == (c_id, b_id))
        );
        assert!(at_b.is_err());
    }

    #[tokio::test]
    async fn a_device_does_not_talk_to_itself() {
        let (a, a_id) = device(|_| true);
        let (dialled, accepted) = meet(&a, Some(a_id), &a).await;
        assert!(matches!(dialled.err(), Some(NetError::Itself)));
        assert!(accepted.is_err());
    }

    #[tokio::test]
    async fn strangers_can_pair_only_while_a_pairing_is_open() {
        let ((a, a_id), (b, _)) = (device(|_| false), device(|_| false));
        assert!(matches!(meet(&a, None, &b).await.0.err(), Some(NetError::NotPairing)));
        b.set_pairing_open(true);
        let (at_a, at_b) = meet(&a, None, &b).await;
        let at_b = at_b.unwrap();
        assert_eq!((at_a.unwrap().purpose, at_b.purpose, at_b.peer), (Purpose::Pair, Purpose::Pair, a_id));
        assert!(meet(&a, Some(b.own_id()), &b).await.1.is_err(), "an open pairing lets nobody in for syncing");
        b.set_pairing_open(false);
        assert!(matches!(meet(&a, None, &b).await.1.err(), Some(NetError::Handshake(_))));
    }

    #[tokio::test]
    async fn garbage_instead_of_a_handshake_is_an_error() {
        let (b, _) = device(|_| true);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let garbage = async {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
            stream
        };
        let accepting = async { accept(listener.accept().await.unwrap().0, &b).await };
        let (_open, accepted) = tokio::join!(garbage, accepting);
        assert!(accepted.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_stranger_that_says_nothing_is_dropped_after_a_while() {
        let (b, _) = device(|_| true);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _silent = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let accepted = accept(listener.accept().await.unwrap().0, &b).await;
        assert!(matches!(accepted.err(), Some(NetError::TimedOut { .. })));
    }
}
