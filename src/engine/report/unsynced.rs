//! All that is not in sync, with its reasons, page by page: here first, then what peers lack.
//!
//! A page takes bounded work and memory, however much is out of sync. Where a page ends is told in a word that names
//! folder, stage and path, so the agent remembers nothing in between.

use std::collections::BTreeSet;

use super::path::{State, Surroundings};
use super::{Asker, View, facts, peer, waits, words};
use crate::api::view::PAGE_ITEMS_MAX;
use crate::api::{UnsyncedItem, UnsyncedPage};
use crate::config::Folder;
use crate::core::id::DeviceId;
use crate::core::message::{EXCEPTIONS_MAX, Reason};
use crate::core::path::RelPath;
use crate::core::problem::ProblemKind;
use crate::index::{IndexError, Mark};

/// Marks of entries that are not as they should be.
const MARKS: [Mark; 4] = [Mark::Missing, Mark::Held, Mark::Suspect, Mark::Declined];

/// Where a page ends: before the paths of a stage that come after this one.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Place {
    folder: String,
    /// 0 for this device, then the peers.
    stage: usize,
    after: Option<RelPath>,
}

/// What can't be asked for.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error("there is no folder '{0}'")]
    NoFolder(String),
    #[error("'{0}' names no place to go on from; begin anew")]
    NoPlace(String),
}

impl Place {
    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let (folder, stage, path) = (words.next()?, words.next()?.parse().ok()?, words.next()?);
        let after = match path {
            "-" => None,
            hex => Some(RelPath::parse(&from_hex(hex)?).ok()?),
        };
        words.next().is_none().then(|| Self { folder: folder.to_owned(), stage, after })
    }

    fn text(&self) -> String {
        let path = self.after.as_ref().map_or_else(|| "-".to_owned(), |path| crate::core::id::hex(path.as_bytes()));
        format!("{} {} {path}", self.folder, self.stage)
    }
}

fn from_hex(hex: &str) -> Option<Vec<u8>> {
    let digits = hex.as_bytes();
    let pairs = digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
    if digits.len().is_multiple_of(2) { pairs.collect() } else { None }
}

/// The next page, of one folder or of all.
pub fn page(asker: Asker, folder: Option<&str>, after: Option<&str>, count: usize) -> anyhow::Result<UnsyncedPage> {
    let count = count.clamp(1, PAGE_ITEMS_MAX);
    let folders: Vec<&Folder> =
        asker.config.folders.iter().filter(|f| folder.is_none_or(|id| id == f.id.as_str())).collect();
    if let (Some(id), true) = (folder, folders.is_empty()) {
        return Err(AskError::NoFolder(id.to_owned()).into());
    }
    let place = match after {
        Some(text) => Some(Place::parse(text).ok_or_else(|| AskError::NoPlace(text.to_owned()))?),
        None => None,
    };
    let first = match &place {
        // A folder that was removed meanwhile is at its end.
        Some(place) => match folders.iter().position(|f| f.id.as_str() == place.folder) {
            Some(at) => at,
            None => return Ok(UnsyncedPage::default()),
        },
        None => 0,
    };
    let Some(folder) = folders.get(first) else { return Ok(UnsyncedPage::default()) };
    let place = place.unwrap_or(Place { folder: folder.id.to_string(), stage: 0, after: None });
    let mut page = match asker.open(folder).and_then(Surroundings::new).and_then(|a| part(&a, &place, count)) {
        Ok(page) => page,
        Err(error) => UnsyncedPage { items: vec![unreadable(asker, folder, &error)], next: None },
    };
    if page.next.is_none() {
        let next = folders.get(first + 1);
        page.next = next.map(|f| Place { folder: f.id.to_string(), stage: 0, after: None }.text());
    }
    Ok(page)
}

fn unreadable(asker: Asker, folder: &Folder, error: &IndexError) -> UnsyncedItem {
    let reason = match (error.is_missing(), asker.live.is_some()) {
        (true, true) => "it has not been scanned yet".to_owned(),
        (true, false) => "it has not been scanned yet; 'p2psync run' starts the agent".to_owned(),
        (false, _) => super::folder::unreadable(error),
    };
    UnsyncedItem {
        folder: folder.id.to_string(),
        state: State::Problem.name().to_owned(),
        reasons: vec![words::sentence(&reason)],
        ..UnsyncedItem::default()
    }
}

