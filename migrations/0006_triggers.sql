-- The counts, kept as before at less cost. A transaction in which a statement fails is given up as a whole, so no statement
-- need be undone by itself. SQLite first copies each page that a statement with triggers changes, unless what may fail
-- in it says `OR FAIL`, and nothing in it calls a function, not even max() of two numbers. Since the indexes of the entries do call some,
-- marks are counted by who inserts and deletes entries.

DROP TRIGGER rivals_added;
DROP TRIGGER rivals_gone;
DROP TRIGGER rival_tombstones_gone;
DROP TRIGGER problems_gone;
DROP TRIGGER marks_added;
DROP TRIGGER marks_gone;

CREATE TRIGGER rivals_added AFTER INSERT ON rivals WHEN NEW.kind = 1
AND NOT EXISTS (SELECT 1 FROM rivals WHERE path = NEW.path AND peer <> NEW.peer AND kind = 1) BEGIN
    UPDATE OR FAIL tallies SET items = items + 1, bytes = bytes + NEW.size WHERE name = 'wanted';
END;

CREATE TRIGGER rivals_joined AFTER INSERT ON rivals WHEN NEW.kind = 1
AND EXISTS (SELECT 1 FROM rivals WHERE path = NEW.path AND peer <> NEW.peer AND kind = 1) BEGIN
    UPDATE OR FAIL tallies SET bytes = bytes + NEW.size - (
        SELECT max(size) FROM rivals WHERE path = NEW.path AND peer <> NEW.peer AND kind = 1)
    WHERE name = 'wanted' AND NEW.size > (
        SELECT max(size) FROM rivals WHERE path = NEW.path AND peer <> NEW.peer AND kind = 1);
END;

CREATE TRIGGER rivals_gone AFTER DELETE ON rivals WHEN OLD.kind = 1
AND NOT EXISTS (SELECT 1 FROM rivals WHERE path = OLD.path AND peer <> OLD.peer AND kind = 1) BEGIN
    UPDATE OR FAIL tallies SET items = items - 1, bytes = iif(items <= 1 OR bytes < OLD.size, 0, bytes - OLD.size)
    WHERE name = 'wanted';
END;

CREATE TRIGGER rivals_left AFTER DELETE ON rivals WHEN OLD.kind = 1
AND EXISTS (SELECT 1 FROM rivals WHERE path = OLD.path AND peer <> OLD.peer AND kind = 1) BEGIN
    UPDATE OR FAIL tallies SET bytes = bytes - OLD.size + (
        SELECT max(size) FROM rivals WHERE path = OLD.path AND peer <> OLD.peer AND kind = 1)
    WHERE name = 'wanted' AND OLD.size > (
        SELECT max(size) FROM rivals WHERE path = OLD.path AND peer <> OLD.peer AND kind = 1);
END;

CREATE TRIGGER rival_tombstones_gone AFTER DELETE ON rivals WHEN OLD.kind = 0 BEGIN
    UPDATE OR FAIL tallies SET items = items - 1 WHERE name = 'deleted'
    AND NOT EXISTS (SELECT 1 FROM rivals WHERE path = OLD.path AND peer <> OLD.peer AND kind = 0);
END;

CREATE TRIGGER problems_gone AFTER DELETE ON problems BEGIN
    UPDATE OR FAIL tallies SET items = items - 1 WHERE name = 'problem ' || OLD.kind;
END;
