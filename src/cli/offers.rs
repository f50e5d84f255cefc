//! Folders that other devices share with this one and that are not here yet: where to put them, and taking part.

use std::collections::BTreeMap;
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::context::{Context, absolute};
use super::folder::check_writable;
use super::output::{self, clean};
use super::style::Style;
use crate::api::{FolderOffer, PeerStatus};
use crate::config::{self, Config, Folder, NewFolder, Sharing};
use crate::core::id::{DeviceId, FolderId};

/// How often one question is asked before it counts as skipped.
pub const QUESTIONS_MAX: usize = 5;
/// Items of a directory that are counted.
const ITEMS_COUNTED_MAX: usize = 1000;
/// Longest name of a directory that is made from a label, in bytes: what file systems hold, with room for a number.
const NAME_BYTES_MAX: usize = 200;
/// Directories with a number behind their name that are tried.
const NUMBERED_MAX: usize = 99;

/// A folder, and the devices that share it with this one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Offer {
    pub id: FolderId,
    pub label: String,
    pub peers: Vec<(DeviceId, String)>,
}

/// Talks with the user, line by line.
pub struct Dialogue<'a> {
    pub input: &'a mut dyn BufRead,
    pub output: &'a mut dyn Write,
    /// Of the output.
    pub style: Style,
}

/// What lies in the place of a folder to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ground {
    Free,
    /// A directory with so many items in it, up to [`ITEMS_COUNTED_MAX`].
    Holds(usize),
    /// Something that is no directory.
    Taken,
}

/// What connected peers offer.
pub fn of_peers(peers: &[PeerStatus]) -> Vec<Offer> {
    let mut offers = BTreeMap::new();
    for peer in peers {
        for offer in of_device(&peer.device_id, &peer.name, &peer.offers) {
            let known = offers.entry(offer.id.clone()).or_insert_with(|| Offer { peers: Vec::new(), ..offer.clone() });
            known.peers.extend(offer.peers);
        }
    }
    offers.into_values().collect()
}

/// What one device offers.
pub fn of_device(device: &str, name: &str, offers: &[FolderOffer]) -> Vec<Offer> {
    let Ok(device) = device.parse::<DeviceId>() else { return Vec::new() };
    let offer = |offer: &FolderOffer| {
        let id: FolderId = offer.id.parse().ok()?;
        let label = if offer.label.trim().is_empty() { id.to_string() } else { offer.label.clone() };
        Some(Offer { id, label, peers: vec![(device, name.to_owned())] })
    };
    offers.iter().filter_map(offer).collect()
}

/// The command that takes part in a folder.
pub fn command(offer: &FolderOffer) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || matches!(c, '.' | '_');
    let label = clean(&offer.label);
    let word = match &label {
        label if label.is_empty() || label != &offer.label || label.contains('\'') => clean(&offer.id),
        label if label.chars().all(is_plain) => label.clone(),
        label => format!("'{label}'"),
    };
    format!("p2psync folder accept {word}")
}

/// Asks for each folder where to put it, and puts it there.
pub fn ask_each(
    context: &Context,
    offers: &[Offer],
    into: Option<&Path>,
    dialogue: &mut Dialogue,
) -> anyhow::Result<Vec<Folder>> {
    let mut accepted = Vec::new();
    for offer in offers {
        let config = context.config()?;
        if config.folder(&offer.id).is_some() {
            continue;
        }
        let usual = usual_place(&config, offer, into.unwrap_or(context.home.user_dir()));
        match ask(context, offer, &usual, dialogue)? {
            Some(folder) => accepted.push(folder),
            None => dialogue.say(&format!("Left out. Later: {}\n", command(&offer.as_told())))?,
        }
    }
    Ok(accepted)
}

