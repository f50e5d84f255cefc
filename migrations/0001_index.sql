-- The index of one folder on one device. Paths are keys: `/` is written as a zero byte, so that the order of the
-- bytes is the order of the paths and a directory sorts directly before all that is below it. Ids are random 64-bit
-- numbers, stored as signed ones. Times end in their unit. Kinds: 0 deleted, 1 file, 2 directory, 3 symlink.

-- One row: which life of the index this is, how far it has counted, and sums that would cost a walk to find.
-- `last_seq` is kept apart from the entries, because the entry that got the last number may be forgotten and no
-- number is ever issued twice. `bytes` may wrap where peers announced absurd sizes; it comes right when they go.
CREATE TABLE state (
    one           INTEGER PRIMARY KEY CHECK (one = 1),
    epoch         INTEGER NOT NULL,
    run           INTEGER NOT NULL,
    scanned       INTEGER NOT NULL,
    clean         INTEGER NOT NULL,
    last_seq      INTEGER NOT NULL,
    files         INTEGER NOT NULL,
    directories   INTEGER NOT NULL,
    symlinks      INTEGER NOT NULL,
    tombstones    INTEGER NOT NULL,
    bytes         INTEGER NOT NULL,
    history_bytes INTEGER NOT NULL
) STRICT;

-- The folder digest: per bucket the sum (16 bytes, big-endian) of the values of its live entries. A bucket that
-- is not here is zero.
CREATE TABLE digest (
    bucket INTEGER PRIMARY KEY,
    value  BLOB NOT NULL
) STRICT;

-- Every start of an agent, in order, with the first sequence number that it could issue. A peer that remembers a
-- run or a number that is not in here shows that this index was rolled back.
CREATE TABLE runs (
    number    INTEGER PRIMARY KEY,
    epoch     INTEGER NOT NULL,
    run       INTEGER NOT NULL,
    first_seq INTEGER NOT NULL
) STRICT;

CREATE INDEX runs_epoch ON runs (epoch);

-- For each epoch the count up to which its counts say "this was on the disk" and not "someone wrote this".
CREATE TABLE found (
    epoch INTEGER PRIMARY KEY,
    upto  INTEGER NOT NULL
) STRICT;

-- Short numbers for devices, so that authors don't cost 32 bytes per entry. Rows are never taken away.
CREATE TABLE devices (
    id     INTEGER PRIMARY KEY,
    device BLOB NOT NULL UNIQUE
) STRICT;

-- What this device holds or passes on, one row per path. The sequence number is the row's number: a change moves
-- the row to the end of the table, and what changed since a cursor is a walk along it. `content` is a file's
-- content id or a symlink's target, `weight_ns` is null where it equals `mtime_ns`, `version` has 16 bytes per epoch
-- (epoch, count), `superseded` 32 per id, `author` 0 is nobody, `meta` is null where it is the default. The disk
-- columns are the last look at the path; `disk_kind` null says that nothing was seen. Marks: 0 here, 1 missing,
-- 2 held, 3 suspect, 4 ignored, 5 declined, 6 kept.
CREATE TABLE entries (
    seq           INTEGER PRIMARY KEY,
    path          BLOB NOT NULL UNIQUE,
    kind          INTEGER NOT NULL,
    content       BLOB,
    depth         INTEGER,
    size          INTEGER,
    mtime_ns      INTEGER NOT NULL,
    weight_ns     INTEGER,
    version       BLOB NOT NULL,
    author        INTEGER NOT NULL,
    superseded    BLOB,
    meta          BLOB,
    mark          INTEGER NOT NULL,
    changed_ms    INTEGER NOT NULL,
    disk_kind     INTEGER,
    disk_size     INTEGER,
    disk_mtime_ns INTEGER,
    disk_ctime_ns INTEGER,
    disk_inode    INTEGER,
    disk_mode     INTEGER
) STRICT;

CREATE INDEX entries_content ON entries (substr(content, 1, 8)) WHERE kind = 1;
CREATE INDEX entries_mark ON entries (mark, path) WHERE mark <> 0;
CREATE INDEX entries_tombstones ON entries (changed_ms) WHERE kind = 0;

-- Chunk lists, each once however many contents share it: an edit of a huge file adds the few lists that changed.
-- `own` is the list's id, `size` what its children add up to, `body` 40 bytes per child (id, length).
CREATE TABLE lists (
    id    INTEGER PRIMARY KEY,
    own   BLOB NOT NULL,
    depth INTEGER NOT NULL,
    size  INTEGER NOT NULL,
    body  BLOB NOT NULL
) STRICT;

CREATE INDEX lists_own ON lists (substr(own, 1, 8));

