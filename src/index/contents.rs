//! Chunk lists and where their chunks lie.
//!
//! A list is stored once, under its own id, however many contents share it. The table of places says for every child
//! of every list where it stands; climbing from a chunk to the lists that hold it, and on to the lists that hold
//! those, leads to the files. A list is dropped when no live entry, no history and no other list uses it.

use std::collections::HashSet;

use rusqlite::{Row, params};

use super::error::{Fault, Res};
use super::history::history_columns;
use super::open::{Index, Reader, rows_max};
use super::row::{blob, content_id, count_at, history_at};
use super::{HistoryRow, IndexError, Place};
use crate::core::content::{ChunkList, Content, ContentId, DEPTH_MAX, LIST_BYTES_MAX};

/// Packed bytes of one child of a list: its id and its length.
const CHILD_BYTES: usize = 40;
/// Lists that one search for a chunk may look at: bounds the time that a peer's question can cost.
const CLIMB_LISTS_MAX: usize = 1024;
/// Lists of one content that are read back: far beyond any real file, yet a bounded memory.
const LISTS_MAX: usize = 1 << 16;

/// A content that holds what was searched for, and where in it.
struct Holder {
    id: ContentId,
    offset: u64,
}

impl Index {
    /// Stores the lists of one file's content, in any order. Those that are there already cost a look each.
    pub fn put_lists(&mut self, root: Content, lists: &[ChunkList]) -> Result<(), IndexError> {
        self.write(|index| {
            for list in lists {
                index.put_list(list)?;
            }
            // Until an entry uses it, the root may come to be dropped again.
            if root.depth > 0 && !index.is_used(root.id)? { index.loosen(root.id) } else { Ok(()) }
        })
    }

    /// Drops up to `limit` lists that nothing uses any more, with their places. Says how many.
    pub fn collect_lists(&mut self, limit: usize) -> Result<usize, IndexError> {
        self.write(|index| {
            let mut dropped = 0;
            while dropped < limit {
                let sql = "DELETE FROM loose WHERE own = (SELECT min(own) FROM loose) RETURNING own";
                let Some(id) = index.first_raw(sql, [], |_, row| content_id(blob(row, 0)?))? else { break };
                if !index.is_used(id)? && index.drop_list(id)? {
                    dropped += 1;
                }
            }
            Ok(dropped)
        })
    }

    /// Keeps the list of loose ends right when the content at a path, or in history, changes.
    pub(super) fn note_use(&mut self, old: Option<Content>, new: Option<Content>) -> Res<()> {
        if old == new {
            return Ok(());
        }
        if let Some(old) = old.filter(|c| c.depth > 0) {
            self.loosen(old.id)?;
        }
        if let Some(new) = new.filter(|c| c.depth > 0) {
            self.execute("DELETE FROM loose WHERE own = ?1", params![new.id.0.as_slice()])?;
        }
        Ok(())
    }

    fn loosen(&mut self, id: ContentId) -> Res<()> {
        self.execute("INSERT OR IGNORE INTO loose (own) VALUES (?1)", params![id.0.as_slice()]).map(drop)
    }

    fn put_list(&mut self, list: &ChunkList) -> Res<()> {
        let Content { id, depth, size } = list.content();
        if self.list_number(id)?.is_some() {
            return Ok(());
        }
        let sql = "INSERT INTO lists (own, depth, size, body) VALUES (?1, ?2, ?3, ?4)";
        self.execute(sql, params![id.0.as_slice(), depth, size.cast_signed(), list.body()])?;
        let number = self.conn.last_insert_rowid();
        let mut places: Vec<(i64, i64)> = (0i64..).zip(list.children()).map(|(at, c)| (c.id.prefix(), at)).collect();
        // In the order of the table, so that neighbours are written to one page.
        places.sort_unstable();
        for (prefix, at) in places {
            self.execute("INSERT INTO places (prefix, list, idx) VALUES (?1, ?2, ?3)", [prefix, number, at])?;
        }
        Ok(())
    }

