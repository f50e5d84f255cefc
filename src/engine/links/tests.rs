//! Whole devices over loopback, without multicast.

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::*;
use crate::core::entry::Entry;
use crate::core::id::{EpochId, RunId};
use crate::core::message::{Announced, Batch, Hello, Message};
use crate::core::path::RelPath;
use crate::core::version::VersionVector;
use crate::net::announcement::Announcement;
use crate::net::codec::encode;
use crate::net::discovery::Heard;
use crate::net::frame::{Frame, WantedContent};
use crate::net::pairing::PairError;
use crate::net::pairing_code::PairingCode;
use crate::sync::Input;

/// Longest time that anything here may take.
const BOUND: Duration = Duration::from_secs(20);

pub(super) struct Device {
    pub id: DeviceId,
    pub identity: Arc<Identity>,
    pub config: LinkConfig,
    table: LinkTable,
    pub links: Links,
}

/// Requests that a peer could not serve, with their items.
type NotHere = Arc<Mutex<Vec<(u32, Vec<u16>)>>>;

/// What a folder hears, in order.
pub(super) struct Folder {
    inputs: mpsc::Receiver<Event>,
    served: Arc<AtomicUsize>,
    pub chunks: Arc<Mutex<Vec<u32>>>,
    not_here: NotHere,
    pub lost: Arc<AtomicUsize>,
}

fn base_config(name: &str) -> LinkConfig {
    LinkConfig {
        name: name.into(),
        agent: "p2psync test".into(),
        listen: ([127, 0, 0, 1], 0).into(),
        multicast: false,
        multicast_v4: crate::net::discovery::GROUP_V4,
        multicast_v6: crate::net::discovery::GROUP_V6,
        discovery_port: 0,
        announce_to: vec![],
        peers: vec![],
        folders: vec![],
    }
}

fn folder_id(name: &str) -> FolderId {
    name.parse().unwrap()
}

fn hello() -> Message {
    Message::Hello(Hello { epoch: EpochId(1), run: RunId(1), last_seq: 0, found: vec![], cursor: None })
}

impl Device {
    async fn start(name: &str) -> Self {
        Self::start_with(base_config(name), Arc::new(Identity::generate())).await
    }

    async fn start_with(config: LinkConfig, identity: Arc<Identity>) -> Self {
        let table = LinkTable::default();
        let links = Links::start(config.clone(), identity.clone(), table.clone()).await.unwrap();
        Self { id: identity.device_id(), identity, config, table, links }
    }

    /// Shares these folders with the peer, and dials it where there is an address.
    fn share(&mut self, peer: DeviceId, address: Option<SocketAddr>, folders: &[&str]) {
        self.config.peers.retain(|p| p.id != peer);
        let addresses = address.iter().map(SocketAddr::to_string).collect();
        self.config.peers.push(LinkPeer { id: peer, name: "other".into(), addresses });
        for folder in folders {
            let id = folder_id(folder);
            self.config.folders.retain(|f| f.id != id);
            self.config.folders.push(LinkFolder { id, label: folder.to_uppercase(), peers: [peer].into() });
        }
        self.links.set_config(self.config.clone());
    }

    pub fn run_folder(&self, name: &str) -> Folder {
        let (sender, inputs) = mpsc::channel(64);
        let (served, chunks, not_here, lost) = Default::default();
        let folder = Folder { inputs, served, chunks, not_here, lost };
        let lost = folder.lost.clone();
        let (served, chunks, not_here) = (folder.served.clone(), folder.chunks.clone(), folder.not_here.clone());
        let ports = FolderPorts {
            inputs: sender,
            serve: Arc::new(move |_, request| {
                served.fetch_add(1, SeqCst);
                request.id != u32::MAX
            }),
            chunks: Arc::new(move |_, answer| chunks.lock().unwrap().push(answer.request)),
            not_here: Arc::new(move |_, request, items| not_here.lock().unwrap().push((request, items))),
            have: Arc::new(|_, _| {}),
            gift: Arc::new(|_, _| {}),
            expects: Arc::new(|_, request| request == 7),
            ask_past: Arc::new(|_, _| {}),
            past: Arc::new(|_, _| {}),
            lane_lost: Arc::new(move |_| {
                lost.fetch_add(1, SeqCst);
            }),
            link_up: Arc::new(|_| {}),
            link_down: Arc::new(|_| {}),
        };
        self.links.add_folder(folder_id(name), ports);
        folder
    }

