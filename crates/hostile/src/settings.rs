//! What operators set.

use std::path::Path;

use nova_service_kit::config::{ConfigError, load, print};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Largest text of settings that is looked at: they come from whoever runs the service.
const BYTES: usize = 16 << 10;

/// The config of a service: what is in force is printed, and read as the same. Lines that begin with `+` are flags, with `$`
/// variables of the environment; the others are the file.
pub fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(&bytes[..bytes.len().min(BYTES)]) else { return };
    one(text, nova_api::Config::problems);
    one(text, nova_coordinator::Config::problems);
    one(text, nova_worker::Config::problems);
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
