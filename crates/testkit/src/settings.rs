//! Config files of services.

use std::path::Path;

use toml::{Table, Value};

use crate::{Error, Result};

/// Fields of a config file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings(Table);

impl Settings {
    pub(crate) fn with(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.0.insert(field.to_owned(), value.into());
        self
    }

    /// Where the bus is.
    pub(crate) fn bus(self, bootstrap: &str, replicas: u16) -> Self {
        let mut bus = Table::new();
        bus.insert("bootstrap".into(), bootstrap.into());
        bus.insert("replicas".into(), i64::from(replicas).into());
        self.with("bus", bus)
    }

    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        std::fs::write(path, self.text()).map_err(Error::file("write", path))
    }

    fn text(&self) -> String {
        // Tables come last, as TOML wants it; the writer sees to that.
        toml::to_string(&self.0).expect("a table of texts, numbers and tables is TOML")
    }
}

/// A path as TOML.
pub(crate) fn path(path: &Path) -> Value {
    Value::String(path.display().to_string())
}

/// Texts as TOML.
pub(crate) fn texts<S: AsRef<str>>(all: &[S]) -> Value {
    Value::Array(all.iter().map(|it| Value::String(it.as_ref().to_owned())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_read_back_as_they_were_written() {
        let settings = Settings::default()
            .bus("127.0.0.1:1,127.0.0.1:2", 3)
            .with("cluster", "a \"quoted\" name")
            .with("shards", 64_i64)
            .with("members", texts(&["1@http://127.0.0.1:7"]))
            .with("data", path(Path::new("/tmp/with space")));
        let read: Table = toml::from_str(&settings.text()).unwrap();
        assert_eq!(read, settings.0);
        assert_eq!(read["bus"]["replicas"].as_integer(), Some(3));
    }
}