    pub fn link(&self, peer: DeviceId) -> Option<LinkHandle> {
        self.table.read().unwrap().get(&peer).cloned()
    }

    pub async fn linked(&self, peer: DeviceId) -> LinkHandle {
        until(|| self.link(peer)).await
    }

    pub fn status_of(&self, peer: DeviceId) -> LinkStatus {
        self.links.status().into_iter().find(|s| s.peer == peer).unwrap()
    }
}

impl Folder {
    /// The next input in words.
    pub async fn next(&mut self) -> String {
        match tokio::time::timeout(BOUND, self.inputs.recv()).await.expect("an input comes in time") {
            Some(Event::Input(Input::Connected(_))) => "connected".into(),
            Some(Event::Input(Input::Lost(_))) => "lost".into(),
            Some(Event::Message(_, Message::Hello(_), _)) => "hello".into(),
            Some(Event::Message(_, Message::Found(_), _)) => "found".into(),
            _ => "other".into(),
        }
    }
}

/// Polls until there is something.
pub(super) async fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let polling = async {
        loop {
            if let Some(found) = look() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(BOUND, polling).await.expect("it happens in time")
}

/// Two devices that share a folder; the first dials.
pub(super) async fn pair_of_devices() -> (Device, Device) {
    let (mut a, mut b) = (Device::start("a").await, Device::start("b").await);
    b.share(a.id, None, &["photos"]);
    a.share(b.id, Some(b.links.address()), &["photos"]);
    (a, b)
}

#[tokio::test]
async fn folders_that_both_sides_share_hear_of_the_link_and_of_messages_in_order() {
    let (mut a, mut b) = pair_of_devices().await;
    let (mut at_a, mut at_b) = (a.run_folder("photos"), b.run_folder("photos"));
    a.share(b.id, Some(b.links.address()), &["music"]);
    let mut music = a.run_folder("music");
    assert_eq!((at_a.next().await, at_b.next().await), ("connected".into(), "connected".into()));
    let link = a.linked(b.id).await;
    link.outbox.control(&Frame::Folder(folder_id("photos"), Message::Found(vec![]))).unwrap();
    link.outbox.control(&Frame::Folder(folder_id("photos"), hello())).unwrap();
    link.outbox.control(&Frame::Folder(folder_id("photos"), Message::Found(vec![]))).unwrap();
    link.outbox.control(&Frame::Folder(folder_id("music"), hello())).unwrap();
    assert_eq!((at_b.next().await, at_b.next().await), ("hello".into(), "found".into()));
    until(|| (!b.status_of(a.id).offers.is_empty()).then_some(())).await;
    let status = b.status_of(a.id);
    assert_eq!(status.offers, [(folder_id("music"), "MUSIC".to_string())]);
    assert!(status.connected && status.bytes_in > 0 && status.bytes_out > 0 && status.since_ms.is_some());
    assert!(music.inputs.try_recv().is_err());
    b.share(a.id, None, &["music"]);
    let mut music_at_b = b.run_folder("music");
    assert_eq!((music.next().await, music_at_b.next().await), ("connected".into(), "connected".into()));
    link.end("test");
    assert_eq!((at_a.next().await, at_b.next().await), ("lost".into(), "lost".into()));
}

#[tokio::test]
async fn requests_and_answers_find_their_folder() {
    let (a, b) = pair_of_devices().await;
    let (mut at_a, mut at_b) = (a.run_folder("photos"), b.run_folder("photos"));
    at_a.next().await;
    at_b.next().await;
    let (from_a, from_b) = (a.linked(b.id).await, b.linked(a.id).await);
    let wanted = |folder: &str, id| {
        let items: Vec<WantedContent> = vec![];
        Frame::Request(Request { id, folder: folder_id(folder), items })
    };
    let id = 7;
    from_a.outbox.control(&wanted("photos", id)).unwrap();
    until(|| (at_b.served.load(SeqCst) == 1).then_some(())).await;
    from_b.outbox.bulk(encode(&Frame::Chunks(Chunks { request: id, items: vec![] })).unwrap()).await.unwrap();
    from_b.outbox.bulk(encode(&Frame::Chunks(Chunks { request: u32::MAX, items: vec![] })).unwrap()).await.unwrap();
    from_b.outbox.control(&Frame::NotHere { request: id, items: vec![3] }).unwrap();
    until(|| (*at_a.chunks.lock().unwrap() == [id]).then_some(())).await;
    until(|| (*at_a.not_here.lock().unwrap() == [(id, vec![3])]).then_some(())).await;
    from_a.outbox.control(&wanted("photos", u32::MAX)).unwrap();
    assert_eq!(at_b.next().await, "lost");
    assert_eq!(at_a.next().await, "lost");
    assert!(until(|| b.status_of(a.id).last_error).await.contains("too much at once"));
}

#[tokio::test]
async fn a_folder_that_is_started_anew_is_met_anew_by_both_sides() {
    let (a, b) = pair_of_devices().await;
    let (mut at_a, mut at_b) = (a.run_folder("photos"), b.run_folder("photos"));
    assert_eq!((at_a.next().await, at_b.next().await), ("connected".into(), "connected".into()));
    let mut again = b.run_folder("photos");
    assert_eq!((at_b.next().await, again.next().await), ("lost".into(), "connected".into()));
    assert_eq!((at_a.next().await, at_a.next().await), ("lost".into(), "connected".into()));
    a.links.remove_folder(&folder_id("photos"));
    assert_eq!((at_a.next().await, again.next().await), ("lost".into(), "lost".into()));
}

#[tokio::test]
async fn crossed_dials_end_with_one_link() {
    for _ in 0..5 {
        let (mut a, mut b) = (Device::start("a").await, Device::start("b").await);
        let (a_address, b_address) = (a.links.address(), b.links.address());
        a.share(b.id, Some(b_address), &["photos"]);
        b.share(a.id, Some(a_address), &["photos"]);
        let (mut at_a, mut at_b) = (a.run_folder("photos"), b.run_folder("photos"));
        // A message gets through each way over what is left, after at most one replacement.
        let settle = async {
            loop {
                let (Some(from_a), Some(from_b)) = (a.link(b.id), b.link(a.id)) else {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    continue;
                };
                // Whichever link is not the one that stays may end at any time.
                let _ = from_a.outbox.control(&Frame::Folder(folder_id("photos"), hello()));
                let _ = from_b.outbox.control(&Frame::Folder(folder_id("photos"), hello()));
                let hellos = async { tokio::join!(last(&mut at_a, "hello"), last(&mut at_b, "hello")) };
                if tokio::time::timeout(Duration::from_millis(300), hellos).await.is_ok() {
                    let is_same = |x: Option<LinkHandle>, y: &LinkHandle| x.is_some_and(|x| x.is_same_link(y));
                    if is_same(a.link(b.id), &from_a) && is_same(b.link(a.id), &from_b) {
                        break;
                    }
                }
            }
        };
        tokio::time::timeout(BOUND, settle).await.unwrap();
        assert!(a.status_of(b.id).connected && b.status_of(a.id).connected);
    }
}

/// Waits for this input, passing over others; connections and losses have to alternate.
async fn last(folder: &mut Folder, wanted: &str) {
    let mut before = String::new();
    loop {
        let input = folder.next().await;
        assert!(input == wanted || input != before, "twice {input}");
        if input == wanted {
            return;
        }
        before = input;
    }
}

#[tokio::test]
async fn an_unknown_device_is_refused_on_both_sides_and_noted_once() {
    let (mut a, b) = (Device::start("a").await, Device::start("b").await);
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = told.clone();
    b.links.on_stranger(move |id, _| tell.lock().unwrap().push(id));
    a.share(b.id, Some(b.links.address()), &["photos"]);
    let error = until(|| a.status_of(b.id).last_error).await;
    assert!(error.contains("does not know this one"), "{error}");
    assert!(a.status_of(b.id).unpaired);
    let strangers = until(|| Some(b.links.strangers()).filter(|s| !s.is_empty())).await;
    assert_eq!(strangers.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [a.id]);
    assert!(!b.links.common.is_new_stranger(a.id, a.links.address()));
    let told = until(|| Some(told.lock().unwrap().clone()).filter(|t| !t.is_empty())).await;
    assert_eq!(told, [a.id]);
    assert!(a.link(b.id).is_none() && b.link(a.id).is_none());
    // Known by the other side only: the one that is dialled is not trusted.
    let c = Device::start("c").await;
    let outcome = dial::attempt(b.links.common.clone(), c.id, vec![], vec![c.links.address()]).await;
    assert!(outcome.is_err());
}

#[tokio::test]
async fn a_removed_peer_loses_its_link_at_once_and_can_come_back() {
    let (mut a, mut b) = pair_of_devices().await;
    let (mut at_a, mut at_b) = (a.run_folder("photos"), b.run_folder("photos"));
    assert_eq!((at_a.next().await, at_b.next().await), ("connected".into(), "connected".into()));
    let config = LinkConfig { peers: vec![], ..b.config.clone() };
    b.links.set_config(config);
    assert_eq!((at_a.next().await, at_b.next().await), ("lost".into(), "lost".into()));
    assert!(b.link(a.id).is_none() && b.links.status().is_empty());
    until(|| a.status_of(b.id).unpaired.then_some(())).await;
    b.share(a.id, None, &["photos"]);
    a.config.peers.clear();
    a.share(b.id, Some(b.links.address()), &[]);
    assert_eq!((at_a.next().await, at_b.next().await), ("connected".into(), "connected".into()));
    assert!(!a.status_of(b.id).unpaired);
}

#[tokio::test]
async fn a_link_comes_back_after_a_drop_and_after_a_restart() {
    let (a, b) = pair_of_devices().await;
    let (mut at_a, mut at_b) = (a.run_folder("photos"), b.run_folder("photos"));
    assert_eq!((at_a.next().await, at_b.next().await), ("connected".into(), "connected".into()));
    b.linked(a.id).await.end("test");
    assert_eq!((at_a.next().await, at_b.next().await), ("lost".into(), "lost".into()));
    assert_eq!((at_a.next().await, at_b.next().await), ("connected".into(), "connected".into()));
    let config = LinkConfig { listen: b.links.address(), ..b.config.clone() };
    let started = std::time::Instant::now();
    b.links.stop().await;
    assert!(started.elapsed() < Duration::from_secs(1));
    assert_eq!((at_a.next().await, at_b.next().await), ("lost".into(), "lost".into()));
    let b = Device::start_with(config, b.identity).await;
    let mut at_b = b.run_folder("photos");
    assert_eq!((at_a.next().await, at_b.next().await), ("connected".into(), "connected".into()));
}

#[tokio::test]
async fn a_newer_connection_takes_the_place_of_the_older_one_which_is_lost_first() {
    let (b, a) = pair_of_devices().await;
    let address = a.links.address();
    let mut at_a = a.run_folder("photos");
    let older = a.linked(b.id).await;
    // The same device once more, as after a restart of which nobody has heard yet.
    let mut again = Device::start_with(base_config("b"), b.identity.clone()).await;
    again.share(a.id, Some(address), &["photos"]);
    let mut at_b = b.run_folder("photos");
    assert_eq!((at_a.next().await, at_b.next().await), ("connected".into(), "connected".into()));
    let mut at_again = again.run_folder("photos");
    until(|| a.link(b.id).filter(|link| !link.is_same_link(&older))).await;
    assert_eq!((at_b.next().await, at_again.next().await), ("lost".into(), "connected".into()));
    assert_eq!((at_a.next().await, at_a.next().await), ("lost".into(), "connected".into()));
}

#[tokio::test]
async fn a_folder_that_is_slow_makes_the_peer_wait_and_loses_nothing() {
    let (a, b) = pair_of_devices().await;
    let (mut at_a, mut at_b) = (a.run_folder("photos"), b.run_folder("photos"));
    assert_eq!((at_a.next().await, at_b.next().await), ("connected".into(), "connected".into()));
    let link = a.linked(b.id).await;
    let send = |message| link.outbox.control(&Frame::Folder(folder_id("photos"), message)).unwrap();
    send(hello());
    (0..500).for_each(|n| send(Message::Found(vec![(EpochId(n), n)])));
    // Far more than the folder's queue holds.
    until(|| (at_b.inputs.len() == at_b.inputs.max_capacity()).then_some(())).await;
    assert_eq!(at_b.next().await, "hello");
    for n in 0..500 {
        let input = tokio::time::timeout(BOUND, at_b.inputs.recv()).await.unwrap();
        let Some(Event::Message(_, Message::Found(found), _)) = input else { panic!("a message is missing") };
        assert_eq!(found, [(EpochId(n), n)]);
    }
    assert!(a.link(b.id).is_some_and(|now| now.is_same_link(&link)));
}

#[tokio::test]
async fn a_folder_that_takes_nothing_in_holds_up_no_other_folder_on_the_link() {
    let (mut a, mut b) = pair_of_devices().await;
    a.share(b.id, Some(b.links.address()), &["music"]);
    b.share(a.id, None, &["music"]);
    let (_photos_at_a, mut photos) = (a.run_folder("photos"), b.run_folder("photos"));
    let (_music_at_a, mut music) = (a.run_folder("music"), b.run_folder("music"));
    assert_eq!((photos.next().await, music.next().await), ("connected".into(), "connected".into()));
    let link = a.linked(b.id).await;
    let send = |folder: &str, message| link.outbox.control(&Frame::Folder(folder_id(folder), message)).unwrap();
    send("photos", hello());
    (0..500).for_each(|_| send("photos", Message::Found(vec![])));
    send("music", hello());
    assert_eq!(music.next().await, "hello");
    assert_eq!(photos.inputs.len(), photos.inputs.max_capacity());
    // What waits comes before the end of the link, and that folder's peace ends nobody else's either.
    link.end("test");
    assert_eq!(music.next().await, "lost");
    assert_eq!(photos.next().await, "hello");
    for _ in 0..500 {
        assert_eq!(photos.next().await, "found");
    }
    assert_eq!(photos.next().await, "lost");
}

#[tokio::test]
async fn a_folder_that_is_no_longer_shared_leaves_in_its_own_time_and_holds_up_no_other() {
    let (mut a, mut b) = pair_of_devices().await;
    a.share(b.id, Some(b.links.address()), &["music"]);
    b.share(a.id, None, &["music"]);
    let (_photos_at_a, mut photos) = (a.run_folder("photos"), b.run_folder("photos"));
    let (_music_at_a, mut music) = (a.run_folder("music"), b.run_folder("music"));
    assert_eq!((photos.next().await, music.next().await), ("connected".into(), "connected".into()));
    let link = a.linked(b.id).await;
    let send = |folder: &str, message| link.outbox.control(&Frame::Folder(folder_id(folder), message)).unwrap();
    send("photos", hello());
    (0..500).for_each(|_| send("photos", Message::Found(vec![])));
    until(|| (photos.inputs.len() == photos.inputs.max_capacity()).then_some(())).await;
    // Away, and back again, while the folder takes nothing in.
    let all = a.config.clone();
    a.config.folders.retain(|folder| folder.id != folder_id("photos"));
    a.links.set_config(a.config.clone());
    until(|| (!b.status_of(a.id).shares.contains(&folder_id("photos"))).then_some(())).await;
    a.links.set_config(all);
    until(|| b.status_of(a.id).shares.contains(&folder_id("photos")).then_some(())).await;
    send("music", hello());
    assert_eq!(music.next().await, "hello");
    assert_eq!(photos.next().await, "hello");
    let mut next = photos.next().await;
    while next == "found" {
        next = photos.next().await;
    }
    assert_eq!((next.as_str(), photos.next().await.as_str()), ("lost", "connected"));
}

#[tokio::test]
async fn a_hello_fits_its_frame_however_many_folders_are_shared() {
    let mut a = Device::start("a").await;
    let peer = DeviceId([1; 32]);
    let names: Vec<String> = (0..1500).map(|n| format!("{n:0>64}")).collect();
    a.share(peer, None, &names.iter().map(String::as_str).collect::<Vec<_>>());
    let _folders: Vec<Folder> = names.iter().map(|name| a.run_folder(name)).collect();
    let offers = a.links.common.offers(&peer).unwrap();
    assert!((100..=1000).contains(&offers.len()));
    crate::net::codec::encode(&Frame::Hello(a.links.common.hello(&offers))).unwrap();
    assert!(a.links.common.offers(&DeviceId([2; 32])).is_none());
}

#[tokio::test]
async fn half_open_connections_keep_no_peer_out() {
    let (mut a, mut b) = (Device::start("a").await, Device::start("b").await);
    let mut strangers = Vec::new();
    for _ in 0..64 {
        strangers.push(TcpStream::connect(b.links.address()).await.unwrap());
    }
    b.share(a.id, None, &["photos"]);
    a.share(b.id, Some(b.links.address()), &["photos"]);
    tokio::join!(a.linked(b.id), b.linked(a.id));
    let mut byte = [0];
    // All but the few that are let wait have been ended.
    let ended = tokio::time::timeout(BOUND, strangers[0].read(&mut byte)).await.expect("the oldest is ended");
    assert!(matches!(ended, Ok(0) | Err(_)));
}

#[tokio::test]
async fn a_port_in_use_is_told_with_the_setting_to_change() {
    let a = Device::start("a").await;
    let config = LinkConfig { listen: a.links.address(), ..base_config("b") };
    let outcome = Links::start(config, Arc::new(Identity::generate()), LinkTable::default()).await;
    let text = outcome.err().expect("the port is in use").to_string();
    assert!(text.contains(&a.links.address().port().to_string()), "{text}");
    assert!(text.contains("'listen' in [network]"), "{text}");
}

/// Two devices that announce themselves to each other by unicast.
async fn devices_that_hear_each_other() -> (Device, Device) {
    let free_port = || std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (a_port, b_port) = (free_port(), free_port());
    let config = |name: &str, port: u16, target: u16| LinkConfig {
        discovery_port: port,
        announce_to: vec![format!("127.0.0.1:{target}")],
        ..base_config(name)
    };
    let a = Device::start_with(config("a", a_port, b_port), Arc::new(Identity::generate())).await;
    let b = Device::start_with(config("b", b_port, a_port), Arc::new(Identity::generate())).await;
    (a, b)
}

#[tokio::test]
async fn two_devices_pair_by_a_code_and_are_then_connected() {
    let (mut a, mut b) = devices_that_hear_each_other().await;
    let showing = a.links.show_code(vec![(folder_id("photos"), "Photos".into())]);
    let code = showing.code();
    let (showed, joined) = tokio::join!(showing.wait(), b.links.join_code(&code, vec![]));
    let (showed, joined) = (showed.unwrap(), joined.unwrap());
    assert_eq!((showed.device, showed.name.as_str()), (b.id, "b"));
    let joined = joined.paired;
    assert_eq!((joined.device, joined.folders), (a.id, vec![(folder_id("photos"), "Photos".to_string())]));
    a.share(b.id, None, &["photos"]);
    b.share(a.id, None, &["photos"]);
    tokio::join!(a.linked(b.id), b.linked(a.id));
}

/// A code that differs in one secret character, and in the check character.
fn guess_beside(code: &str) -> String {
    let characters = || "0123456789ABCDEFGHJKMNPQRSTVWXYZ".chars();
    let guesses = characters().flat_map(|secret| characters().map(move |check| (secret, check)));
    let spelled = guesses.map(|(secret, check)| format!("{}{secret}{}{check}", &code[..2], &code[3..8]));
    spelled.into_iter().find(|guess| guess != code && guess.parse::<PairingCode>().is_ok()).unwrap()
}

#[tokio::test]
async fn a_wrong_code_ends_the_pairing_on_both_sides() {
    let (a, b) = devices_that_hear_each_other().await;
    let showing = a.links.show_code(vec![]);
    let guess = guess_beside(&showing.code());
    let (showed, joined) = tokio::join!(showing.wait(), b.links.join_code(&guess, vec![]));
    assert!(matches!(showed, Err(PairError::WrongCode)));
    assert!(matches!(joined, Err(JoinError::Pair(PairError::WrongCode))));
    assert!(a.links.common.pairing.lock().unwrap().is_none());
}

#[tokio::test]
async fn who_types_a_code_lets_few_devices_guess_it() {
    let (a, stranger) = (Device::start("a").await, Device::start("stranger").await);
    let code = PairingCode::generate([7; 5]);
    let guesses = Arc::<AtomicUsize>::default();
    stranger.links.common.tls.set_pairing_open(true);
    for _ in 0..6 {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let from = listener.local_addr().unwrap();
        let pairing = Some(code.nameplate());
        let announcement = Announcement { device: stranger.id, port: from.port(), pairing, instance: 1 };
        a.links.common.book.lock().unwrap().hear(&Heard { announcement, from }, tokio::time::Instant::now(), |_| false);
        let (common, guesses) = (stranger.links.common.clone(), guesses.clone());
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            drop(crate::net::tls::accept(stream, &common.tls).await.unwrap());
            guesses.fetch_add(1, SeqCst);
        });
    }
    let joined = a.links.join_code(&code.to_string(), vec![]).await;
    assert!(matches!(joined, Err(JoinError::Pair(_))), "{joined:?}");
    assert!((1..=3).contains(&guesses.load(SeqCst)), "{guesses:?}");
}