-- For every child of every list where it stands: derived from the lists, keyed by the first 64 bits of the child's
-- id, and to be checked against the list. From a chunk to the files that hold it is a climb of at most three steps.
CREATE TABLE places (
    prefix INTEGER NOT NULL,
    list   INTEGER NOT NULL,
    idx    INTEGER NOT NULL,
    PRIMARY KEY (prefix, list, idx)
) STRICT, WITHOUT ROWID;

-- Lists that may have lost their last user and are to be looked at when there is time.
CREATE TABLE loose (
    own BLOB NOT NULL PRIMARY KEY
) STRICT, WITHOUT ROWID;

-- A peer's latest entry at a path as long as ours does not include it; columns as in `entries`. `seq` counts in the
-- peer's index, `held` says that the peer has the bytes, `todo` that the rival waits to be decided (again).
CREATE TABLE rivals (
    path       BLOB NOT NULL,
    peer       INTEGER NOT NULL,
    seq        INTEGER NOT NULL,
    held       INTEGER NOT NULL,
    todo       INTEGER NOT NULL,
    kind       INTEGER NOT NULL,
    content    BLOB,
    depth      INTEGER,
    size       INTEGER,
    mtime_ns   INTEGER NOT NULL,
    weight_ns  INTEGER,
    version    BLOB NOT NULL,
    author     INTEGER NOT NULL,
    superseded BLOB,
    meta       BLOB,
    PRIMARY KEY (path, peer)
) STRICT, WITHOUT ROWID;

CREATE INDEX rivals_peer ON rivals (peer, seq);
CREATE INDEX rivals_todo ON rivals (path) WHERE todo = 1 AND kind <> 0;
CREATE INDEX rivals_todo_deleted ON rivals (path) WHERE todo = 1 AND kind = 0;
CREATE INDEX rivals_deleted ON rivals (path) WHERE kind = 0;

-- Per peer: how far we have read its index (`cursor_runs` has 16 bytes per run: run, highest number), how far its
-- index goes, how far it has received and applied ours, and when digests last proved both equal.
CREATE TABLE peers (
    peer           INTEGER PRIMARY KEY,
    cursor_epoch   INTEGER,
    cursor_seq     INTEGER,
    cursor_runs    BLOB,
    their_last_seq INTEGER NOT NULL,
    acked          INTEGER NOT NULL,
    applied        INTEGER NOT NULL,
    proved_ms      INTEGER,
    last_seen_ms   INTEGER
) STRICT;

-- What a peer said it has received of ours but not applied. Reasons: 0 pending, 1 conflict, 2 ignored, 3 declined,
-- 4 held, 5 problem.
CREATE TABLE exceptions (
    peer   INTEGER NOT NULL,
    path   BLOB NOT NULL,
    seq    INTEGER NOT NULL,
    reason INTEGER NOT NULL,
    PRIMARY KEY (peer, path)
) STRICT, WITHOUT ROWID;

-- Per-path trouble that does not stop the folder: its kind, words for the user, since when, and when to try again.
CREATE TABLE problems (
    path     BLOB NOT NULL PRIMARY KEY,
    kind     TEXT NOT NULL,
    text     TEXT NOT NULL,
    since_ms INTEGER NOT NULL,
    retry_ms INTEGER,
    attempts INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX problems_retry ON problems (retry_ms) WHERE retry_ms IS NOT NULL;

-- What lies in the folder's history: the slot (a path below the history directory), the path it came from, its content
-- if it was a file, how it lay on the disk, who made it, and when and by whom (a peer or the user) it was displaced.
CREATE TABLE history (
    slot          BLOB NOT NULL PRIMARY KEY,
    path          BLOB NOT NULL,
    content       BLOB,
    depth         INTEGER,
    size          INTEGER,
    disk_kind     INTEGER NOT NULL,
    disk_size     INTEGER NOT NULL,
    disk_mtime_ns INTEGER NOT NULL,
    disk_ctime_ns INTEGER NOT NULL,
    disk_inode    INTEGER NOT NULL,
    disk_mode     INTEGER NOT NULL,
    author        INTEGER NOT NULL,
    displaced_ms  INTEGER NOT NULL,
    by_remote     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX history_path ON history (path, displaced_ms);
CREATE INDEX history_content ON history (substr(content, 1, 8)) WHERE content IS NOT NULL;
CREATE INDEX history_displaced ON history (displaced_ms);

-- Recent removals: what the guard against mass deletion counts over its sliding window.
CREATE TABLE removals (
    path  BLOB NOT NULL PRIMARY KEY,
    at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX removals_at ON removals (at_ms);

-- The log that `p2psync log` shows: what happened to the user's files, bounded in rows.
CREATE TABLE events (
    id    INTEGER PRIMARY KEY AUTOINCREMENT,
    at_ms INTEGER NOT NULL,
    kind  TEXT NOT NULL,
    path  BLOB,
    text  TEXT NOT NULL
) STRICT;

-- Small facts about the folder as a whole, by name: why it is halted, what is held, what ails the watch.
CREATE TABLE notes (
    key   TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
