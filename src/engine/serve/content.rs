//! Finds one chunk or list that a peer may have.

use std::collections::HashMap;

use crate::core::content::{ChunkList, Content, ContentId};
use crate::core::path::RelPath;
use crate::engine::local::Local;
use crate::index::{Mark, Place};
use crate::net::frame::WantedContent;

/// Chunk lists that a reader keeps at hand: the way from the root of a file to its leaves, and a neighbour's.
const LISTS_KEPT_MAX: usize = 8;

/// Lists that were read for the last chunks: neighbours are asked for together.
#[derive(Default)]
pub struct Lists(HashMap<ContentId, ChunkList>);

impl Lists {
    fn get(&mut self, local: &Local, list: Content) -> Option<&ChunkList> {
        if !self.0.contains_key(&list.id) {
            let read = ChunkList::parse(list, &local.list(list)?).ok()?;
            if self.0.len() >= LISTS_KEPT_MAX {
                self.0.clear();
            }
            self.0.insert(list.id, read);
        }
        self.0.get(&list.id)
    }
}

/// One chunk or list; `None` for every reason not to give it.
pub fn one(local: &Local, wanted: &WantedContent, lists: &mut Lists) -> Option<Vec<u8>> {
    let content = wanted.content;
    if !content.is_plausible() {
        return None;
    }
    if content.depth > 0 {
        let announced = local.reader.is_announced(content.id).ok()?;
        return local.list(content).filter(|_| announced);
    }
    let hinted = wanted.hint.as_ref().and_then(|(path, offset)| hinted_place(local, content, path, *offset, lists));
    let in_place = hinted.and_then(|place| read_reliably(local, &place, content));
    in_place.or_else(|| downloading(local, wanted)).or_else(|| local.chunk(content))
}

/// What is here of a file that is being fetched from others.
fn downloading(local: &Local, wanted: &WantedContent) -> Option<Vec<u8>> {
    let (path, offset) = wanted.hint.as_ref()?;
    local.folder.downloads.chunk(path, wanted.content, *offset)
}

/// A look that was too close to a write may have missed one: what is read there is verified.
fn read_reliably(local: &Local, place: &Place, chunk: Content) -> Option<Vec<u8>> {
    let bytes = local.at(place, chunk)?;
    (place.disk.ctime_ns != 0 || chunk.verify(&bytes).is_ok()).then_some(bytes)
}

/// The place that a hint names, if the index says that the chunk lies just there. What a suspect file has is not
/// what its entry says.
fn hinted_place(local: &Local, chunk: Content, path: &RelPath, offset: u64, lists: &mut Lists) -> Option<Place> {
    let record = local.reader.record(path).ok()?.filter(|record| record.is_held() && record.mark != Mark::Suspect)?;
    let whole = record.entry.kind.content()?;
    let place = Place { path: path.clone(), disk: record.disk?, offset };
    let (mut at, mut rest) = (whole, offset);
    while at.depth > 0 {
        let list = lists.get(local, at)?;
        at = *list.children().iter().find(|child| {
            let is_it = rest < child.size;
            rest -= if is_it { 0 } else { child.size };
            is_it
        })?;
    }
    (at == chunk && rest == 0).then_some(place)
}