/// Asks where to put one folder; `None` where the user does not want it.
fn ask(context: &Context, offer: &Offer, usual: &Path, dialogue: &mut Dialogue) -> anyhow::Result<Option<Folder>> {
    let (label, from) = (clean(&offer.label), offer.from());
    let shown = output::short_path(usual, context.home.user_dir());
    for _ in 0..QUESTIONS_MAX {
        dialogue.say(&format!("{from} shares '{label}'. Put it where? [{shown}] ('-' leaves it out) "))?;
        let Some(answer) = dialogue.hear()? else { return Ok(None) };
        // Who answers as if it were a question for yes or no means no directory of that name.
        let place = match answer.trim() {
            "-" => return Ok(None),
            word if is_no(word) => return Ok(None),
            word if word.is_empty() || is_yes(word) => usual.to_owned(),
            given => place(context, given)?,
        };
        let agreed = match ground(&place) {
            Ok(Ground::Free) => true,
            Ok(Ground::Holds(items)) => {
                dialogue.say(&format!("{} Go on? [y/N] ", merging(context, offer, &place, items)))?;
                dialogue.hear()?.is_some_and(|word| is_yes(word.trim()))
            }
            Ok(Ground::Taken) => {
                dialogue.say(&format!("{} is not a directory.\n", clean(&place.to_string_lossy())))?;
                false
            }
            Err(error) => {
                dialogue.say(&format!("{}\n", output::error_text(&error)))?;
                false
            }
        };
        if !agreed {
            continue;
        }
        match accept(context, offer, &place) {
            Ok(folder) => return Ok(Some(folder)),
            Err(error) => dialogue.say(&format!("That did not work: {}\n", output::error_text(&error)))?,
        }
    }
    Ok(None)
}

fn is_yes(word: &str) -> bool {
    ["y", "yes"].iter().any(|yes| word.eq_ignore_ascii_case(yes))
}

fn is_no(word: &str) -> bool {
    ["n", "no"].iter().any(|no| word.eq_ignore_ascii_case(no))
}

/// Takes part in a folder at this place: shared with those that offer it, and nobody else. What lies there stays.
pub fn accept(context: &Context, offer: &Offer, place: &Path) -> anyhow::Result<Folder> {
    std::fs::create_dir_all(place).with_context(|| format!("cannot make the directory {}", place.display()))?;
    check_writable(place)?;
    let peers = Sharing::Only(offer.peers.iter().map(|(id, _)| *id).collect());
    let new = NewFolder { id: offer.id.clone(), label: offer.label.clone(), path: place.to_owned(), peers };
    let config = config::add_folder(&context.home, &new)?;
    config.folder(&offer.id).cloned().context("the folder is not in the config")
}

/// What the user is told of a folder that was accepted.
pub fn accepted_text(context: &Context, folder: &Folder, offer: &Offer) -> String {
    let place = output::short_path(&folder.path, context.home.user_dir());
    format!(
        "{} is in {place} from now on, shared with {}. (With all your devices: p2psync folder share {} --peer all)\n",
        clean(&folder.label),
        offer.from(),
        context.config().map_or_else(|_| folder.id.to_string(), |config| config.word_of(folder).to_owned())
    )
}

/// What happens to what lies in the place of a folder.
pub fn merging(context: &Context, offer: &Offer, place: &Path, items: usize) -> String {
    let place = output::short_path(place, context.home.user_dir());
    let held = match items {
        ITEMS_COUNTED_MAX.. => "at least 1,000 items".to_owned(),
        items => output::count(items as u64, "item", "items"),
    };
    format!(
        "{place} holds {held} already. They are put together with '{}': what is only here goes to {}, what is only there \
         comes here, and of two different files with one name both are kept.",
        clean(&offer.label),
        offer.from()
    )
}

/// What lies there. The agent's own directory does not count.
pub fn ground(place: &Path) -> anyhow::Result<Ground> {
    let doing = || format!("cannot read the directory {}", place.display());
    match std::fs::metadata(place) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Ground::Free),
        found => {
            if !found.with_context(doing)?.is_dir() {
                return Ok(Ground::Taken);
            }
        }
    }
    let mut items = 0;
    for item in std::fs::read_dir(place).with_context(doing)?.take(ITEMS_COUNTED_MAX + 1) {
        items += usize::from(item.with_context(doing)?.file_name() != ".p2psync");
    }
    Ok(if items == 0 { Ground::Free } else { Ground::Holds(items.min(ITEMS_COUNTED_MAX)) })
}

/// Where a folder goes if nobody says otherwise: in this directory, under its label, and not into another folder.
pub fn usual_place(config: &Config, offer: &Offer, parent: &Path) -> PathBuf {
    let name = directory_name(offer);
    let is_apart = |place: &PathBuf| {
        let is_free = config.folders.iter().all(|f| !f.path.starts_with(place) && !place.starts_with(&f.path));
        is_free && (place.is_dir() || place.symlink_metadata().is_err())
    };
    let numbered = (2..=NUMBERED_MAX).map(|n| format!("{name}-{n}"));
    let mut places = std::iter::once(name.clone()).chain(numbered).map(|name| parent.join(name));
    places.find(is_apart).unwrap_or_else(|| parent.join(offer.id.as_str()))
}

