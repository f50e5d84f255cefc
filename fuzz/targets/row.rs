//! An index with damaged rows: whoever reads gets an error that says so, or something valid; and nothing panics.
//!
//! Layout: whether to write, too; then changes to columns, one after the other: table, column, which row, value.

use std::cell::RefCell;

use p2psync::core::content::{ChunkList, Content};
use p2psync::core::digest::bucket_of;
use p2psync::core::disk::{DiskKind, DiskState};
use p2psync::core::entry::{Entry, Kind};
use p2psync::core::id::{DeviceId, EpochId, RunId};
use p2psync::core::message::{Announced, Cursor, Exception, Reason};
use p2psync::core::path::RelPath;
use p2psync::core::problem::{Problem, ProblemKind};
use p2psync::core::version::VersionVector;
use p2psync::index::{HistoryRow, Index, IndexError, Mark, PeerRow, Record, Rival};
use rusqlite::types::Value;

use super::check;
use super::draw::Draw;

const EPOCH: EpochId = EpochId(u64::MAX - 1);
const PEER: DeviceId = DeviceId([7; 32]);
const CHANGES_MAX: usize = 6;
const LIMIT: usize = 100;

/// Tables with the columns that are worth damaging.
const TABLES: [(&str, &[&str]); 13] = [
    (
        "entries",
        &[
            "seq",
            "path",
            "kind",
            "content",
            "depth",
            "size",
            "mtime_ns",
            "weight_ns",
            "version",
            "author",
            "superseded",
            "meta",
            "mark",
            "changed_ms",
            "disk_kind",
            "disk_size",
            "disk_mtime_ns",
            "disk_ctime_ns",
            "disk_inode",
            "disk_mode",
            "brought_by",
            "placed_ms",
        ],
    ),
    (
        "rivals",
        &[
            "path",
            "peer",
            "seq",
            "held",
            "todo",
            "kind",
            "content",
            "depth",
            "size",
            "mtime_ns",
            "weight_ns",
            "version",
            "author",
            "superseded",
            "meta",
        ],
    ),
    (
        "history",
        &[
            "slot",
            "path",
            "content",
            "depth",
            "size",
            "disk_kind",
            "disk_size",
            "disk_mtime_ns",
            "disk_ctime_ns",
            "disk_inode",
            "disk_mode",
            "author",
            "displaced_ms",
            "by_remote",
            "brought_by",
            "displaced_by",
            "placed_ms",
        ],
    ),
    ("state", &["epoch", "run", "scanned", "clean", "last_seq", "files", "directories", "tombstones", "bytes"]),
    ("digest", &["bucket", "value"]),
    ("runs", &["number", "epoch", "run", "first_seq"]),
    ("found", &["epoch", "upto"]),
    ("devices", &["id", "device"]),
    ("lists", &["id", "own", "depth", "size", "body"]),
    ("places", &["prefix", "list", "idx"]),
    (
        "peers",
        &["peer", "cursor_epoch", "cursor_seq", "cursor_runs", "their_last_seq", "acked", "applied", "proved_ms"],
    ),
    ("exceptions", &["peer", "path", "seq", "reason"]),
    ("problems", &["path", "kind", "text", "since_ms", "retry_ms", "attempts"]),
];

thread_local! {
    // Made once, because making it costs more than all questions: what is damaged is rolled back.
    static READ: RefCell<(Index, Known)> = RefCell::new(filled());
}

pub fn run(data: &[u8]) {
    let mut draw = Draw(data);
    if draw.flag() {
        let (mut index, known) = filled();
        if damage(&mut index, &mut draw) {
            read(&index, &known);
            write(&mut index, &known);
            read(&index, &known);
        }
        return;
    }
    READ.with_borrow_mut(|(index, known)| {
        // An input that failed has left its damage.
        index.rollback().expect("an index can be rolled back");
        index.begin().expect("a transaction can be begun");
        if damage(index, &mut draw) {
            read(index, known);
        }
        index.rollback().expect("an index can be rolled back");
    });
}