/// A page of one stage; its place is told as long as the folder has more.
fn part(around: &Surroundings, place: &Place, count: usize) -> Result<UnsyncedPage, IndexError> {
    let peers: Vec<DeviceId> = around.view.peers().map(|peer| peer.id).collect();
    let (items, last) = match place.stage.checked_sub(1) {
        None => here(around, place.after.as_ref(), count)?,
        Some(number) => match peers.get(number) {
            Some(peer) => there(around, *peer, place.after.as_ref(), count)?,
            None => (Vec::new(), None),
        },
    };
    let next = match last {
        Some(path) => Some(Place { after: Some(path), ..place.clone() }),
        None if place.stage < peers.len() => Some(Place { stage: place.stage + 1, after: None, ..place.clone() }),
        None => None,
    };
    Ok(UnsyncedPage { items, next: next.map(|place| place.text()) })
}

/// Items, and the last path that was looked at where there may be more.
type Part = (Vec<UnsyncedItem>, Option<RelPath>);

/// What is not as it should be on this device.
fn here(around: &Surroundings, after: Option<&RelPath>, count: usize) -> Result<Part, IndexError> {
    let reader = &around.view.reader;
    let mut paths: BTreeSet<RelPath> = reader.rival_paths(after, None, count)?.into_iter().collect();
    let mut is_all = paths.len() < count;
    let problems = reader.problem_paths(after, ProblemKind::NoSource, count)?;
    is_all &= problems.len() < count;
    paths.extend(problems);
    for mark in MARKS {
        let marked = reader.marked(mark, after, count)?;
        is_all &= marked.len() < count;
        paths.extend(marked.into_iter().map(|record| record.entry.path));
    }
    is_all &= paths.len() <= count;
    let (mut items, mut last) = (Vec::new(), None);
    for path in paths.into_iter().take(count) {
        let known = around.look(&path)?;
        let peers = peer::at(&around.view, &known)?;
        let (state, mut reasons) = around.verdict(&known, &peers)?;
        if state > State::InSync {
            reasons.extend(around.next(&known).map(|next| words::sentence(&next)));
            let trouble = known.problem.filter(|_| state == State::Problem);
            items.push(UnsyncedItem {
                path: path.to_string(),
                state: state.name().to_owned(),
                kind: trouble.as_ref().map(|row| row.problem.kind.name().to_owned()),
                since_ms: trouble.map(|row| row.since_ms),
                reasons,
                ..item(&around.view)
            });
        }
        last = Some(path);
    }
    Ok((items, last.filter(|_| !is_all)))
}

/// What a peer lacks of what is here: one by one as far as it says why, and the rest in one.
fn there(around: &Surroundings, peer: DeviceId, after: Option<&RelPath>, count: usize) -> Result<Part, IndexError> {
    let view = &around.view;
    let name = view.asker.name(&peer);
    let mut items = Vec::new();
    if after.is_none() {
        items.extend(on_the_way(view, peer, &name)?);
    }
    let told = view.reader.exceptions(peer, EXCEPTIONS_MAX)?.into_iter();
    let mut told = told.filter(|e| after.is_none_or(|after| e.path > *after)).peekable();
    let (mut last, mut taken) = (None, 0);
    while let Some(exception) = told.next_if(|_| taken < count) {
        let (state, why) = match exception.reason {
            Reason::Ignored | Reason::Declined => continue,
            Reason::Pending => (State::Syncing, format!("{name} is about to fetch it.")),
            Reason::Conflict => (State::Conflict, format!("{name} is making a conflict copy of its own version.")),
            Reason::Held => (State::Waiting, format!("{name} keeps it until its user confirms the deletion.")),
            Reason::Problem => {
                (State::Problem, format!("{name} has a problem with it; 'p2psync status --problems' there says more."))
            }
        };
        items.push(UnsyncedItem {
            path: exception.path.to_string(),
            state: state.name().to_owned(),
            reasons: vec![why],
            peer: Some(name.clone()),
            ..item(view)
        });
        last = Some(exception.path);
        taken += 1;
    }
    let has_more = told.peek().is_some();
    Ok((items, last.filter(|_| has_more)))
}