/// The label as the name of a directory: it comes from another device, so it must lead nowhere else.
fn directory_name(offer: &Offer) -> String {
    let plain = |c: char| if matches!(c, '/' | '\\' | ':' | '\0') || c.is_control() { '-' } else { c };
    let mut name = String::new();
    for c in offer.label.chars().map(plain) {
        if name.len() + c.len_utf8() > NAME_BYTES_MAX {
            break;
        }
        name.push(c);
    }
    let name = name.trim().trim_start_matches(['.', '-']).trim();
    if name.is_empty() { offer.id.to_string() } else { name.to_owned() }
}

/// The place that the user typed.
fn place(context: &Context, given: &str) -> anyhow::Result<PathBuf> {
    match given.strip_prefix("~/") {
        Some(below) => Ok(context.home.user_dir().join(below)),
        None if given == "~" => Ok(context.home.user_dir().to_owned()),
        None => absolute(Path::new(given)),
    }
}

impl Offer {
    /// The names of those that share it.
    pub fn from(&self) -> String {
        self.peers.iter().map(|(_, name)| clean(name)).collect::<Vec<_>>().join(" and ")
    }

    /// As the agent tells it.
    pub fn as_told(&self) -> FolderOffer {
        FolderOffer { id: self.id.to_string(), label: self.label.clone() }
    }
}

