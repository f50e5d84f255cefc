-- Counts that reports to the user need and that would cost a walk over everything to find. Nothing is decided by them.

-- How many rows changed last within each run of 1024 sequence numbers, and the bytes of the files among them: what a
-- peer lacks is the sum from its position on. Kept by the writer, with every commit. No file counts for more than
-- 8 TiB here, so that no sum overflows whatever sizes are announced.
CREATE TABLE blocks (
    block INTEGER PRIMARY KEY,
    items INTEGER NOT NULL,
    bytes INTEGER NOT NULL
) STRICT;

INSERT INTO blocks SELECT seq >> 10, count(*), CAST(total(min(size, 8796093022208)) AS INTEGER)
FROM entries GROUP BY seq >> 10;

-- Kept by the triggers below. 'wanted': paths with rivals that are files, and the bytes of the largest at each.
-- 'deleted': paths with rivals that are tombstones. 'mark N': entries with that mark. 'problem KIND': paths with that
-- trouble. Bytes are a floating number because sizes that peers announce may add up to anything. No trigger says "or
-- ignore": the statement that fires it decides about conflicts, and may say otherwise.
CREATE TABLE tallies (
    name  TEXT NOT NULL PRIMARY KEY,
    items INTEGER NOT NULL,
    bytes REAL NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO tallies SELECT 'wanted', count(*), total(bytes)
FROM (SELECT max(size) AS bytes FROM rivals WHERE kind = 1 GROUP BY path);
INSERT INTO tallies SELECT 'deleted', count(DISTINCT path), 0 FROM rivals WHERE kind = 0;
INSERT INTO tallies SELECT 'mark ' || mark, count(*), 0 FROM entries WHERE mark <> 0 GROUP BY mark;
INSERT INTO tallies SELECT 'problem ' || kind, count(*), 0 FROM problems GROUP BY kind;

CREATE TRIGGER rivals_added AFTER INSERT ON rivals WHEN NEW.kind = 1 BEGIN
    UPDATE tallies SET items = items + (other.most IS NULL), bytes = bytes + max(NEW.size - ifnull(other.most, 0), 0)
    FROM (SELECT max(size) AS most FROM rivals WHERE path = NEW.path AND peer <> NEW.peer AND kind = 1) AS other
    WHERE name = 'wanted';
END;

CREATE TRIGGER rivals_gone AFTER DELETE ON rivals WHEN OLD.kind = 1 BEGIN
    UPDATE tallies SET items = items - (other.most IS NULL),
        bytes = iif(items <= (other.most IS NULL), 0, max(bytes - max(OLD.size - ifnull(other.most, 0), 0), 0))
    FROM (SELECT max(size) AS most FROM rivals WHERE path = OLD.path AND peer <> OLD.peer AND kind = 1) AS other
    WHERE name = 'wanted';
END;

CREATE TRIGGER rivals_changed AFTER UPDATE OF kind, size ON rivals WHEN OLD.kind = 1 OR NEW.kind = 1 BEGIN
    UPDATE tallies SET items = items + iif(other.most IS NULL, (NEW.kind = 1) - (OLD.kind = 1), 0),
        bytes = max(bytes + iif(NEW.kind = 1, max(NEW.size - ifnull(other.most, 0), 0), 0)
            - iif(OLD.kind = 1, max(OLD.size - ifnull(other.most, 0), 0), 0), 0)
    FROM (SELECT max(size) AS most FROM rivals WHERE path = NEW.path AND peer <> NEW.peer AND kind = 1) AS other
    WHERE name = 'wanted';
END;

CREATE TRIGGER rival_tombstones_added AFTER INSERT ON rivals WHEN NEW.kind = 0 BEGIN
    UPDATE tallies SET items = items + 1 WHERE name = 'deleted'
    AND NOT EXISTS (SELECT 1 FROM rivals WHERE path = NEW.path AND peer <> NEW.peer AND kind = 0);
END;

CREATE TRIGGER rival_tombstones_gone AFTER DELETE ON rivals WHEN OLD.kind = 0 BEGIN
    UPDATE tallies SET items = items - 1 WHERE name = 'deleted'
    AND NOT EXISTS (SELECT 1 FROM rivals WHERE path = OLD.path AND peer <> OLD.peer AND kind = 0);
END;

CREATE TRIGGER rival_tombstones_changed AFTER UPDATE OF kind ON rivals WHEN (OLD.kind = 0) <> (NEW.kind = 0) BEGIN
    UPDATE tallies SET items = items + (NEW.kind = 0) - (OLD.kind = 0) WHERE name = 'deleted'
    AND NOT EXISTS (SELECT 1 FROM rivals WHERE path = NEW.path AND peer <> NEW.peer AND kind = 0);
END;

CREATE TRIGGER marks_added AFTER INSERT ON entries WHEN NEW.mark <> 0 BEGIN
    INSERT INTO tallies SELECT 'mark ' || NEW.mark, 0, 0
    WHERE NOT EXISTS (SELECT 1 FROM tallies WHERE name = 'mark ' || NEW.mark);
    UPDATE tallies SET items = items + 1 WHERE name = 'mark ' || NEW.mark;
END;

CREATE TRIGGER marks_gone AFTER DELETE ON entries WHEN OLD.mark <> 0 BEGIN
    UPDATE tallies SET items = items - 1 WHERE name = 'mark ' || OLD.mark;
END;

CREATE TRIGGER marks_changed AFTER UPDATE OF mark ON entries WHEN OLD.mark <> NEW.mark BEGIN
    INSERT INTO tallies SELECT 'mark ' || NEW.mark, 0, 0
    WHERE NOT EXISTS (SELECT 1 FROM tallies WHERE name = 'mark ' || NEW.mark);
    UPDATE tallies SET items = items - 1 WHERE name = 'mark ' || OLD.mark;
    UPDATE tallies SET items = items + 1 WHERE name = 'mark ' || NEW.mark AND NEW.mark <> 0;
END;

CREATE TRIGGER problems_added AFTER INSERT ON problems BEGIN
    INSERT INTO tallies SELECT 'problem ' || NEW.kind, 0, 0
    WHERE NOT EXISTS (SELECT 1 FROM tallies WHERE name = 'problem ' || NEW.kind);
    UPDATE tallies SET items = items + 1 WHERE name = 'problem ' || NEW.kind;
END;

CREATE TRIGGER problems_gone AFTER DELETE ON problems BEGIN
    UPDATE tallies SET items = items - 1 WHERE name = 'problem ' || OLD.kind;
END;

CREATE TRIGGER problems_changed AFTER UPDATE OF kind ON problems WHEN OLD.kind <> NEW.kind BEGIN
    INSERT INTO tallies SELECT 'problem ' || NEW.kind, 0, 0
    WHERE NOT EXISTS (SELECT 1 FROM tallies WHERE name = 'problem ' || NEW.kind);
    UPDATE tallies SET items = items - 1 WHERE name = 'problem ' || OLD.kind;
    UPDATE tallies SET items = items + 1 WHERE name = 'problem ' || NEW.kind;
END;

-- Files that are named like conflict copies ('.conflict-' in bytes), without a walk along all names.
CREATE INDEX entries_conflicts ON entries (path) WHERE kind <> 0 AND instr(path, x'2e636f6e666c6963742d') > 0;