/// What has not reached a peer yet, in one.
fn on_the_way(view: &View, peer: DeviceId, name: &str) -> Result<Option<UnsyncedItem>, IndexError> {
    let survey = waits::Survey { waits: Vec::new(), is_all: false };
    let facts = facts::peers(view, &survey)?;
    let Some(facts) = facts.into_iter().find(|facts| facts.device == peer) else { return Ok(None) };
    let applied = view.reader.peer(peer)?.map_or(0, |row| row.applied);
    let lacks = view.reader.tally_since(applied)?;
    if lacks.items == 0 && facts.is_known {
        return Ok(None);
    }
    let bytes = words::bytes(lacks.bytes);
    let text = match lacks.items {
        0 => format!("it is not known what {name} has"),
        1 => format!("1 item ({bytes}) has not reached {name} yet"),
        items => format!("{items} items ({bytes}) have not reached {name} yet"),
    };
    let why = match (facts.is_unshared, facts.is_connected, facts.last_seen_ms) {
        (true, ..) => format!("{name} is connected, but does not share this folder"),
        (_, true, _) => "on the way".to_owned(),
        (.., Some(ms)) => format!("{name} was last connected {}", words::ago(ms, view.asker.now_ms)),
        (.., None) => format!("{name} has not been connected yet"),
    };
    let state = if facts.is_connected { State::Syncing } else { State::Waiting };
    Ok(Some(UnsyncedItem {
        state: state.name().to_owned(),
        reasons: vec![format!("{text}: {why}.")],
        peer: Some(name.to_owned()),
        ..item(view)
    }))
}

fn item(view: &View) -> UnsyncedItem {
    UnsyncedItem { folder: view.folder.id.to_string(), ..UnsyncedItem::default() }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::core::message::Exception;
    use crate::core::problem::Problem;

    fn all(world: &World, count: usize) -> Vec<UnsyncedItem> {
        let (mut items, mut after) = (Vec::new(), None);
        for _ in 0..100 {
            let page = page(world.asker(), None, after.as_deref(), count).unwrap();
            assert!(page.items.len() <= count + 1, "{}", page.items.len());
            items.extend(page.items);
            after = page.next;
            if after.is_none() {
                return items;
            }
        }
        panic!("no end");
    }

    #[test]
    fn everything_that_is_not_in_sync_comes_once_whatever_the_size_of_a_page() {
        let mut world = World::running(&[DESK]);
        let seq = world.add("a", b"1");
        world.add("fine", b"1");
        world.in_sync(DESK);
        world.applied(PHONE, seq);
        world.hear(DESK, world.edited("a", content(b"22"), true));
        for name in ["p1", "p2", "p3"] {
            world.index.set_problem(&rel(name), &Problem::new(ProblemKind::SpecialFile, "a pipe"), 5, None).unwrap();
        }
        world.hear(PHONE, world.edited("z", content(b"1234"), false));
        let exception = |path, reason| Exception { path: rel(path), seq, reason };
        let told = [exception("a", Reason::Problem), exception("fine", Reason::Declined)];
        world.index.set_exceptions(DESK, &told).unwrap();
        let expected = all(&world, 500);
        let brief: Vec<(&str, &str, Option<&str>)> =
            expected.iter().map(|i| (i.path.as_str(), i.state.as_str(), i.peer.as_deref())).collect();
        let problem = |path| (path, "problem", None);
        let rest = [("z", "waiting", None), ("a", "problem", Some("desk")), ("", "waiting", Some("phone"))];
        let mut wanted = vec![("a", "syncing", None), problem("p1"), problem("p2"), problem("p3")];
        wanted.extend(rest);
        assert_eq!(brief, wanted);
        assert_eq!((expected[1].kind.as_deref(), expected[1].since_ms), (Some("special_file"), Some(5)));
        assert!(expected[4].reasons.join(" ").contains("as soon as p2psync runs on phone"), "{:?}", expected[4]);
        assert!(expected[6].reasons[0].starts_with("1 item (1 byte) has not reached phone yet: phone was last"));
        for count in 1..4 {
            assert_eq!(all(&world, count), expected, "{count}");
        }
    }

    #[test]
    fn nothing_is_listed_where_all_is_in_sync() {
        let mut world = World::running(&[DESK]);
        world.add("a", b"1");
        world.in_sync(DESK);
        world.in_sync(PHONE);
        assert_eq!(all(&world, 10), []);
    }

    #[test]
    fn what_cannot_be_gone_on_with_is_refused() {
        let world = World::running(&[]);
        for after in ["", "docs", "docs x -", "docs 0 zz", "docs 0 - more", "docs 0 2f"] {
            assert!(page(world.asker(), None, Some(after), 5).is_err(), "{after}");
        }
        assert_eq!(page(world.asker(), None, Some("gone 0 -"), 5).unwrap(), UnsyncedPage::default());
        assert!(page(world.asker(), Some("nope"), None, 5).is_err());
        let place = Place { folder: "docs".into(), stage: 3, after: Some(rel("a b/c")) };
        assert_eq!(Place::parse(&place.text()), Some(place));
    }
}
