//! Defaults in code, then one TOML file, then environment, then flags. Unknown keys are errors.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

/// Why a config is not taken.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read config {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is no TOML, or a field is unknown or of another type.
    #[error("config {origin}: {what}")]
    Syntax {
        /// The file, or where else it came from.
        origin: String,
        /// What is wrong, with its place.
        what: String,
    },
    /// A flag is not `field=value`.
    #[error("'{flag}' is not <field>=<value>")]
    Flag {
        /// The flag.
        flag: String,
    },
    /// Values out of their limits; all of them.
    #[error("the config is not valid: {}", problems.join("; "))]
    Invalid {
        /// One sentence each.
        problems: Vec<String>,
    },
}

/// Puts a config together. `prefix` is that of its environment variables: with `NOVA_API_`, `NOVA_API_LISTEN` sets
/// `listen` and `NOVA_API_BUS__PREFIX` sets `bus.prefix`. `problems` finds values out of their limits.
///
/// # Errors
/// See [`ConfigError`].
pub fn load<C: DeserializeOwned>(
    file: Option<&Path>,
    prefix: &str,
    environment: impl Iterator<Item = (String, String)>,
    flags: &[String],
    problems: impl Fn(&C) -> Vec<String>,
) -> Result<C, ConfigError> {
    let mut table = Table::new();
    let mut origin = "defaults".to_owned();
    if let Some(path) = file {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.into(), source })?;
        origin = path.display().to_string();
        // Read as the config itself first: its errors name line and column.
        toml::from_str::<C>(&text).map_err(|error| syntax(&origin, &error))?;
        table = toml::from_str(&text).map_err(|error| syntax(&origin, &error))?;
    }
    for (name, value) in environment {
        if let Some(field) = name.strip_prefix(prefix) {
            set(&mut table, &field.to_lowercase().replace("__", "."), &value);
            origin = format!("environment {name}");
        }
    }
    for flag in flags {
        let (field, value) = flag.split_once('=').ok_or_else(|| ConfigError::Flag { flag: flag.clone() })?;
        set(&mut table, field.trim(), value.trim());
        origin = format!("flag {flag}");
    }
    let config = table.try_into().map_err(|error| syntax(&origin, &error))?;
    let problems = problems(&config);
    if problems.is_empty() { Ok(config) } else { Err(ConfigError::Invalid { problems }) }
}

fn syntax(origin: &str, error: &toml::de::Error) -> ConfigError {
    ConfigError::Syntax { origin: origin.into(), what: error.to_string().trim_end().to_owned() }
}

/// A value is TOML when it reads as such (`3`, `true`, `["a"]`), else a text.
fn set(table: &mut Table, field: &str, text: &str) {
    let parsed = toml::from_str::<Table>(&format!("v = {text}")).ok().and_then(|mut table| table.remove("v"));
    put(table, field, parsed.unwrap_or_else(|| Value::String(text.to_owned())));
}

fn put(table: &mut Table, field: &str, value: Value) {
    match field.split_once('.') {
        None => drop(table.insert(field.to_owned(), value)),
        Some((outer, inner)) => {
            let nested = table.entry(outer.to_owned()).or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(nested) = nested {
                put(nested, inner, value);
            }
        }
    }
}

/// What is in force, as TOML.
///
/// # Errors
/// When the config cannot be written as TOML.
pub fn print<C: Serialize>(config: &C) -> Result<String, toml::ser::Error> {
    toml::to_string(config)
}