#[tokio::test]
async fn a_code_that_is_withdrawn_or_mistyped_pairs_nobody() {
    let a = Device::start("a").await;
    let showing = a.links.show_code(vec![]);
    let newer = a.links.show_code(vec![]);
    assert!(matches!(showing.wait().await, Err(PairError::Replaced)));
    assert!(a.links.common.announcement().pairing.is_some());
    drop(newer);
    assert_eq!(a.links.common.announcement().pairing, None);
    assert!(matches!(a.links.join_code("7KQ", vec![]).await, Err(JoinError::Code(_))));
}

#[tokio::test]
async fn an_announcement_makes_a_peer_without_address_dialled_at_once() {
    let (mut a, mut b) = devices_that_hear_each_other().await;
    a.share(b.id, None, &["photos"]);
    b.share(a.id, None, &["photos"]);
    tokio::join!(a.linked(b.id), b.linked(a.id));
}

#[tokio::test]
async fn large_messages_wait_outside_until_their_folder_takes_them() {
    let (mut a, mut b) = (Device::start("a").await, Device::start("b").await);
    let (mut in_a, mut in_b) = (a.run_folder("f"), b.run_folder("f"));
    a.share(b.id, Some(b.links.address()), &["f"]);
    b.share(a.id, None, &["f"]);
    let to_b = a.linked(b.id).await;
    assert_eq!(in_a.next().await, "connected");
    assert_eq!(in_b.next().await, "connected");
    to_b.outbox.control(&Frame::Folder(folder_id("f"), hello())).unwrap();
    assert_eq!(in_b.next().await, "hello");
    let version = (0..200).fold(VersionVector::new(), |v, n| v.with(EpochId(n), 1));
    let entry = Entry { version, ..Entry::nothing(RelPath::parse(b"wide").unwrap()) };
    let entries = vec![Announced { entry, seq: 1, held: false }; 1000];
    let batch = Message::Index(Batch { epoch: EpochId(1), run: RunId(1), entries, upto: 1, more: false });
    let most = queue::QUEUED_BYTES_MAX / room::memory_bytes(&batch);
    let count = most + 5;
    assert!(count < in_b.inputs.max_capacity(), "the queue itself has room for all");
    for _ in 0..count {
        to_b.outbox.control(&Frame::Folder(folder_id("f"), batch.clone())).unwrap();
    }
    until(|| (in_b.inputs.len() == most).then_some(())).await;
    // Each that is taken lets the next one in.
    for _ in 0..count {
        assert!(in_b.inputs.len() <= most);
        assert!(matches!(in_b.inputs.recv().await, Some(Event::Message(_, Message::Index(_), _))));
    }
}
