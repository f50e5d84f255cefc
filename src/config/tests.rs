//! Tests of reading and changing the config file.

use std::path::{Path, PathBuf};

use super::*;
use crate::core::id::DeviceId;

fn around() -> Surroundings {
    Surroundings {
        user_dir: "/home/me".into(),
        own_dirs: vec!["/home/me/.config/p2psync".into()],
        index_dir: "/home/me/.local/share/p2psync/index".into(),
        listen: None,
        host_name: "box".into(),
        resolve: Path::to_owned,
    }
}

fn read_text(text: &str) -> Result<Config, ConfigError> {
    parse(text, Path::new("/c/config.toml"), &around())
}

fn device(n: u8) -> DeviceId {
    DeviceId([n; 32])
}

fn new_peer(n: u8, name: &str) -> NewPeer {
    NewPeer { id: device(n), name: Some(name.to_owned()), addresses: Vec::new() }
}

fn home() -> (tempfile::TempDir, Home) {
    let dir = tempfile::tempdir().unwrap();
    let user = dir.path().join("user");
    let home = Home::at(&dir.path().join("home"), user);
    (dir, home)
}

#[test]
fn an_empty_file_means_the_usual_values() {
    let config = read_text("").unwrap();
    assert_eq!(config.name, "box");
    assert_eq!(config.network.listen, "[::]:7724".parse().unwrap());
    assert_eq!(config.network.multicast_v4, Ipv4Addr::new(239, 255, 77, 24));
    assert_eq!(config.sync.rescan, Duration::from_secs(3600));
    assert_eq!((config.sync.hold_deletes_above, config.sync.hold_deletes_percent), (1000, 80));
    assert!(config.peers.is_empty() && config.folders.is_empty());
}

#[test]
fn the_history_is_bounded_by_a_part_of_the_disk_or_a_size() {
    let max = |text: &str| read_text(&format!("[sync]\n{text}\n")).unwrap().sync.history_max;
    assert_eq!(max(""), HistoryMax::Percent(20));
    assert_eq!(max("history_max_percent = 5").bytes(1000), 50);
    assert_eq!(max("history_max_percent = 5\nhistory_max_gib = 3").bytes(1000), 3 << 30);
    assert_eq!(max("history_max_gib = 0"), HistoryMax::Percent(20));
}

#[test]
fn the_example_is_in_order_and_shows_the_usual_values() {
    let example = include_str!("../../config.example.toml");
    let config = read_text(example).unwrap();
    let usual = read_text("").unwrap();
    assert_eq!((&config.network, &config.sync, &config.api), (&usual.network, &usual.sync, &usual.api));
    assert_eq!(config.folders[0].path, PathBuf::from("/home/me/P2PSync"));
    assert_eq!(config.folders[0].peers, Sharing::All);
    assert_eq!(config.folders[1].peers, Sharing::Only(vec![config.peers[0].id]));
    assert!(config.shares(&config.folders[1], &config.peers[0].id));
    assert!(!config.shares(&config.folders[0], &device(9)));
}

