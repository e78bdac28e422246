//! Whether the relative links of the Markdown documents lead to a file, and to a heading where they name one.

use std::fs;
use std::path::{Path, PathBuf};

/// All links of documents below `root` that lead nowhere, as `file: target`.
///
/// # Errors
/// When a folder or a document cannot be read.
pub fn broken(root: &Path) -> std::io::Result<Vec<String>> {
    let mut documents = Vec::new();
    collect(root, &mut documents)?;
    let mut broken = Vec::new();
    for document in documents {
        let text = fs::read_to_string(&document)?;
        let folder = document.parent().unwrap_or(root);
        for target in targets(&text) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let path = if file.is_empty() { document.clone() } else { folder.join(file) };
            let named = |text: String| anchors(&text).iter().any(|anchor| anchor == heading);
            let is_text = path.extension().is_some_and(|it| it == "md");
            if !path.exists() || (!heading.is_empty() && is_text && !named(fs::read_to_string(&path)?)) {
                broken.push(format!("{}: {target}", document.strip_prefix(root).unwrap_or(&document).display()));
            }
        }
    }
    Ok(broken)
}

fn collect(folder: &Path, documents: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if entry.file_type()?.is_dir() {
            if !name.starts_with('.') && name != "target" && name != "node_modules" {
                collect(&path, documents)?;
            }
        } else if name.ends_with(".md") {
            documents.push(path);
        }
    }
    Ok(())
}

/// What headings are called in links: lower case, without signs, `-` for a space; a number tells equal ones apart.
fn anchors(text: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut fenced = false;
    for line in text.lines() {
        fenced ^= line.trim_start().starts_with("```");
        let heading = line.trim_start_matches('#');
        if fenced || heading.len() == line.len() || !heading.starts_with(' ') {
            continue;
        }
        let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        let name: String = kept.flat_map(char::to_lowercase).map(|c| if c == ' ' { '-' } else { c }).collect();
        let again = found.iter().filter(|it| **it == name).count();
        found.push(if again == 0 { name } else { format!("{name}-{again}") });
    }
    found
}

/// Targets of `[text](target)` outside of code.
fn targets(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut fenced = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
            continue;
        }
        if fenced || line.starts_with("    ") {
            continue;
        }
        // Even pieces of a line split at backticks are outside of code.
        let mut rest = line;
        while let Some(at) = rest.find("](") {
            let inside_code = rest[..at].matches('`').count() % 2 == 1;
            rest = &rest[at + 2..];
            if let Some(end) = rest.find(')') {
                if !inside_code {
                    found.push(&rest[..end]);
                }
                rest = &rest[end..];
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::{anchors, targets};

    #[test]
    fn links_in_code_are_none() {
        let text = "see [a](a.md) and `[b](b.md)`\n```\n[c](c.md)\n```\n[d](d.md#x)";
        assert_eq!(targets(text), ["a.md", "d.md#x"]);
    }

    #[test]
    fn headings_are_named_as_hosts_of_code_name_them() {
        let text = "# A page\n### `limit.body`\n```\n# none\n```\n## Not yet: `x_y`, z\n#no\n# A page";
        assert_eq!(anchors(text), ["a-page", "limitbody", "not-yet-x_y-z", "a-page-1"]);
    }
}
