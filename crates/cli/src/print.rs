//! Tables for people; JSON and YAML for programs.

use comfy_table::{ContentArrangement, Table, TableStyle};
use serde_json::Value;

use crate::args::Format;
use crate::error::Failed;

/// Prints a value as JSON or YAML; none when a table is wanted.
pub fn machine(value: &Value, format: Format) -> Result<bool, Failed> {
    let failed = |error: &dyn std::fmt::Display| Failed::Usage(format!("the answer cannot be printed: {error}"));
    match format {
        Format::Table => return Ok(false),
        Format::Json => println!("{}", serde_json::to_string_pretty(value).map_err(|error| failed(&error))?),
        Format::Yaml => print!("{}", serde_saphyr::to_string(value).map_err(|error| failed(&error))?),
    }
    Ok(true)
}

/// Prints rows under headings.
pub fn table(headings: &[&str], rows: Vec<Vec<String>>) {
    let mut table = Table::new();
    table.load_style(TableStyle::new()).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(headings.iter().map(|heading| heading.to_uppercase()));
    for row in rows {
        table.add_row(row);
    }
    for line in table.lines() {
        println!("{}", line.trim_end());
    }
}

/// A field as text; empty when it is missing.
pub fn text(value: &Value, field: &str) -> String {
    match &value[field] {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items
            .iter()
            .map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned))
            .collect::<Vec<_>>()
            .join(","),
        other => other.to_string(),
    }
}

/// A field of each item of a list.
pub fn rows(items: &Value, fields: &[&str]) -> Vec<Vec<String>> {
    let row = |item: &Value| fields.iter().map(|field| text(item, field)).collect();
    items.as_array().map(|items| items.iter().map(row).collect()).unwrap_or_default()
}