    fn drop_list(&mut self, id: ContentId) -> Res<bool> {
        let Some(number) = self.list_number(id)? else { return Ok(false) };
        let sql = "SELECT depth, body FROM lists WHERE id = ?1";
        let found = self.first_raw(sql, [number], |_, row| Ok((row.get::<_, u8>(0)?, children(blob(row, 1)?)?)))?;
        let (depth, children) = found.ok_or(Fault::Bad("a list that is gone"))?;
        self.execute("DELETE FROM lists WHERE id = ?1", [number])?;
        for (at, (child, _)) in (0i64..).zip(children) {
            let sql = "DELETE FROM places WHERE prefix = ?1 AND list = ?2 AND idx = ?3";
            self.execute(sql, [child.prefix(), number, at])?;
            if depth > 1 {
                self.loosen(child)?;
            }
        }
        Ok(true)
    }
}

impl Reader {
    /// Where a chunk lies in the files on this disk: the whole of a small file, or a part of a listed one.
    pub fn places(&self, chunk: ContentId, limit: usize) -> Result<Vec<Place>, IndexError> {
        self.read(|r| {
            let mut places = Vec::new();
            r.climb(chunk, |holder| {
                for record in r.holders_raw(holder.id, limit.saturating_sub(places.len()))? {
                    let (path, disk) = (record.entry.path, record.disk);
                    places.extend(disk.map(|disk| Place { path, disk, offset: holder.offset }));
                }
                Ok(places.len() >= limit)
            })?;
            Ok(places)
        })
    }

    /// Where a chunk lies in what is in history, with the bytes from the start of it.
    pub fn history_places(&self, chunk: ContentId, limit: usize) -> Result<Vec<(HistoryRow, u64)>, IndexError> {
        self.read(|r| {
            let mut places = Vec::new();
            r.climb(chunk, |holder| {
                let rows = r.history_with_raw(holder.id, limit.saturating_sub(places.len()))?;
                places.extend(rows.into_iter().map(|row| (row, holder.offset)));
                Ok(places.len() >= limit)
            })?;
            Ok(places)
        })
    }

    /// The packed body of a list.
    pub fn list_body(&self, id: ContentId) -> Result<Option<Vec<u8>>, IndexError> {
        self.read(|r| Ok(r.list_raw(id)?.map(|(_, body)| body)))
    }

    /// All lists of a content, each once, the lowest first and else in the order of the file. `None` where any is
    /// missing; none at all for a content that is one chunk.
    pub fn lists_of(&self, root: Content) -> Result<Option<Vec<ChunkList>>, IndexError> {
        if root.depth == 0 {
            return Ok(Some(Vec::new()));
        }
        self.read(|r| {
            let mut levels = Vec::new();
            let mut seen = HashSet::from([root.id]);
            let mut wanted = vec![root];
            while !wanted.is_empty() {
                let mut level = Vec::new();
                let mut below = Vec::new();
                for content in wanted {
                    let Some((_, body)) = r.list_raw(content.id)? else { return Ok(None) };
                    let list = ChunkList::parse(content, &body).map_err(|_| Fault::Bad("a list that is not its id"))?;
                    below.extend(list.children().iter().filter(|c| c.depth > 0 && seen.insert(c.id)));
                    level.push(list);
                }
                if seen.len() > LISTS_MAX {
                    return Ok(None);
                }
                levels.push(level);
                wanted = below;
            }
            Ok(Some(levels.into_iter().rev().flatten().collect()))
        })
    }

    /// True where a file on this disk or in history has the id as its content, or as a list or chunk of it.
    pub fn is_announced(&self, id: ContentId) -> Result<bool, IndexError> {
        self.read(|r| {
            r.climb(id, |holder| {
                Ok(!r.holders_raw(holder.id, 1)?.is_empty() || !r.history_with_raw(holder.id, 1)?.is_empty())
            })
        })
    }

    pub(super) fn history_with_raw(&self, id: ContentId, limit: usize) -> Res<Vec<HistoryRow>> {
        let sql = concat!(
            "SELECT ",
            history_columns!(),
            " FROM history WHERE content IS NOT NULL AND substr(content, 1, 8) = substr(?1, 1, 8) AND content = ?1",
            " LIMIT ?2"
        );
        self.rows_raw(sql, params![id.0.as_slice(), rows_max(limit)], history_at)
    }

    /// Shows `visit` the id itself and the lists above it, one way up after the other, until it says that it has
    /// enough. True where it did.
    fn climb(&self, id: ContentId, mut visit: impl FnMut(&Holder) -> Res<bool>) -> Res<bool> {
        let mut lists_left = CLIMB_LISTS_MAX;
        self.climb_from(&Holder { id, offset: 0 }, DEPTH_MAX, &mut lists_left, &mut visit)
    }

