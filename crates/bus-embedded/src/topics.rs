//! The file that lists the topics: `name partitions retention_ms` per line, the last line a checksum of the others.

use std::io;
use std::path::Path;

use nova_bus::TopicSpec;

use crate::{OpenBusError, format};

const NAME: &str = "topics";

pub(crate) fn load(dir: &Path) -> Result<Vec<TopicSpec>, OpenBusError> {
    let path = dir.join(NAME);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(OpenBusError::Topics { path, why: error.to_string() }),
    };
    parse(&text).ok_or_else(|| OpenBusError::Topics { path, why: "the file is damaged".into() })
}

fn parse(text: &str) -> Option<Vec<TopicSpec>> {
    let (lines, checksum) = text.trim_end().rsplit_once('\n').unwrap_or(("", text.trim_end()));
    if checksum != crc(lines) {
        return None;
    }
    let spec = |line: &str| {
        let mut fields = line.split(' ');
        let topic = format::topic(fields.next()?.as_bytes())?;
        let partitions = fields.next()?.parse().ok()?;
        Some(TopicSpec { topic, partitions, retention_ms: fields.next()?.parse().ok()? })
    };
    lines.lines().map(spec).collect()
}

fn crc(lines: &str) -> String {
    format!("crc32c {:08x}", crc32c::crc32c(lines.as_bytes()))
}

pub(crate) fn add(dir: &Path, new: &[TopicSpec]) -> io::Result<()> {
    if new.is_empty() {
        return Ok(());
    }
    let mut all = load(dir).map_err(|error| io::Error::other(error.to_string()))?;
    all.extend_from_slice(new);
    let line = |spec: &TopicSpec| format!("{} {} {}", spec.topic, spec.partitions, spec.retention_ms);
    let lines: Vec<_> = all.iter().map(line).collect();
    let lines = lines.join("\n");
    nova_journal::write_file(&dir.join(NAME), format!("{lines}\n{}\n", crc(&lines)).as_bytes())
}