impl Dialogue<'_> {
    pub fn say(&mut self, text: &str) -> anyhow::Result<()> {
        self.output.write_all(self.style.flow(text).as_bytes())?;
        Ok(self.output.flush()?)
    }

    /// The next line, `None` at the end of the input.
    pub fn hear(&mut self) -> anyhow::Result<Option<String>> {
        let mut line = String::new();
        Ok((self.input.read_line(&mut line)? > 0).then_some(line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::NewPeer;
    use crate::home::Home;

    const DESK: DeviceId = DeviceId([3; 32]);

    fn context() -> (tempfile::TempDir, Context) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let home = Home::at(&root.join("home"), root);
        let peer = NewPeer { id: DESK, name: Some("desk".into()), addresses: Vec::new() };
        config::add_peer(&home, &peer).unwrap();
        (dir, Context { home, now_ms: 0 })
    }

    fn offer(id: &str, label: &str) -> Offer {
        Offer { id: id.parse().unwrap(), label: label.into(), peers: vec![(DESK, "desk".into())] }
    }

    /// What was accepted, and what was said, where the user types this.
    fn talk(context: &Context, offers: &[Offer], typed: &str) -> (Vec<Folder>, String) {
        let (mut input, mut output) = (typed.as_bytes(), Vec::new());
        let mut dialogue = Dialogue { input: &mut input, output: &mut output, style: Style::PLAIN };
        let accepted = ask_each(context, offers, None, &mut dialogue).unwrap();
        (accepted, String::from_utf8(output).unwrap())
    }

    #[test]
    fn enter_takes_the_usual_place_and_a_dash_leaves_a_folder_out() {
        let (_dir, context) = context();
        let (accepted, said) = talk(&context, &[offer("p", "Photos"), offer("m", "Music")], "\n-\n");
        assert!(said.contains("desk shares 'Photos'. Put it where? [~/Photos]"), "{said}");
        assert!(said.contains("Left out. Later: p2psync folder accept Music"), "{said}");
        assert_eq!(accepted.len(), 1);
        assert_eq!(
            (accepted[0].path.clone(), &accepted[0].peers),
            (context.home.user_dir().join("Photos"), &Sharing::Only(vec![DESK]))
        );
        assert!(accepted[0].path.is_dir());
        // Who is here already is not asked for again, and the end of the input leaves out.
        let (again, said) = talk(&context, &[offer("p", "Photos"), offer("m", "Music")], "");
        assert!(again.is_empty() && !said.contains("Photos") && said.contains("Music"), "{said}");
    }

    #[test]
    fn yes_and_no_are_answers_and_no_names_of_directories() {
        let (_dir, context) = context();
        let (accepted, said) = talk(&context, &[offer("p", "Photos"), offer("m", "Music")], "Y\nno\n");
        assert_eq!(
            accepted.iter().map(|folder| &folder.path).collect::<Vec<_>>(),
            [&context.home.user_dir().join("Photos")]
        );
        assert!(said.contains("Left out. Later: p2psync folder accept Music"), "{said}");
    }

    #[test]
    fn files_in_the_place_are_told_of_and_need_a_yes() {
        let (_dir, context) = context();
        let place = context.home.user_dir().join("Photos");
        std::fs::create_dir_all(place.join("old")).unwrap();
        std::fs::write(place.join("a.jpg"), "x").unwrap();
        let (none, said) = talk(&context, &[offer("p", "Photos")], "\nn\n\n\n-\n");
        assert!(none.is_empty() && said.contains("~/Photos holds 2 items already"), "{said}");
        let (accepted, _) = talk(&context, &[offer("p", "Photos")], "\nyes\n");
        assert_eq!(accepted[0].path, place);
        assert_eq!(std::fs::read(place.join("a.jpg")).unwrap(), b"x");
    }

    #[test]
    fn another_place_may_be_given_and_one_that_cannot_be_is_asked_for_again() {
        let (_dir, context) = context();
        std::fs::write(context.home.user_dir().join("file"), "x").unwrap();
        talk(&context, &[offer("m", "Music")], "\n");
        let (accepted, said) = talk(&context, &[offer("p", "Photos")], "~/file\n~/Music/x\n~/elsewhere/p\n");
        assert!(said.contains("is not a directory") && said.contains("That did not work"), "{said}");
        assert_eq!(accepted[0].path, context.home.user_dir().join("elsewhere/p"));
    }

    #[test]
    fn a_label_from_elsewhere_leads_nowhere_else() {
        let (_dir, context) = context();
        let config = context.config().unwrap();
        for (label, name) in [
            ("../../etc", "etc"),
            ("a/b\\c:d", "a-b-c-d"),
            ("..", "id"),
            ("  ", "id"),
            (".ssh", "ssh"),
            ("-rf", "rf"),
            ("Büro 2", "Büro 2"),
        ] {
            let place = usual_place(&config, &offer("id", label), Path::new("/h"));
            assert_eq!(place.parent(), Some(Path::new("/h")), "{label}");
            let shown = place.file_name().unwrap().to_str().unwrap();
            assert!(!shown.contains('/') && !shown.starts_with('.'), "{label} {shown}");
            if label != "../../etc" {
                assert_eq!(shown, name);
            }
        }
        assert!(directory_name(&offer("id", &"ü".repeat(500))).len() <= NAME_BYTES_MAX);
    }

    #[test]
    fn the_usual_place_is_in_no_other_folder() {
        let (_dir, context) = context();
        let (first, _) = talk(&context, &[offer("p", "Photos"), offer("q", "Photos")], "\n\n");
        let places: Vec<_> = first.iter().map(|f| f.path.file_name().unwrap().to_owned()).collect();
        assert_eq!(places, ["Photos", "Photos-2"]);
    }

    #[test]
    fn one_folder_of_two_devices_is_one_offer() {
        let peer = |n: u8, name: &str, folders: &[(&str, &str)]| PeerStatus {
            device_id: DeviceId([n; 32]).to_string(),
            name: name.into(),
            offers: folders
                .iter()
                .map(|(id, label)| FolderOffer { id: (*id).into(), label: (*label).into() })
                .collect(),
            ..PeerStatus::default()
        };
        let offers = of_peers(&[peer(1, "desk", &[("p", "Photos"), ("bad id", "x")]), peer(2, "phone", &[("p", "")])]);
        assert_eq!(offers.len(), 1);
        assert_eq!((offers[0].label.as_str(), offers[0].from().as_str()), ("Photos", "desk and phone"));
    }

    #[test]
    fn the_command_can_be_typed_as_it_is_shown() {
        let told = |label: &str| command(&FolderOffer { id: "i-d".into(), label: label.into() });
        assert_eq!(told("Photos"), "p2psync folder accept Photos");
        assert_eq!(told("My Photos"), "p2psync folder accept 'My Photos'");
        for label in ["it's", "", "a\x1bb"] {
            assert_eq!(told(label), "p2psync folder accept i-d");
        }
    }
}