    fn climb_from(
        &self,
        at: &Holder,
        steps: u8,
        lists_left: &mut usize,
        visit: &mut dyn FnMut(&Holder) -> Res<bool>,
    ) -> Res<bool> {
        if visit(at)? {
            return Ok(true);
        }
        if steps == 0 {
            return Ok(false);
        }
        // Row by row: a chunk of zeros stands in thousands of places, and mostly the first one is enough. The latest list
        // first: all the others may be those of earlier versions of one file.
        let sql = "SELECT own, idx, substr(body, 1, (idx + 1) * 40) FROM places JOIN lists ON lists.id = list
                   WHERE prefix = ?1 ORDER BY list DESC, idx DESC";
        let mut statement = self.conn.prepare_cached(sql)?;
        let mut rows = statement.query([at.id.prefix()])?;
        while let Some(row) = rows.next()? {
            if *lists_left == 0 {
                return Ok(false);
            }
            *lists_left -= 1;
            if let Some(parent) = parent_at(row, at)?
                && self.climb_from(&parent, steps - 1, lists_left, visit)?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// True where a live entry, history or another list has the id.
    fn is_used(&self, id: ContentId) -> Res<bool> {
        let id = params![id.0.as_slice(), id.prefix()];
        let sql = "SELECT 1 WHERE
            EXISTS (SELECT 1 FROM entries WHERE kind = 1 AND substr(content, 1, 8) = substr(?1, 1, 8) AND content = ?1)
            OR EXISTS (SELECT 1 FROM history WHERE content IS NOT NULL AND substr(content, 1, 8) = substr(?1, 1, 8)
                       AND content = ?1)
            OR EXISTS (SELECT 1 FROM places JOIN lists ON lists.id = list
                       WHERE prefix = ?2 AND substr(body, idx * 40 + 1, 32) = ?1)";
        Ok(self.first_raw(sql, id, |_, _| Ok(()))?.is_some())
    }

    fn list_number(&self, id: ContentId) -> Res<Option<i64>> {
        let sql = "SELECT id FROM lists WHERE substr(own, 1, 8) = substr(?1, 1, 8) AND own = ?1";
        self.first_raw(sql, params![id.0.as_slice()], |_, row| Ok(row.get(0)?))
    }

    fn list_raw(&self, id: ContentId) -> Res<Option<(i64, Vec<u8>)>> {
        let sql = "SELECT id, body FROM lists WHERE substr(own, 1, 8) = substr(?1, 1, 8) AND own = ?1";
        self.first_raw(sql, params![id.0.as_slice()], |_, row| Ok((row.get(0)?, blob(row, 1)?.to_vec())))
    }
}

/// The list that a row of places names, if it has the very child, and where in it the searched chunk lies.
fn parent_at(row: &Row, child: &Holder) -> Res<Option<Holder>> {
    let (at, upto) = (count_at(row, 1)?, children(blob(row, 2)?)?);
    let Some(((id, _), before)) = upto.split_last().filter(|_| upto.len() as u64 == at + 1) else {
        return Err(Fault::Bad("a place that is not in its list"));
    };
    if *id != child.id {
        return Ok(None);
    }
    let offset = before.iter().try_fold(child.offset, |sum, (_, size)| sum.checked_add(*size));
    let offset = offset.ok_or(Fault::Bad("a list with impossible lengths"))?;
    Ok(Some(Holder { id: content_id(blob(row, 0)?)?, offset }))
}

/// The children of a packed list, or of the first part of one: id and length.
fn children(body: &[u8]) -> Res<Vec<(ContentId, u64)>> {
    let (children, rest) = body.as_chunks::<CHILD_BYTES>();
    if !rest.is_empty() || body.len() > LIST_BYTES_MAX {
        return Err(Fault::Bad("a list that is cut short"));
    }
    let split = |child: &[u8; CHILD_BYTES]| {
        let (id, size) = child.split_first_chunk::<32>()?;
        Some((ContentId(*id), u64::from_be_bytes(size.try_into().ok()?)))
    };
    children.iter().map(|child| split(child).ok_or(Fault::Bad("a list that is cut short"))).collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::super::{Index, Mark};
    use super::*;
    use crate::core::entry::{Entry, Kind};

    fn put_listed(index: &mut Index, at: &str, root: Content, lists: &[ChunkList]) -> Entry {
        let entry = of_kind(at, Kind::File(root));
        index.put_lists(root, lists).unwrap();
        put(index, &entry);
        entry
    }

    fn offset_of(chunks: &[Content], n: usize) -> u64 {
        chunks[..n].iter().map(|c| c.size).sum()
    }

    #[test]
    fn every_chunk_of_a_file_with_many_lists_is_found_at_its_offset() {
        let mut index = index();
        let (root, lists, chunks) = two_level_content(5, 30);
        put_listed(&mut index, "big", root, &lists);
        for (n, chunk) in chunks.iter().enumerate() {
            let places = index.places(chunk.id, 10).unwrap();
            let place = Place { path: path("big"), disk: disk(1).unwrap(), offset: offset_of(&chunks, n) };
            assert_eq!(places, [place]);
        }
        assert_eq!(index.places(ContentId([5; 32]), 10).unwrap(), []);
    }

    #[test]
    fn a_chunk_is_found_in_whole_files_and_in_all_that_share_it() {
        let mut index = index();
        let (root, lists, chunks) = two_level_content(2, 3);
        let other = ChunkList::new(vec![chunks[5], chunks[0], chunks[5]]).unwrap();
        put_listed(&mut index, "two", root, &lists);
        put_listed(&mut index, "other", other.content(), std::slice::from_ref(&other));
        put(&mut index, &of_kind("small", Kind::File(chunks[5])));
        // The same page is also a file of its own.
        put(&mut index, &of_kind("page", Kind::File(lists[1].content())));
        let mut found: Vec<(RelPathText, u64)> =
            index.places(chunks[5].id, 10).unwrap().iter().map(|p| (p.path.to_string(), p.offset)).collect();
        found.sort();
        let expected = [
            ("other", 0),
            ("other", chunks[5].size + chunks[0].size),
            ("page", offset_of(&chunks[3..], 2)),
            ("small", 0),
            ("two", offset_of(&chunks, 5)),
        ];
        assert_eq!(found, expected.map(|(at, offset)| (at.to_string(), offset)));
        assert_eq!(index.places(chunks[5].id, 2).unwrap().len(), 2);
    }

    type RelPathText = String;

    #[test]
    fn ids_that_share_their_first_bits_are_told_apart() {
        let mut index = index();
        let mut twin = Content::of_chunk(b"a");
        twin.id.0[31] ^= 1;
        let list = ChunkList::new(vec![Content::of_chunk(b"a"), Content::of_chunk(b"b")]).unwrap();
        let twins = ChunkList::new(vec![Content::of_chunk(b"b"), twin]).unwrap();
        put_listed(&mut index, "one", list.content(), std::slice::from_ref(&list));
        put_listed(&mut index, "two", twins.content(), std::slice::from_ref(&twins));
        put(&mut index, &of_kind("whole", Kind::File(twin)));
        let found = |id| -> Vec<String> {
            index.places(id, 9).unwrap().iter().map(|p| format!("{} {}", p.path, p.offset)).collect()
        };
        assert_eq!(found(Content::of_chunk(b"a").id), ["one 0"]);
        assert_eq!(found(twin.id), ["whole 0", "two 1"]);
    }

    #[test]
    fn lists_read_back_with_children_before_parents_or_not_at_all() {
        let mut index = index();
        let (root, lists, chunks) = two_level_content(4, 5);
        assert_eq!(index.lists_of(root).unwrap(), None);
        index.put_lists(root, &lists).unwrap();
        index.put_lists(root, &lists).unwrap();
        assert_eq!(index.lists_of(root).unwrap(), Some(lists.clone()));
        assert_eq!(index.lists_of(chunks[0]).unwrap(), Some(vec![]));
        assert_eq!(index.list_body(lists[2].content().id).unwrap(), Some(lists[2].body()));
        assert_eq!(index.list_body(chunks[0].id).unwrap(), None);
        let mut partial = super::super::testing::index();
        partial.put_lists(root, &lists[1..]).unwrap();
        assert_eq!(partial.lists_of(root).unwrap(), None);
        partial.put_lists(root, &lists).unwrap();
        assert_eq!(partial.lists_of(root).unwrap(), Some(lists));
    }

    #[test]
    fn a_list_that_repeats_in_a_file_is_stored_once_and_found_at_each_place() {
        let mut index = index();
        let page = ChunkList::new(vec![Content::of_chunk(b"zz"), Content::of_chunk(b"y")]).unwrap();
        let top = ChunkList::new(vec![page.content(), page.content()]).unwrap();
        put_listed(&mut index, "f", top.content(), &[page.clone(), page.clone(), top.clone()]);
        assert_eq!(count(&index, "lists"), 2);
        assert_eq!(index.lists_of(top.content()).unwrap(), Some(vec![page, top]));
        let offsets: Vec<u64> = index.places(Content::of_chunk(b"y").id, 9).unwrap().iter().map(|p| p.offset).collect();
        assert_eq!(offsets, [5, 2]);
    }

    #[test]
    fn all_that_a_file_on_this_disk_is_made_of_is_announced_and_nothing_else() {
        let mut index = index();
        let (root, lists, chunks) = two_level_content(2, 3);
        index.put_lists(root, &lists).unwrap();
        let all: Vec<ContentId> = chunks.iter().chain([&lists[0].content(), &root]).map(|c| c.id).collect();
        assert!(all.iter().all(|id| !index.is_announced(*id).unwrap()));
        let entry = of_kind("f", Kind::File(root));
        index.put(&entry, None, Mark::Ignored, 0).unwrap();
        assert!(all.iter().all(|id| !index.is_announced(*id).unwrap()));
        put(&mut index, &entry);
        assert!(all.iter().all(|id| index.is_announced(*id).unwrap()));
        put(&mut index, &tombstone("f"));
        assert!(all.iter().all(|id| !index.is_announced(*id).unwrap()));
        index.add_history(&displaced("slot", "f", Some(root), 1)).unwrap();
        assert!(all.iter().all(|id| index.is_announced(*id).unwrap()));
        let (row, offset) = index.history_places(chunks[4].id, 5).unwrap().remove(0);
        assert_eq!((row.slot, offset), (path("slot"), offset_of(&chunks, 4)));
    }

    #[test]
    fn lists_go_when_their_last_user_goes_and_not_before() {
        let mut index = index();
        let (root, lists, _) = two_level_content(3, 4);
        let shared = ChunkList::new(vec![lists[1].content(), lists[0].content()]).unwrap();
        put_listed(&mut index, "f", root, &lists);
        put_listed(&mut index, "copy", root, &lists);
        put_listed(&mut index, "shares", shared.content(), std::slice::from_ref(&shared));
        assert_eq!(index.collect_lists(100).unwrap(), 0);
        index.add_history(&displaced("slot", "f", Some(root), 1)).unwrap();
        put(&mut index, &file("f", b"edited"));
        index.remove(&path("copy")).unwrap();
        assert_eq!(index.collect_lists(100).unwrap(), 0);
        assert_eq!(index.lists_of(root).unwrap(), Some(lists.clone()));
        index.drop_history(&path("slot")).unwrap();
        assert_eq!(index.collect_lists(1).unwrap(), 1);
        assert_eq!(index.collect_lists(100).unwrap(), 1);
        assert_eq!(index.lists_of(shared.content()).unwrap().unwrap().len(), 3);
        put(&mut index, &tombstone("shares"));
        assert_eq!(index.collect_lists(100).unwrap(), 3);
        assert_eq!(["lists", "places", "loose"].map(|table| count(&index, table)), [0, 0, 0]);
    }

    #[test]
    fn lists_for_which_no_entry_ever_came_are_collected_too() {
        let mut index = index();
        let (root, lists, _) = two_level_content(2, 2);
        index.put_lists(root, &lists).unwrap();
        assert_eq!(index.collect_lists(100).unwrap(), 3);
        assert_eq!(count(&index, "places"), 0);
    }

    #[test]
    fn a_tampered_list_is_damage() {
        let mut index = index();
        let (root, lists, chunks) = two_level_content(2, 2);
        put_listed(&mut index, "f", root, &lists);
        index.conn.execute("UPDATE lists SET body = substr(body, 1, 41) WHERE depth = 1", []).unwrap();
        assert!(index.lists_of(root).unwrap_err().is_corrupt());
        assert!(index.places(chunks[1].id, 5).unwrap_err().is_corrupt());
    }
}
