//! Config from all its sources.
#![allow(clippy::unwrap_used)]

use std::fs;

use nova_service_kit::config::{ConfigError, load, print};
use serde::{Deserialize, Serialize};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    listen: String,
    slots: u32,
    names: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self { listen: "here".into(), slots: 4, names: vec![] }
    }
}

fn problems(config: &Config) -> Vec<String> {
    if config.slots == 0 { vec!["slots: must be above 0".into()] } else { vec![] }
}

fn nothing() -> impl Iterator<Item = (String, String)> {
    std::iter::empty()
}

#[test]
fn later_sources_win() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.toml");
    fs::write(&file, "listen = 'file'\nslots = 5\nnames = ['file']\n").unwrap();
    let environment = [("NOVA_T_SLOTS", "6"), ("NOVA_T_LISTEN", "env:1"), ("OTHER", "x")];
    let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let flags = ["listen=flag:2".to_owned()];
    let config: Config = load(Some(&file), "NOVA_T_", environment.into_iter(), &flags, problems).unwrap();
    assert_eq!(config, Config { listen: "flag:2".into(), slots: 6, names: vec!["file".into()] });
    let again: Config = toml_round_trip(&config, dir.path());
    assert_eq!(again, config);
}

fn toml_round_trip(config: &Config, dir: &std::path::Path) -> Config {
    let file = dir.join("printed.toml");
    fs::write(&file, print(config).unwrap()).unwrap();
    load(Some(&file), "NOVA_T_", nothing(), &[], problems).unwrap()
}

#[test]
fn unknown_keys_and_bad_values_name_their_place() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.toml");
    fs::write(&file, "listen = 'x'\nslot = 5\n").unwrap();
    let error = load::<Config>(Some(&file), "NOVA_T_", nothing(), &[], problems).unwrap_err().to_string();
    assert!(error.contains("config.toml") && error.contains("line 2") && error.contains("slot"), "{error}");
    let error = load::<Config>(None, "NOVA_T_", nothing(), &["slots=many".into()], problems).unwrap_err();
    assert!(error.to_string().contains("slots"), "{error}");
    let error = load::<Config>(None, "NOVA_T_", nothing(), &["slots".into()], problems).unwrap_err();
    assert!(matches!(error, ConfigError::Flag { .. }));
    let error = load::<Config>(None, "NOVA_T_", nothing(), &["slots=0".into()], problems).unwrap_err();
    assert!(matches!(error, ConfigError::Invalid { ref problems } if problems.len() == 1), "{error}");
}
