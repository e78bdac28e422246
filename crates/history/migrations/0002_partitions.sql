-- Several shards share a partition of the event topic.
CREATE TABLE seen (shard INTEGER PRIMARY KEY, seq INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO seen SELECT shard, seq FROM positions;
ALTER TABLE positions DROP COLUMN seq;
ALTER TABLE positions RENAME COLUMN shard TO partition;
