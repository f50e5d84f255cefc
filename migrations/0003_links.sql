-- From which peer's connection a version came here, and which peer's change displaced it: what a peer says of its
-- entries may be forged, for instance their author, but not which connection they came on. Numbers of devices; 0 is this
-- device itself, null is unknown, as for all that was noted before these columns were there.

ALTER TABLE entries ADD COLUMN brought_by INTEGER;
ALTER TABLE history ADD COLUMN brought_by INTEGER;
ALTER TABLE history ADD COLUMN displaced_by INTEGER;
