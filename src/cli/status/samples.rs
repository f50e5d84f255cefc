//! States of a device that the tests of all views share.

use crate::api::{
    FolderOffer, FolderPeerStatus, FolderState, FolderStatus, HeldDeletions, PeerStatus, ProblemItem, Status,
    TransferItem,
};

/// 2026-11-22 12:00 UTC.
pub const NOW_MS: i64 = 1_795_348_800_000;
const MINUTE_MS: i64 = 60_000;
const MB: u64 = 1024 * 1024;

/// Everything is where it belongs; one of two peers is away.
pub fn in_sync() -> Status {
    let folder = FolderStatus {
        id: "default".into(),
        label: "P2PSync".into(),
        path: "/home/me/P2PSync".into(),
        state: FolderState::InSync,
        state_text: "in sync with desktop; phone lacks 3 items and was last connected 2 hours ago".into(),
        files: 1204,
        directories: 1,
        bytes: 3_435_973_837,
        watch: "ok".into(),
        last_scan_ms: Some(NOW_MS - 2 * MINUTE_MS),
        peers: vec![
            FolderPeerStatus {
                device_id: "BBBBBBB-C".into(),
                name: "desktop".into(),
                connected: true,
                in_sync: true,
                proved_identical_ms: Some(NOW_MS - MINUTE_MS),
                complete_percent: Some(100),
                rate_in: Some(0),
                rate_out: Some(0),
                ..FolderPeerStatus::default()
            },
            FolderPeerStatus {
                device_id: "CCCCCCC-D".into(),
                name: "phone".into(),
                behind_items: 3,
                behind_bytes: 4 * MB,
                complete_percent: Some(99),
                proved_identical_ms: Some(NOW_MS - 300 * MINUTE_MS),
                ..FolderPeerStatus::default()
            },
        ],
        complete_percent: Some(100),
        rate_in: Some(0),
        rate_out: Some(0),
        ..FolderStatus::default()
    };
    let peers = vec![
        PeerStatus {
            device_id: "BBBBBBB-C".into(),
            name: "desktop".into(),
            connected: true,
            address: Some("192.168.1.5:7724".into()),
            bytes_in: 70 * MB,
            bytes_out: 3 * MB,
            proved_identical_ms: Some(NOW_MS - MINUTE_MS),
            ..PeerStatus::default()
        },
        PeerStatus {
            device_id: "CCCCCCC-D".into(),
            name: "phone".into(),
            last_seen_ms: Some(NOW_MS - 120 * MINUTE_MS),
            behind_items: 3,
            behind_bytes: 4 * MB,
            ..PeerStatus::default()
        },
    ];
    Status {
        device_id: "AAAAAAA-B".into(),
        name: "laptop".into(),
        running: true,
        starting: false,
        listening: Some("[::]:7724".into()),
        folders: vec![folder],
        peers,
        problems_total: 0,
    }
}

/// Files are coming and going in several folders, and some things have gone wrong.
pub fn busy() -> Status {
    let mut status = in_sync();
    let first = &mut status.folders[0];
    first.state = FolderState::Syncing;
    first.state_text = "120 files (400 MB) to come; phone still lacks 3 items".into();
    (first.need_files, first.need_bytes) = (120, 400 * MB);
    (first.complete_percent, first.eta_seconds) = (Some(88), Some(200));
    (first.rate_in, first.rate_out) = (Some(2 * MB), Some(100_000));
    first.transfers = vec![
        TransferItem {
            path: "films/holidays in the mountains, the long version.mkv".into(),
            bytes: 300 * MB,
            done_bytes: 120 * MB,
            from: vec!["desktop".into(), "nas".into()],
        },
        TransferItem { path: "a\x1bb.jpg".into(), bytes: 3 * MB, done_bytes: 0, from: Vec::new() },
    ];
    first.transfers_total = 7;
    first.peers[0].rate_in = Some(2 * MB);
    first.peers[1].connected = true;
    first.peers[1].declined_items = 2;
    status.peers[0].rate_in = Some(2 * MB);
    status.peers[1].connected = true;
    status.peers[1].address = Some("[fe80::1%eth0]:7724".into());
    let photos = FolderStatus {
        id: "photos".into(),
        label: "Photos of the family and the dog".into(),
        path: "/data/photos".into(),
        state: FolderState::Problems,
        state_text: "3 items have problems; but for that in sync with desktop".into(),
        files: 20_000,
        bytes: 90_000 * MB,
        complete_percent: Some(100),
        problems: vec![
            problem("2026/a\nb.jpg", "no_space", "the disk is full; free some space"),
            problem("2026/aux", "name", "this device cannot hold a file of this name"),
        ],
        problems_total: 12,
        declined_items: 1,
        conflicts: 1,
        watch: "too many directories to watch; raise fs.inotify.max_user_watches".into(),
        ..FolderStatus::default()
    };
    let music = FolderStatus {
        id: "music".into(),
        label: "Music".into(),
        path: "/home/me/Music".into(),
        state: FolderState::Paused,
        state_text: "paused; 'p2psync resume music' goes on".into(),
        ..FolderStatus::default()
    };
    status.folders.extend([photos, music]);
    status.problems_total = 12;
    status
}