/// Makes the changes. False where a restart would already notice.
fn damage(index: &mut Index, draw: &mut Draw<'_>) -> bool {
    for _ in 0..CHANGES_MAX {
        if draw.is_empty() {
            break;
        }
        let (table, columns) = TABLES[draw.below(TABLES.len())];
        let column = columns[draw.below(columns.len())];
        let (every, which) = (1 + draw.below(4), draw.below(4));
        let value = value(draw);
        let has_no_row_id = matches!(table, "rivals" | "history" | "exceptions" | "problems" | "places");
        let key = if has_no_row_id { "1" } else { "rowid" };
        let sql = format!("UPDATE OR IGNORE {table} SET {column} = ?1 WHERE {key} % {every} = {which} % {every}");
        if let Err(error) = index.damage(&sql, &[value]) {
            is_damage(&error);
            return false;
        }
    }
    true
}

fn filled() -> (Index, Known) {
    let mut index = Index::in_memory(EPOCH).expect("an index can be made");
    let known = fill(&mut index).expect("an index can be filled");
    (index, known)
}

/// What the index holds, to ask for it.
struct Known {
    paths: Vec<RelPath>,
    contents: Vec<Content>,
}

fn path(text: &str) -> RelPath {
    RelPath::parse(text.as_bytes()).expect("this is a path")
}

fn entry(at: &str, kind: Kind) -> Entry {
    let mtime_ns = if matches!(kind, Kind::File(_) | Kind::Symlink(_)) { 1_700_000_000_000_000_000 } else { 0 };
    let version = VersionVector::new().with(EPOCH, 1).with(EpochId(3), 9);
    Entry { kind, mtime_ns, weight_ns: mtime_ns, version, author: PEER, ..Entry::nothing(path(at)) }
}

fn disk() -> DiskState {
    DiskState { kind: DiskKind::File, size: 5, mtime_ns: 1, ctime_ns: 2, inode: 3, mode: 0o644 }
}

fn fill(index: &mut Index) -> Result<Known, IndexError> {
    let chunks: Vec<Content> = (0u8..4).map(|n| Content::of_chunk(&[n; 5])).collect();
    let list = ChunkList::new(chunks.clone()).expect("this is a list");
    let large = list.content();
    index.start_run(RunId(5))?;
    index.begin()?;
    index.set_found(EPOCH, 3)?;
    let kinds = [
        ("dir", Kind::Directory),
        ("dir/file", Kind::File(chunks[0])),
        ("dir/large.conflict-20260101-000000-FOUND", Kind::File(large)),
        ("dir/link", Kind::Symlink(b"../x"[..].into())),
        ("gone", Kind::Deleted),
    ];
    for (at, kind) in kinds.clone() {
        let disk = (!kind.is_deleted()).then(disk);
        index.put(&entry(at, kind), disk, Mark::Here, 1000)?;
    }
    index.put(&entry("missing", Kind::File(chunks[1])), None, Mark::Missing, 2000)?;
    index.put_lists(large, std::slice::from_ref(&list))?;
    for (seq, (at, kind)) in (1..).zip(kinds) {
        let mut rival = entry(at, kind);
        rival.version = VersionVector::new().with(EpochId(77), seq);
        index.put_rival(PEER, &Announced { entry: rival, seq, held: true })?;
        index.set_todo(&path(at), true)?;
    }
    let cursor = Some(Cursor { epoch: EpochId(77), seq: 4, runs: vec![(RunId(1), 2), (RunId(2), 4)] });
    let times = (Some(1), Some(2));
    let (proved_ms, last_seen_ms) = times;
    index.set_peer(&PeerRow {
        device: PEER,
        cursor,
        their_last_seq: 9,
        acked: 5,
        applied: 4,
        proved_ms,
        last_seen_ms,
    })?;
    index.set_exceptions(PEER, &[Exception { path: path("dir/file"), seq: 2, reason: Reason::Held }])?;
    index.set_problem(&path("dir/link"), &Problem::new(ProblemKind::Io, "text"), 10, Some(20))?;
    for (slot, content) in [("dir/file~1", Some(chunks[2])), ("dir/large~2", Some(large)), ("link~3", None)] {
        let (path, slot) = (path("dir/file"), path(slot));
        index.add_history(&HistoryRow {
            slot,
            path,
            content,
            disk: disk(),
            author: PEER,
            displaced_ms: 5,
            by_remote: true,
            brought_by: Some(PEER),
            displaced_by: None,
            placed_ms: None,
        })?;
    }
    index.note_removal(5, &path("gone"))?;
    index.log(6, "applied", Some(&path("dir/file")), "text")?;
    index.commit()?;
    let paths = ["dir", "dir/file", "dir/large.conflict-20260101-000000-FOUND", "dir/link", "gone", "missing", "never"];
    let contents = chunks.into_iter().chain([large]).collect();
    Ok(Known { paths: paths.map(path).to_vec(), contents })
}

