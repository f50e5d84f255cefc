-- The counts of what is wanted, kept as before at half the cost: an update from a sub-select makes a table for it each
-- time, and these fire twice for each file that comes.

DROP TRIGGER rivals_added;
DROP TRIGGER rivals_gone;

CREATE TRIGGER rivals_added AFTER INSERT ON rivals WHEN NEW.kind = 1 BEGIN
    UPDATE tallies SET
        items = items + NOT EXISTS (SELECT 1 FROM rivals WHERE path = NEW.path AND peer <> NEW.peer AND kind = 1),
        bytes = bytes + max(NEW.size - ifnull(
            (SELECT max(size) FROM rivals WHERE path = NEW.path AND peer <> NEW.peer AND kind = 1), 0), 0)
    WHERE name = 'wanted';
END;

CREATE TRIGGER rivals_gone AFTER DELETE ON rivals WHEN OLD.kind = 1 BEGIN
    UPDATE tallies SET
        items = items - NOT EXISTS (SELECT 1 FROM rivals WHERE path = OLD.path AND peer <> OLD.peer AND kind = 1),
        bytes = iif(
            items <= NOT EXISTS (SELECT 1 FROM rivals WHERE path = OLD.path AND peer <> OLD.peer AND kind = 1), 0,
            max(bytes - max(OLD.size - ifnull(
                (SELECT max(size) FROM rivals WHERE path = OLD.path AND peer <> OLD.peer AND kind = 1), 0), 0), 0))
    WHERE name = 'wanted';
END;
