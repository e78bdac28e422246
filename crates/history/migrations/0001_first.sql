CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

-- One row per execution that was accepted or rejected.
CREATE TABLE executions (
  id BLOB PRIMARY KEY,              -- 16 bytes
  namespace TEXT NOT NULL,
  workflow TEXT NOT NULL,
  version INTEGER NOT NULL,
  state TEXT NOT NULL,              -- RUNNING COMPLETED FAILED CANCELLED REJECTED
  started_at INTEGER NOT NULL,      -- ms
  ended_at INTEGER,                 -- ms
  started_by TEXT NOT NULL,
  labels TEXT NOT NULL,             -- JSON object
  input BLOB,                       -- protobuf nova.v1.Payload
  outcome BLOB,                     -- protobuf nova.v1.Outcome or nova.v1.Rejection
  events INTEGER NOT NULL           -- number of the last event
) WITHOUT ROWID;
CREATE INDEX executions_by_time ON executions (namespace, started_at DESC, id);
CREATE INDEX executions_by_state ON executions (namespace, state, started_at DESC, id);
CREATE INDEX executions_by_workflow ON executions (namespace, workflow, started_at DESC, id);

-- What happened to one execution in one entry of the log.
CREATE TABLE events (
  execution BLOB NOT NULL,
  first_number INTEGER NOT NULL,
  at INTEGER NOT NULL,              -- ms
  message BLOB NOT NULL,            -- protobuf nova.v1.ExecutionEvents
  PRIMARY KEY (execution, first_number)
) WITHOUT ROWID;

-- How far each partition of the event topic was read, and the highest outbox number seen.
CREATE TABLE positions (shard INTEGER PRIMARY KEY, next_offset INTEGER NOT NULL, seq INTEGER NOT NULL);
