//! What needs large parts of a service: settings, and what members of a group send each other and keep.

use std::path::Path;

use nova_service_kit::bus::BusSettings;
use nova_service_kit::config::{ConfigError, load, print};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::files::folder;
use crate::{short, take};

/// Largest text of settings that is looked at: they come from whoever runs the service.
const BYTES: usize = 16 << 10;

/// The config of a coordinator, and that of the bus, which other services have: what is in force is printed, and read as the same. Lines that begin with `+` are flags, with `$`
/// variables of the environment; the others are the file.
pub fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(&bytes[..bytes.len().min(BYTES)]) else { return };
    one(text, nova_coordinator::Config::problems);
    one(text, BusSettings::problems);
}

fn one<C: Serialize + DeserializeOwned>(text: &str, problems: fn(&C) -> Vec<String>) {
    let flags: Vec<String> = text.lines().filter_map(|line| line.strip_prefix('+')).map(str::to_owned).collect();
    let variables = text.lines().filter_map(|line| line.strip_prefix('$')?.split_once('='));
    let variables = variables.map(|(name, value)| (format!("NOVA_{name}"), value.to_owned()));
    let file: String =
        text.lines().filter(|line| !line.starts_with(['+', '$'])).flat_map(|line| [line, "\n"]).collect();
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = folder.path().join("config.toml");
    std::fs::write(&path, file).expect("there is room");
    match load(Some(&path), "NOVA_", variables, &flags, problems) {
        Ok(config) => {
            let printed = print(&config).expect("a config can be printed");
            std::fs::write(&path, &printed).expect("there is room");
            let again: C = reload(&path, problems);
            assert!(print(&again).is_ok_and(|again| again == printed), "{printed}");
        }
        Err(ConfigError::Read { path, source }) => panic!("{}: {source}", path.display()),
        Err(ConfigError::Invalid { problems }) => assert!(!problems.is_empty()),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fn reload<C: DeserializeOwned>(path: &Path, problems: fn(&C) -> Vec<String>) -> C {
    load(Some(path), "NOVA_", std::iter::empty(), &[], problems).expect("what is in force is read")
}

/// A request of a leader to its followers, with entries: what is read is written and read as the same.
pub fn raft_append(bytes: &[u8]) {
    let Some(written) = nova_replication::hostile::append(bytes) else { return };
    let again = nova_replication::hostile::append(&written).expect("it was just written");
    assert!(again == written);
}

/// The file of a snapshot, with what the log needs to go on behind it.
///
/// The bytes are the whole file, or header and body, the first behind its length, as if their checksum were right.
pub fn snapshot_file(mut bytes: &[u8]) {
    let folder = folder();
    nova_replication::hostile::snapshot_file(folder.path(), bytes);
    let length = usize::from(short(&mut bytes));
    let header = take(&mut bytes, length);
    nova_replication::hostile::snapshot_file(folder.path(), &snapshot_of(header, bytes));
}

/// The file of a snapshot with this header and body.
#[must_use]
pub fn snapshot_of(header: &[u8], body: &[u8]) -> Vec<u8> {
    let mut file = b"NOVASNP1".to_vec();
    file.extend(1_u32.to_le_bytes());
    file.extend([7; 16]);
    file.extend((header.len() as u32).to_le_bytes());
    file.extend(header);
    file.extend(body);
    file.extend((body.len() as u64).to_le_bytes());
    let sum = crc32c::crc32c(&file);
    file.extend(sum.to_le_bytes());
    file
}
