//! A history in a directory: files of JSON, one line for each thing that was noted.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::{History, Place};

/// Why a history cannot be read or written. One that cannot be read says nothing, and that is no success.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// A file cannot be read or written.
    #[error("cannot use {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A line is none of its file.
    #[error("line {line} of {path}: {why}")]
    Line {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// Why.
        why: String,
    },
}

/// A record of a topic, its value in hexadecimal digits.
#[derive(Serialize, Deserialize)]
struct Record {
    place: Place,
    value: String,
}

fn write<T: Serialize>(dir: &Path, name: &str, all: impl IntoIterator<Item = T>) -> Result<(), HistoryError> {
    let path = dir.join(name);
    let writing = || {
        let mut file = BufWriter::new(File::create(&path)?);
        for one in all {
            serde_json::to_writer(&mut file, &one)?;
            file.write_all(b"\n")?;
        }
        file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
    };
    writing().map_err(|source| HistoryError::Io { path: path.clone(), source })
}

fn read<T: DeserializeOwned>(dir: &Path, name: &str) -> Result<Vec<T>, HistoryError> {
    let path = dir.join(name);
    let failed = |source| HistoryError::Io { path: path.clone(), source };
    let mut all = Vec::new();
    for (number, line) in (1..).zip(BufReader::new(File::open(&path).map_err(failed)?).lines()) {
        let wrong = |why: String| HistoryError::Line { path: path.clone(), line: number, why };
        all.push(serde_json::from_str(&line.map_err(failed)?).map_err(|error| wrong(error.to_string()))?);
    }
    Ok(all)
}

fn bytes(hex: &str) -> Option<Bytes> {
    let pair = |at: usize| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok();
    (0..hex.len()).step_by(2).map(pair).collect::<Option<Vec<u8>>>().map(Into::into)
}

impl History {
    /// Writes it to a directory that is there.
    ///
    /// # Errors
    /// See [`HistoryError`].
    pub fn write(&self, dir: &Path) -> Result<(), HistoryError> {
        write(dir, "cluster.json", [&self.cluster])?;
        write(dir, "operations.jsonl", &self.operations)?;
        write(dir, "effects.jsonl", &self.effects)?;
        write(dir, "sources.jsonl", &self.sources)?;
        write(dir, "members.jsonl", &self.members)?;
        write(dir, "shards.jsonl", &self.shards)?;
        write(dir, "logs.jsonl", &self.logs)?;
        let record = |place: Place, value: &Bytes| Record {
            place,
            value: value.iter().map(|byte| format!("{byte:02x}")).collect(),
        };
        let records = self.topics.iter().flat_map(|(place, all)| all.iter().map(move |value| record(*place, value)));
        write(dir, "records.jsonl", records)
    }

    /// Reads it from a directory.
    ///
    /// # Errors
    /// See [`HistoryError`].
    pub fn read(dir: &Path) -> Result<Self, HistoryError> {
        let mut topics: BTreeMap<Place, Vec<Bytes>> = BTreeMap::new();
        for (line, record) in (1..).zip(read::<Record>(dir, "records.jsonl")?) {
            let path = dir.join("records.jsonl");
            let wrong = || HistoryError::Line { path, line, why: "the value is not hexadecimal".into() };
            topics.entry(record.place).or_default().push(bytes(&record.value).ok_or_else(wrong)?);
        }
        Ok(Self {
            cluster: read(dir, "cluster.json")?.pop().unwrap_or_default(),
            operations: read(dir, "operations.jsonl")?,
            effects: read(dir, "effects.jsonl")?,
            topics,
            sources: read(dir, "sources.jsonl")?,
            members: read(dir, "members.jsonl")?,
            shards: read(dir, "shards.jsonl")?,
            logs: read(dir, "logs.jsonl")?,
        })
    }
}
