//! The tables.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nova_wire::{ClusterId, v1};
use prost::Message;
use sqlx::migrate::MigrateError;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous};
use sqlx::{Connection, QueryBuilder, Row, Sqlite, SqliteConnection, SqlitePool};

use crate::rows::{Positions, Rows};

/// Rows per statement: SQLite takes 32,766 values.
const ROWS: usize = 1_000;

/// Why history cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The database failed.
    #[error("the history database failed")]
    Database(#[from] sqlx::Error),
    /// The file cannot be opened.
    #[error("cannot open the history {path}; it can be deleted: it is built again from the events")]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: sqlx::Error,
    },
    /// The tables cannot be made or brought up to date.
    #[error("the tables of the history {path} cannot be brought up to date")]
    Migrate {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: MigrateError,
    },
    /// The file is that of another cluster.
    #[error("the history {path} belongs to another cluster, {found}")]
    ForeignCluster {
        /// The file.
        path: PathBuf,
        /// Its cluster.
        found: String,
    },
    /// The file was written by a newer version.
    #[error(
        "the history {path} has format {found}, newer than this version knows: start the version that wrote it, or delete \
         the file: it is built again from the events"
    )]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: i64,
    },
    /// A row holds what cannot be read.
    #[error("a row of the history is damaged")]
    Damaged(#[from] prost::DecodeError),
}

/// The read model.
#[derive(Clone)]
pub struct History {
    pool: SqlitePool,
}

/// An execution as history knows it.
#[derive(Clone, Debug, PartialEq)]
pub struct ExecutionRow {
    /// 16 bytes.
    pub id: Vec<u8>,
    /// Tenant.
    pub namespace: String,
    /// Name of its workflow; empty when it was rejected.
    pub workflow: String,
    /// Its version.
    pub version: u32,
    /// RUNNING, COMPLETED, FAILED, CANCELLED, REJECTED.
    pub state: String,
    /// Milliseconds.
    pub started_at_ms: u64,
    /// Milliseconds.
    pub ended_at_ms: Option<u64>,
    /// Who started it.
    pub started_by: String,
    /// JSON object.
    pub labels: String,
    /// Input.
    pub input: Option<v1::Payload>,
    /// How it ended.
    pub outcome: Option<v1::Outcome>,
    /// Why it was rejected.
    pub rejection: Option<v1::Rejection>,
    /// Number of its last event.
    pub events: u64,
}

/// What happened to an execution in one entry of the log.
#[derive(Clone, Debug, PartialEq)]
pub struct EventRow {
    /// When, in milliseconds.
    pub at_ms: u64,
    /// What.
    pub happened: v1::ExecutionEvents,
}

/// Which executions are wanted, newest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    /// Tenant.
    pub namespace: String,
    /// Only in this state.
    pub state: Option<String>,
    /// Only of this workflow.
    pub workflow: Option<String>,
    /// Only behind this one: `started_at_ms`, id.
    pub after: Option<(u64, Vec<u8>)>,
    /// At most this many.
    pub limit: u32,
}

impl History {
    /// Opens the database, making it when it is not there.
    ///
    /// # Errors
    /// See [`HistoryError`].
    pub async fn open(file: &Path, cluster: ClusterId) -> Result<Self, HistoryError> {
        let options = SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // A power cut may lose the last transactions, positions included: they are read again.
            .synchronous(SqliteSynchronous::Normal)
            .busy_timeout(Duration::from_secs(10));
        let failed = |source| HistoryError::Open { path: file.to_owned(), source };
        look(file, &cluster.to_string()).await?;
        // One connection that is closed before anything is answered, so that whose file it is stands in the file itself.
        let mut connection = SqliteConnection::connect_with(&options).await.map_err(failed)?;
        let prepared = prepare(&mut connection, file, &cluster.to_string()).await;
        let closed = connection.close().await;
        prepared?;
        closed.map_err(failed)?;
        let opening = SqlitePoolOptions::new().max_connections(4).connect_with(options).await;
        Ok(Self { pool: opening.map_err(failed)? })
    }