/// The same as it may be on an ordinary day, for the pictures in the docs.
pub fn everyday() -> Status {
    let mut status = busy();
    status.device_id = "LQ7ZK2M-B".into();
    (status.peers[0].device_id, status.peers[1].device_id) = ("D4XW6TA-C".into(), "K3QZ7AB-D".into());
    status.peers[1].address = Some("192.168.1.23:7724".into());
    let [first, photos, _] = &mut status.folders[..] else { panic!("three folders") };
    let coming = |path: &str, megabytes: u64, done: u64, from: &[&str]| TransferItem {
        path: path.into(),
        bytes: megabytes * MB,
        done_bytes: done * MB,
        from: from.iter().map(|&name| name.into()).collect(),
    };
    first.transfers = vec![
        coming("films/holidays in the mountains.mkv", 300, 120, &["desktop", "phone"]),
        coming("films/the long way home.mkv", 90, 31, &["desktop"]),
        coming("drafts/book.odt", 3, 0, &["phone"]),
    ];
    photos.label = "Photos".into();
    photos.problems = vec![
        problem("2026/lake.jpg", "no_space", "the disk is full; free some space"),
        problem("2026/aux", "name", "this device cannot hold a file of this name"),
    ];
    (photos.problems_total, photos.declined_items, photos.watch) = (4, 1, "ok".into());
    status.problems_total = 4;
    status
}

/// Nothing runs; what is told is what the index last knew, and much waits for the user's word.
pub fn stopped() -> Status {
    let mut status = in_sync();
    (status.running, status.listening) = (false, None);
    status.peers.iter_mut().for_each(|peer| (peer.connected, peer.address) = (false, None));
    let folder = &mut status.folders[0];
    folder.state = FolderState::NotRunning;
    folder.state_text = "the agent is not running; as of its last run: in sync with desktop".into();
    folder.watch = String::new();
    (folder.rate_in, folder.rate_out) = (None, None);
    folder.peers.iter_mut().for_each(|peer| (peer.connected, peer.rate_in, peer.rate_out) = (false, None, None));
    status
}

/// Many deletions are held back.
pub fn held() -> Status {
    let mut status = in_sync();
    let folder = &mut status.folders[0];
    folder.state = FolderState::Held;
    folder.state_text = "1,200 of 1,204 files have vanished here".into();
    folder.held = Some(HeldDeletions { deletions: 1200, text: folder.state_text.clone() });
    status
}

/// A new peer offers a folder and lacks one.
pub fn offered() -> Status {
    let mut status = in_sync();
    let folder = &mut status.folders[0];
    folder.peers.truncate(1);
    folder.peers[0].lacks_folder = true;
    folder.peers[0].proved_identical_ms = None;
    folder.peers[0].complete_percent = None;
    folder.state = FolderState::WaitingForPeers;
    folder.state_text = "desktop does not have this folder yet".into();
    status.peers.truncate(1);
    status.peers[0].offers = vec![FolderOffer { id: "x1".into(), label: "Pictures".into() }];
    status
}

fn problem(path: &str, kind: &str, text: &str) -> ProblemItem {
    ProblemItem { path: path.into(), kind: kind.into(), text: text.into(), since_ms: NOW_MS - MINUTE_MS }
}