#[test]
fn every_mistake_is_shown_with_line_column_and_remedy() {
    let (one, two) = (device(1), device(2));
    let peer = format!("[[peer]]\nid = \"{one}\"\nname = \"a\"\n");
    let folder = "[[folder]]\nid = \"x\"\npath = \"/d/x\"\n";
    let cases: &[(String, usize, usize, &str)] = &[
        ("nam = \"x\"".into(), 1, 1, "no setting 'nam'"),
        ("name = \"\"".into(), 1, 8, "not a name"),
        ("name = 5".into(), 1, 8, "invalid type"),
        ("name = \"x".into(), 1, 10, "invalid basic string"),
        ("name = \"a\"\nname = \"b\"".into(), 2, 1, "duplicate key"),
        ("[network]\nlisten = \"here\"".into(), 2, 10, "not an address"),
        ("[network]\nmulticast_v4 = \"10.0.0.1\"".into(), 2, 16, "multicast group"),
        ("[network]\nmulticast_v6 = \"239.1.1.1\"".into(), 2, 16, "multicast group"),
        ("[api]\nbrowser_port = 70000".into(), 2, 16, "invalid value"),
        ("[network]\ndiscovery_port = 0".into(), 2, 18, "any port"),
        ("[network]\ndiscovery_port = 70000".into(), 2, 18, "invalid value"),
        ("[network]\nannounce_to = [\"ok:1\", \"bad\"]".into(), 2, 24, "has no port"),
        ("[sync]\nrescan_minutes = 0".into(), 2, 18, "out of range"),
        ("[sync]\nhold_deletes_percent = 101".into(), 2, 24, "100 percent"),
        ("[sync]\nhistory_max_percent = 0".into(), 2, 23, "out of range"),
        ("[[peer]]\nid = \"AAAA\"".into(), 2, 6, "56 letters"),
        (format!("{peer}{peer}"), 5, 6, "listed twice"),
        (format!("{peer}[[peer]]\nid = \"{two}\"\nname = \"a\""), 6, 8, "two peers"),
        (format!("{peer}addresses = [\"h:0\"]"), 4, 14, "not a port"),
        ("[[folder]]\nid = \"a b\"\npath = \"/x\"".into(), 2, 6, "folder id"),
        ("[[folder]]\nid = \"a\"".into(), 1, 1, "is missing"),
        ("[[folder]]\nid = \"a\"\npath = \"x/y\"".into(), 3, 8, "not absolute"),
        ("[[folder]]\nid = \"a\"\npath = \"/x/../y\"".into(), 3, 8, "'..'"),
        ("[[folder]]\nid = \"a\"\npath = \"~you/x\"".into(), 3, 8, "your own home"),
        ("[[folder]]\nid = \"a\"\npath = \"/\"".into(), 3, 8, "whole disk"),
        ("[[folder]]\nid = \"a\"\npath = \"~\"".into(), 3, 8, "private key"),
        ("[[folder]]\nid = \"a\"\npath = \"~/.local/share/p2psync/index/a\"".into(), 3, 8, "its own indexes"),
        (format!("{folder}{folder}"), 5, 6, "two folders have the id"),
        (format!("{folder}[[folder]]\nid = \"y\"\npath = \"/d/x/\""), 6, 8, "the same path"),
        (format!("{folder}[[folder]]\nid = \"y\"\npath = \"/d/x/y\""), 6, 8, "lies inside"),
        (format!("{folder}[[folder]]\nid = \"y\"\npath = \"/d\""), 6, 8, "contains the folder"),
        (format!("{folder}peers = [\"bob\"]"), 4, 9, "no peer \"bob\""),
        (format!("{folder}peers = \"bob\""), 4, 9, "no peer \"bob\""),
        (format!("{folder}peers = 5"), 4, 9, "\"all\", or a list"),
    ];
    for (text, line, column, what) in cases {
        let error = read_text(text).unwrap_err();
        let ConfigError::Invalid(fault) = &error else { panic!("{text}: {error}") };
        assert_eq!((fault.line, fault.column), (*line, *column), "{text}\n{error}");
        assert!(fault.what.contains(what), "{text}\n{error}");
        let shown = text.lines().nth(line - 1).unwrap();
        assert!(error.to_string().contains(shown) && !fault.advice.is_empty(), "{text}\n{error}");
    }
}