    /// Closes it, so that all of it stands in its one file. What is asked later is refused.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// Forgets everything; the event topic is then read from its beginning.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn clear(&self) -> Result<(), HistoryError> {
        let mut transaction = self.pool.begin().await?;
        for statement in ["DELETE FROM events", "DELETE FROM executions", "DELETE FROM positions", "DELETE FROM seen"] {
            sqlx::query(statement).execute(&mut *transaction).await?;
        }
        Ok(transaction.commit().await?)
    }

    pub(crate) async fn positions(&self) -> Result<Positions, HistoryError> {
        let read = async |query| {
            let rows = sqlx::query(query).fetch_all(&self.pool).await?;
            let pair = |row: &SqliteRow| Ok((row.try_get::<u32, _>(0)?, whole(row, 1)?));
            rows.iter().map(pair).collect::<Result<BTreeMap<u32, u64>, sqlx::Error>>()
        };
        let next = read("SELECT partition, next_offset FROM positions").await?;
        Ok(Positions { next, seen: read("SELECT shard, seq FROM seen").await? })
    }

    pub(crate) async fn write(&self, rows: &Rows) -> Result<(), HistoryError> {
        let mut connection = self.pool.acquire().await?;
        let written = Self::insert(&mut connection, rows).await;
        if written.is_err() {
            // SQLite ends some failed transactions by itself (a full disk) and others not, and sqlx does not know which:
            // such a connection could hold the lock for ever.
            connection.close_on_drop();
        }
        written
    }

    async fn insert(connection: &mut SqliteConnection, rows: &Rows) -> Result<(), HistoryError> {
        let mut transaction = connection.begin().await?;
        for chunk in rows.events.chunks(ROWS) {
            let mut insert = QueryBuilder::new("INSERT OR IGNORE INTO events (execution, first_number, at, message) ");
            insert.push_values(chunk, |mut row, event| {
                row.push_bind(event.execution.as_slice())
                    .push_bind(event.first_number as i64)
                    .push_bind(event.at_ms as i64)
                    .push_bind(event.message.as_slice());
            });
            insert.build().execute(&mut *transaction).await?;
        }
        let executions: Vec<_> = rows.executions.iter().collect();
        for chunk in executions.chunks(ROWS) {
            let mut insert = QueryBuilder::new(
                "INSERT INTO executions (id, namespace, workflow, version, state, started_at, ended_at, started_by, \
                 labels, input, outcome, events) ",
            );
            insert.push_values(chunk, |mut row, (id, it)| {
                let begun = it.begun.as_ref();
                let ended = it.ended.as_ref();
                let at = begun.map_or_else(|| ended.map_or(0, |ended| ended.at_ms), |begun| begun.at_ms);
                row.push_bind(id.as_slice())
                    .push_bind(it.namespace.as_str())
                    .push_bind(begun.map_or("", |begun| begun.workflow.as_str()))
                    .push_bind(begun.map_or(0, |begun| begun.version))
                    .push_bind(ended.map_or("RUNNING", |ended| ended.state))
                    .push_bind(at as i64)
                    .push_bind(ended.map(|ended| ended.at_ms as i64))
                    .push_bind(begun.map_or("", |begun| begun.by.as_str()))
                    .push_bind(begun.map_or("{}", |begun| begun.labels.as_str()))
                    .push_bind(begun.map(|begun| begun.input.as_slice()))
                    .push_bind(ended.map(|ended| ended.outcome.as_slice()))
                    .push_bind(it.events as i64);
            });
            insert.push(
                " ON CONFLICT (id) DO UPDATE SET events = max(events, excluded.events), \
                 state = CASE excluded.state WHEN 'RUNNING' THEN state ELSE excluded.state END, \
                 ended_at = coalesce(excluded.ended_at, ended_at), outcome = coalesce(excluded.outcome, outcome)",
            );
            insert.build().execute(&mut *transaction).await?;
        }
        for (table, positions) in [("positions", &rows.positions.next), ("seen", &rows.positions.seen)] {
            let positions: Vec<_> = positions.iter().collect();
            for chunk in positions.chunks(ROWS) {
                let mut replace = QueryBuilder::new(format!("REPLACE INTO {table} "));
                replace.push_values(chunk, |mut row, (number, position)| {
                    row.push_bind(**number).push_bind(**position as i64);
                });
                replace.build().execute(&mut *transaction).await?;
            }
        }
        Ok(transaction.commit().await?)
    }

    /// One execution.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn execution(&self, namespace: &str, id: &[u8]) -> Result<Option<ExecutionRow>, HistoryError> {
        let row = sqlx::query("SELECT * FROM executions WHERE id = ? AND namespace = ?")
            .bind(id)
            .bind(namespace)
            .fetch_optional(&self.pool)
            .await?;
        row.map(|row| execution(&row)).transpose()
    }

    /// Executions, newest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn list(&self, filter: &Filter) -> Result<Vec<ExecutionRow>, HistoryError> {
        let mut query = QueryBuilder::new("");
        select(&mut query, filter);
        let rows = query.build().fetch_all(&self.pool).await?;
        rows.iter().map(execution).collect()
    }

    /// What happened to an execution, from an event on; at most `limit` entries.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn events(&self, id: &[u8], after: u64, limit: u32) -> Result<Vec<EventRow>, HistoryError> {
        // An entry that begins at or before `after` may end behind it; the reader drops what it has.
        let rows = sqlx::query(
            "SELECT at, message FROM events WHERE execution = ?1 AND first_number >= coalesce((SELECT max(first_number) \
             FROM events WHERE execution = ?1 AND first_number <= ?2 + 1), 0) ORDER BY first_number LIMIT ?3",
        )
        .bind(id)
        .bind(after as i64)
        .bind(limit)
        .fetch_all(&self.pool)
        .await?;
        let event = |row: &SqliteRow| {
            let message: Vec<u8> = row.try_get(1)?;
            Ok(EventRow { at_ms: whole(row, 0)?, happened: v1::ExecutionEvents::decode(&*message)? })
        };
        rows.iter().map(event).collect()
    }
}