fn value(draw: &mut Draw<'_>) -> Value {
    match draw.byte() % 8 {
        0 => Value::Null,
        1 | 2 => Value::Integer(draw.i64()),
        3 => Value::Real(f64::from_bits(draw.u64())),
        4 => {
            let length = draw.byte();
            Value::Text(String::from_utf8_lossy(draw.bytes(length.into())).into_owned())
        }
        5 => Value::Blob(vec![draw.byte(); draw.below(20_000)]),
        _ => {
            let length = draw.byte();
            Value::Blob(draw.bytes(length.into()).to_vec())
        }
    }
}

/// The error says that the index is damaged, so that it will be set aside and made anew.
fn is_damage(error: &IndexError) {
    assert!(error.is_corrupt(), "not known for damage: {error:?}");
    check::error_chain(error);
}

/// What was read, or nothing.
fn got<T>(result: Result<T, IndexError>) -> Option<T> {
    result.map_err(|error| is_damage(&error)).ok()
}

fn records(result: Result<Vec<Record>, IndexError>) {
    got(result).into_iter().flatten().for_each(|record| good_record(&record));
}

fn good_record(record: &Record) {
    check::entry(&record.entry);
    check::count(record.seq);
    assert!(record.disk.is_none_or(|disk| disk.mode <= 0o7777), "disk mode {:?}", record.disk);
}

fn rivals(result: Result<Vec<Rival>, IndexError>) {
    for rival in got(result).into_iter().flatten() {
        check::entry(&rival.entry);
        check::count(rival.seq);
    }
}

fn history(result: Result<Vec<HistoryRow>, IndexError>) {
    for row in got(result).into_iter().flatten() {
        check::path(&row.slot);
        check::path(&row.path);
        row.content.iter().for_each(check::content);
    }
}

fn paths(result: Result<Vec<RelPath>, IndexError>) {
    got(result).into_iter().flatten().for_each(|path| check::path(&path));
}

