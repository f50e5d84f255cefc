-- Since when a content stands at its path here, ms since 1970: a file's own time may be far older, or of another clock.
-- Null is unknown, as for all that was noted before these columns were there and for what a first scan found.

ALTER TABLE entries ADD COLUMN placed_ms INTEGER;
ALTER TABLE history ADD COLUMN placed_ms INTEGER;