/// Refuses what is not ours or newer without changing a byte. A connection that may write takes over what a process that
/// was killed has left in the side files, and it is then no longer theirs; this one reads the file alone.
async fn look(file: &Path, own: &str) -> Result<(), HistoryError> {
    let options = SqliteConnectOptions::new().filename(file).read_only(true).immutable(true);
    // What cannot be read here is new, or is found damaged by the one that may write.
    let Ok(mut connection) = SqliteConnection::connect_with(&options).await else { return Ok(()) };
    let cluster = sqlx::query_scalar::<_, String>("SELECT value FROM meta WHERE key = 'cluster'");
    let cluster = cluster.fetch_optional(&mut connection).await;
    let format = sqlx::query_scalar::<_, i64>("SELECT max(version) FROM _sqlx_migrations");
    let format = format.fetch_optional(&mut connection).await;
    let _ = connection.close().await;
    match cluster {
        Ok(Some(found)) if found != own => return Err(HistoryError::ForeignCluster { path: file.to_owned(), found }),
        // The side files may have a first page that would do instead.
        Err(source) if is_no_database(&source) => {
            return Err(HistoryError::Open { path: file.to_owned(), source });
        }
        _ => {}
    }
    match format {
        Ok(Some(found)) if !sqlx::migrate!().version_exists(found) => {
            Err(HistoryError::NewerFormat { path: file.to_owned(), found })
        }
        _ => Ok(()),
    }
}

/// `SQLITE_NOTADB`: the file does not begin as one of SQLite's.
fn is_no_database(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|error| error.code()).is_some_and(|code| code == "26")
}

