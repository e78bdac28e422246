//! From bytes to a tree.

mod json;
mod yaml;

use crate::limits;
use crate::problem::codes;
use crate::report::Report;
use crate::tree::{Spot, Tree};

/// How a document is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// By the ending of the file's name, else by its first characters.
    #[default]
    Detect,
    /// YAML 1.2.
    Yaml,
    /// JSON.
    Json,
}

/// Why there is no tree. One is enough: nothing after it could be trusted.
#[derive(Debug)]
pub(crate) struct Broken {
    pub code: &'static str,
    pub line: u32,
    pub column: u32,
    pub message: String,
    pub help: Option<&'static str>,
}

impl Broken {
    fn new(code: &'static str, (line, column): (u32, u32), message: impl Into<String>) -> Self {
        Self { code, line, column, message: message.into(), help: None }
    }
}

pub(crate) fn read(source: &[u8], file_name: &str, format: Format, report: &mut Report) -> Option<Tree> {
    match read_text(source, file_name, format, report) {
        Ok(tree) => Some(tree),
        Err(broken) => {
            let at = Spot { line: broken.line, column: broken.column, node: 0 };
            report.error_with(broken.code, at, broken.message, broken.help.map(str::to_owned));
            None
        }
    }
}

fn read_text(source: &[u8], file_name: &str, format: Format, report: &mut Report) -> Result<Tree, Broken> {
    if source.len() > limits::DOCUMENT_BYTES {
        let message =
            format!("the document has {} bytes, at most {} are allowed", source.len(), limits::DOCUMENT_BYTES);
        return Err(Broken::new(codes::LIMIT, (1, 1), message));
    }
    let text = std::str::from_utf8(source).map_err(|error| {
        let good = &source[..error.valid_up_to()];
        let line = 1 + good.iter().filter(|byte| **byte == b'\n').count() as u32;
        let start = good.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        // The part before is UTF-8, as just found.
        let column = 1 + String::from_utf8_lossy(&good[start..]).chars().count() as u32;
        Broken::new(codes::YAML, (line, column), "the document is not UTF-8")
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim().is_empty() {
        return Err(Broken::new(codes::YAML, (1, 1), "the document is empty"));
    }
    if is_json(text, file_name, format) { json::read(text) } else { yaml::read(text, report) }
}

fn is_json(text: &str, file_name: &str, format: Format) -> bool {
    let ending = file_name.rsplit_once('.').map(|(_, ending)| ending.to_ascii_lowercase());
    match (format, ending.as_deref()) {
        (Format::Json, _) | (Format::Detect, Some("json")) => true,
        (Format::Yaml, _) | (Format::Detect, Some("yaml" | "yml")) => false,
        // A map in braces whose first key is quoted; YAML reads most of those too, but not all.
        _ => text.trim_start().strip_prefix('{').is_some_and(|rest| rest.trim_start().starts_with(['"', '}'])),
    }
}