#[test]
fn a_fault_points_at_its_place() {
    let error = read_text("name = \"x\"\n[sync]\n  rescan_minutes = 0 # never\n").unwrap_err();
    let expected = "/c/config.toml:3:20: 0 is out of range\n\
                    \x20 |\n\
                    3 |   rescan_minutes = 0 # never\n\
                    \x20 |                    ^\n\
                    \x20 = use a number from 1 to 527040";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn folders_beside_each_other_and_alike_names_are_fine() {
    let text = "[[folder]]\nid = \"x\"\npath = \"/d/x\"\n[[folder]]\nid = \"y\"\npath = \"/d/xy\"\n";
    let config = read_text(text).unwrap();
    assert_eq!(config.folder_at(Path::new("/d/xy/a")).unwrap().id.as_str(), "y");
    assert_eq!(config.folder_at(Path::new("/d/z")), None);
}

#[test]
fn a_link_to_a_folder_is_the_same_folder() {
    let dir = tempfile::tempdir().unwrap();
    let real = dir.path().join("real");
    std::fs::create_dir(&real).unwrap();
    std::os::unix::fs::symlink(&real, dir.path().join("link")).unwrap();
    let place = |name: &str| dir.path().join(name).display().to_string();
    let text = format!(
        "[[folder]]\nid = \"x\"\npath = \"{}\"\n[[folder]]\nid = \"y\"\npath = \"{}\"\n",
        place("real"),
        place("link/new")
    );
    let error = parse(&text, Path::new("c"), &Surroundings { resolve, ..around() }).unwrap_err();
    assert!(error.to_string().contains("lies inside"), "{error}");
}

#[test]
fn the_listen_variable_wins_and_must_make_sense() {
    let with = |listen: &str| {
        let around = Surroundings { listen: Some(listen.to_owned()), ..around() };
        parse("[network]\nlisten = \"[::]:1\"", Path::new("c"), &around)
    };
    assert_eq!(with("127.0.0.1:0").unwrap().network.listen, "127.0.0.1:0".parse().unwrap());
    assert!(with("nowhere").unwrap_err().to_string().contains(LISTEN_VARIABLE));
}

#[test]
fn a_first_config_has_one_folder_and_is_made_once() {
    let (_dir, home) = home();
    assert!(create(&home, Some(&home.default_folder())).unwrap());
    assert!(!create(&home, None).unwrap());
    let config = load(&home).unwrap();
    assert_eq!((config.folders.len(), config.folders[0].id.as_str()), (1, "default"));
    assert_eq!(config.folders[0].path, home.default_folder());
    assert!(std::fs::read_to_string(home.config_file()).unwrap().contains("path = \"~/P2PSync\""));
}

#[test]
fn changes_keep_comments_and_order() {
    let (_dir, home) = home();
    home.create().unwrap();
    let before = format!(
        "# mine\nname = \"box\" # short\n\n[sync]\n# slow disk\nrescan_minutes = 5\n\n# the big one\n[[peer]]\nid = \"{}\" # key\nname = \"a\"\n\n[[folder]]\n# docs\nid = \"d\"\npath = \"~/d\"\npeers = [\"a\"] # just a\npaused = false # not now\n# end\n",
        device(1)
    );
    std::fs::write(home.config_file(), &before).unwrap();
    add_peer(&home, &NewPeer { addresses: vec!["h:1".into()], ..new_peer(2, "b") }).unwrap();
    set_pause(&home, &["d".parse().unwrap()], Pause::Open).unwrap();
    set_folder_peers(&home, &"d".parse().unwrap(), &Sharing::Only(vec![device(1), device(2)])).unwrap();
    rename_peer(&home, &device(2), "bee").unwrap();
    let text = std::fs::read_to_string(home.config_file()).unwrap();
    let mut rest = text.as_str();
    for line in before.lines().filter(|l| !l.starts_with("pause") && !l.starts_with("peers")) {
        let at = rest.find(line).unwrap_or_else(|| panic!("{line:?} is gone or moved:\n{text}"));
        rest = &rest[at + line.len()..];
    }
    assert!(text.contains("paused = true # not now") && text.contains("peers = [\"a\", \"bee\"] # just a"), "{text}");
    let config = load(&home).unwrap();
    assert_eq!(config.peer(&device(2)).unwrap().addresses, ["h:1"]);
    assert_eq!(config.folders[0].peers, Sharing::Only(vec![device(1), device(2)]));
}

#[test]
fn adding_and_removing_leaves_the_text_as_it_was() {
    let (_dir, home) = home();
    create(&home, Some(&home.default_folder())).unwrap();
    let before = std::fs::read_to_string(home.config_file()).unwrap();
    add_peer(&home, &new_peer(1, "a")).unwrap();
    let folder = NewFolder {
        id: "f".parse().unwrap(),
        label: "F".into(),
        path: "/srv/f".into(),
        peers: Sharing::Only(vec![device(1)]),
    };
    assert_eq!(add_folder(&home, &folder).unwrap().folders.len(), 2);
    let config = remove_peer(&home, &device(1)).unwrap();
    assert_eq!(config.folders[1].peers, Sharing::Only(Vec::new()));
    remove_folder(&home, &folder.id).unwrap();
    assert_eq!(std::fs::read_to_string(home.config_file()).unwrap(), before);
}

#[test]
fn a_peer_added_again_only_gains() {
    let (_dir, home) = home();
    let unnamed = NewPeer { name: None, addresses: vec!["h:1".into()], ..new_peer(1, "") };
    assert_eq!(add_peer(&home, &unnamed).unwrap().peers[0].name, device(1).short());
    let config = add_peer(&home, &NewPeer { addresses: vec!["h:2".into()], ..new_peer(1, "desk") }).unwrap();
    assert_eq!((config.peers[0].name.as_str(), config.peers.len()), ("desk", 1));
    assert_eq!(config.peers[0].addresses, ["h:1", "h:2"]);
    add_address(&home, &device(1), "h:2").unwrap();
    assert_eq!(add_peer(&home, &new_peer(1, "other")).unwrap().peers[0].name, "desk");
    assert_eq!(load(&home).unwrap().peers[0].addresses, ["h:1", "h:2"]);
}

#[test]
fn peers_with_the_same_name_are_told_apart() {
    let (_dir, home) = home();
    for n in 1..=3 {
        add_peer(&home, &new_peer(n, "phone")).unwrap();
    }
    let names: Vec<String> = load(&home).unwrap().peers.into_iter().map(|p| p.name).collect();
    assert_eq!(names, ["phone", "phone-2", "phone-3"]);
    let own = load(&home).unwrap().name;
    add_peer(&home, &new_peer(4, &own)).unwrap();
    assert_eq!(load(&home).unwrap().peers[3].name, format!("{own}-2"), "it shall not look like this device");
    assert!(rename_peer(&home, &device(1), "phone-2").is_err());
    assert!(rename_peer(&home, &device(1), "a\nb").is_err());
}

#[test]
fn a_change_that_does_not_hold_leaves_the_file_alone() {
    let (_dir, home) = home();
    create(&home, Some(&home.default_folder())).unwrap();
    let before = std::fs::read_to_string(home.config_file()).unwrap();
    let inside = NewFolder {
        id: "f".parse().unwrap(),
        label: "F".into(),
        path: home.default_folder().join("inner"),
        peers: Sharing::All,
    };
    assert!(add_folder(&home, &inside).unwrap_err().to_string().contains("lies inside"));
    assert!(remove_peer(&home, &device(7)).unwrap_err().to_string().contains("no such peer"));
    assert!(add_peer(&home, &NewPeer { addresses: vec!["nonsense".into()], ..new_peer(1, "a") }).is_err());
    assert_eq!(std::fs::read_to_string(home.config_file()).unwrap(), before);
}

#[test]
fn a_broken_file_is_reported_and_never_rewritten() {
    let (_dir, home) = home();
    home.create().unwrap();
    std::fs::write(home.config_file(), "name = [").unwrap();
    assert!(matches!(add_peer(&home, &new_peer(1, "a")), Err(ConfigError::Invalid(_))));
    assert_eq!(std::fs::read_to_string(home.config_file()).unwrap(), "name = [");
}

#[test]
fn a_linked_config_file_stays_a_link() {
    let (dir, home) = home();
    home.create().unwrap();
    let real = dir.path().join("dotfiles.toml");
    std::fs::write(&real, "# mine\n").unwrap();
    std::os::unix::fs::symlink(&real, home.config_file()).unwrap();
    add_peer(&home, &new_peer(1, "a")).unwrap();
    assert!(home.config_file().is_symlink());
    assert!(std::fs::read_to_string(&real).unwrap().contains("# mine\n"));
}

#[test]
fn many_editors_at_once_lose_nothing() {
    let (_dir, home) = home();
    std::thread::scope(|scope| {
        for n in 1..=8 {
            let home = &home;
            scope.spawn(move || add_peer(home, &new_peer(n, "p")).unwrap());
        }
    });
    assert_eq!(load(&home).unwrap().peers.len(), 8);
}

#[test]
fn addresses_are_hosts_with_ports() {
    for good in ["a:1", "192.168.1.5:7724", "[::1]:7724", "[fe80::1%eth0]:7724", "desk.example.org:65535"] {
        assert_eq!(super::parse::check_address(good), Ok(()), "{good}");
    }
    for bad in ["", "a", ":1", "a:0", "a:70000", "::1:7724", "[::g]:1", "a b:1", "http://a:1"] {
        assert!(super::parse::check_address(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_peer_cannot_take_the_name_by_which_another_is_known() {
    let (_dir, home) = home();
    add_peer(&home, &new_peer(1, "desktop")).unwrap();
    for (n, name) in [(2, device(1).short().to_lowercase()), (3, device(1).to_string()), (4, device(9).to_string())] {
        let config = add_peer(&home, &new_peer(n, &name)).unwrap();
        let given = &config.peer(&device(n)).unwrap().name;
        assert!(*given != name, "{given}");
        assert_eq!(config.peers.iter().find(|p| p.name == name), None);
    }
}

#[test]
fn the_comments_of_an_empty_list_go_to_the_first_table_that_takes_its_place() {
    let (_dir, home) = home();
    home.create().unwrap();
    let before = "# before\nfolder = [ # none\n  # yet\n] # so far\nname = \"box\"\n";
    std::fs::write(home.config_file(), before).unwrap();
    let id = "new".parse().unwrap();
    let new = NewFolder { id, label: "New".into(), path: home.user_dir().join("new"), peers: Sharing::All };
    assert_eq!(add_folder(&home, &new).unwrap().folders.len(), 1);
    let after = std::fs::read_to_string(home.config_file()).unwrap();
    assert!(after.contains("\n# before\n# none\n# yet\n# so far\n[[folder]]\n"), "{after}");
}

#[test]
fn a_folder_is_named_by_its_label_where_that_is_plain_and_its_own() {
    let folder = |id: &str, label: &str| Folder {
        label: label.into(),
        ..Folder::new(id.parse().unwrap(), format!("/{id}").into(), Sharing::All)
    };
    let folders =
        vec![folder("1", "Photos"), folder("2", "my docs"), folder("3", "same"), folder("4", "same"), folder("5", "1")];
    let config = Config { folders, ..parse("", Path::new("/c"), &around()).unwrap() };
    let words: Vec<&str> = config.folders.iter().map(|folder| config.word_of(folder)).collect();
    assert_eq!(words, ["Photos", "2", "3", "4", "5"]);
    assert!(!is_plain_word("") && !is_plain_word("-x") && !is_plain_word("a'b"));
}