/// Every question that can be asked.
fn read(index: &Index, known: &Known) {
    records(index.records_since(0, LIMIT));
    records(index.records_from(None, None, LIMIT));
    paths(index.missing(LIMIT));
    for mark in [Mark::Here, Mark::Missing, Mark::Held, Mark::Suspect, Mark::Ignored, Mark::Declined, Mark::Kept] {
        got(index.count_marked(mark));
        records(index.marked(mark, None, LIMIT));
    }
    known.paths.iter().for_each(|path| records(index.bucket(bucket_of(path), None, LIMIT)));
    records(index.conflict_copies(LIMIT));
    paths(index.todo_live(None, LIMIT));
    paths(index.todo_deleted(None, LIMIT));
    rivals(index.rivals_of(PEER, LIMIT));
    paths(index.rival_paths(None, None, LIMIT));
    got(index.count_rival_deletions());
    got(index.tally_wanted());
    got(index.tally_wanted_in_trouble(LIMIT));
    got(index.tally_rival_deletions());
    history(index.history_from(None, LIMIT));
    history(index.history_older(i64::MAX, LIMIT));
    history(index.history_below(None, LIMIT));
    paths(index.removals(0, LIMIT));
    read_around(index);
    known.paths.iter().for_each(|path| read_path(index, path));
    for content in &known.contents {
        records(index.holders(content.id, LIMIT));
        records(index.moved_from(content.id, LIMIT));
        history(index.history_with(content.id, LIMIT));
        got(index.is_announced(content.id));
        got(index.list_body(content.id));
        got(index.places(content.id, LIMIT));
        got(index.history_places(content.id, LIMIT));
        let lists = got(index.lists_of(*content)).flatten();
        lists.into_iter().flatten().for_each(|list| check::content(&list.content()));
    }
}

/// What is kept of the folder as a whole and of peers.
fn read_around(index: &Index) {
    if let Some(state) = got(index.state()) {
        check::count(state.last_seq);
    }
    got(index.runs(EPOCH)).into_iter().flatten().for_each(|(_, seq)| check::count(seq));
    got(index.found());
    got(index.totals());
    got(index.digest());
    got(index.history_bytes());
    for peer in got(index.peers()).into_iter().flatten().chain(got(index.peer(PEER)).flatten()) {
        [peer.their_last_seq, peer.acked, peer.applied].into_iter().for_each(check::count);
        let runs = peer.cursor.into_iter().flat_map(|c| c.runs.into_iter().map(|(_, seq)| seq).chain([c.seq]));
        runs.for_each(check::count);
    }
    for exception in got(index.exceptions(PEER, LIMIT)).into_iter().flatten() {
        check::path(&exception.path);
        check::count(exception.seq);
    }
    got(index.problems(LIMIT));
    got(index.problems_below(None, ProblemKind::Permission, LIMIT));
    paths(index.problems_due(i64::MAX, i64::MAX, LIMIT));
    got(index.next_problem_ms());
    got(index.count_problems());
    got(index.tally_problems());
    got(index.tally_since(0));
    got(index.tally_exceptions(PEER, 0));
    got(index.last_events(LIMIT));
    got(index.events(0, LIMIT));
    got(index.count_since(0, None));
    got(index.count_since(1, None));
}

fn read_path(index: &Index, path: &RelPath) {
    got(index.record(path)).flatten().iter().for_each(good_record);
    records(index.records_from(Some(path), Some(path), LIMIT));
    rivals(index.rivals(path));
    history(index.history_of(path));
    history(index.history_below(Some(path), LIMIT));
    got(index.has_live_below(path));
    got(index.totals_below(path));
    got(index.count_since(1, Some(path)));
    got(index.problem(path));
    got(index.exception_at(PEER, path));
}

/// Life goes on above the damage, as far as it can.
fn write(index: &mut Index, known: &Known) {
    for (path, content) in known.paths.iter().zip(known.contents.iter().cycle()) {
        let new = Entry { path: path.clone(), ..entry("x", Kind::File(*content)) };
        got(index.put(&new, Some(disk()), Mark::Here, 3000));
        got(index.put_rival(PEER, &Announced { entry: new, seq: 50, held: false }));
        got(index.set_todo(path, true));
        got(index.drop_rival(PEER, path));
        got(index.set_problem(path, &Problem::new(ProblemKind::NoSpace, "full"), 30, None));
    }
    got(index.wake_rivals());
    got(index.remove(&known.paths[1]));
    got(index.drop_history(&path("dir/large~2")));
    got(index.forget_tombstones(i64::MAX, u64::MAX, LIMIT));
    got(index.collect_lists(LIMIT));
    got(index.start_run(RunId(6)));
    got(index.set_exceptions(PEER, &[]));
    got(index.forget_peer(PEER));
    got(index.rollback());
}