async fn prepare(connection: &mut SqliteConnection, file: &Path, own: &str) -> Result<(), HistoryError> {
    let failed = |source| HistoryError::Open { path: file.to_owned(), source };
    // Whose it is comes first: the tables of another cluster are not brought up to date.
    let known = sqlx::query("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetch_optional(&mut *connection).await;
    if known.map_err(failed)?.is_some() {
        let query = sqlx::query_scalar::<_, String>("SELECT value FROM meta WHERE key = 'cluster'");
        let found = query.fetch_optional(&mut *connection).await.map_err(failed)?;
        if let Some(found) = found.filter(|found| found != own) {
            return Err(HistoryError::ForeignCluster { path: file.to_owned(), found });
        }
    }
    sqlx::migrate!().run(&mut *connection).await.map_err(|error| match error {
        MigrateError::VersionMissing(found) => HistoryError::NewerFormat { path: file.to_owned(), found },
        source => HistoryError::Migrate { path: file.to_owned(), source },
    })?;
    let insert = sqlx::query("INSERT INTO meta VALUES ('cluster', ?) ON CONFLICT DO NOTHING").bind(own);
    insert.execute(connection).await.map_err(failed)?;
    Ok(())
}

/// Each page is found by an index, however far behind the first one it is.
fn select(query: &mut QueryBuilder<Sqlite>, filter: &Filter) {
    query.push("SELECT * FROM executions WHERE namespace = ").push_bind(&filter.namespace);
    if let Some(state) = &filter.state {
        query.push(" AND state = ").push_bind(state);
    }
    if let Some(workflow) = &filter.workflow {
        query.push(" AND workflow = ").push_bind(workflow);
    }
    if let Some((at, id)) = &filter.after {
        // The first condition says the same of the time as the second: it is what the index is entered by.
        query.push(" AND started_at <= ").push_bind(*at as i64);
        query.push(" AND (started_at < ").push_bind(*at as i64).push(" OR id > ").push_bind(id.as_slice()).push(")");
    }
    query.push(" ORDER BY started_at DESC, id LIMIT ").push_bind(i64::from(filter.limit));
}

fn whole(row: &SqliteRow, column: usize) -> Result<u64, sqlx::Error> {
    row.try_get::<i64, _>(column).map(|value| value as u64)
}

fn execution(row: &SqliteRow) -> Result<ExecutionRow, HistoryError> {
    let state: String = row.try_get("state")?;
    let outcome: Option<Vec<u8>> = row.try_get("outcome")?;
    let input: Option<Vec<u8>> = row.try_get("input")?;
    let rejected = state == "REJECTED";
    let (outcome, rejection) = match outcome {
        Some(bytes) if rejected => (None, Some(v1::Rejection::decode(&*bytes)?)),
        Some(bytes) => (Some(v1::Outcome::decode(&*bytes)?), None),
        None => (None, None),
    };
    Ok(ExecutionRow {
        id: row.try_get("id")?,
        namespace: row.try_get("namespace")?,
        workflow: row.try_get("workflow")?,
        version: row.try_get("version")?,
        started_at_ms: row.try_get::<i64, _>("started_at")? as u64,
        ended_at_ms: row.try_get::<Option<i64>, _>("ended_at")?.map(|at| at as u64),
        started_by: row.try_get("started_by")?,
        labels: row.try_get("labels")?,
        input: input.map(|bytes| v1::Payload::decode(&*bytes)).transpose()?,
        outcome,
        rejection,
        events: row.try_get::<i64, _>("events")? as u64,
        state,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_page_of_a_list_is_found_by_an_index() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let history = History::open(&folder.path().join("history.db"), ClusterId([1; 16])).await.expect("it opens");
        let after = Some((1, vec![1; 16]));
        let all = Filter { namespace: "default".into(), after, limit: 10, ..Filter::default() };
        let by_state = Filter { state: Some("FAILED".into()), ..all.clone() };
        let by_workflow = Filter { workflow: Some("order".into()), ..all.clone() };
        for (filter, index) in [(all, "by_time"), (by_state, "by_state"), (by_workflow, "by_workflow")] {
            let mut query = QueryBuilder::new("EXPLAIN QUERY PLAN ");
            select(&mut query, &filter);
            let plan = query.build().fetch_all(&history.pool).await.expect("it is explained");
            let plan: Vec<String> = plan.iter().map(|row| row.get("detail")).collect();
            assert!(
                matches!(&plan[..], [only] if only.contains(index) && only.contains("started_at<?")),
                "{filter:?}: {plan:?}"
            );
        }
    }
}
