//! Whether `docs/reference/telemetry.md` names the metrics that are in the code, and each is listed in a `metrics.rs`.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

const PAGE: &str = "docs/reference/telemetry.md";

/// All that is wrong, one sentence each.
///
/// # Errors
/// When a folder or a file cannot be read.
pub fn problems(root: &Path) -> io::Result<Vec<String>> {
    let (mut listed, mut problems) = (BTreeSet::new(), Vec::new());
    for layer in ["crates", "services"] {
        for package in fs::read_dir(root.join(layer))? {
            look(&package?.path().join("src"), &mut listed, &mut problems)?;
        }
    }
    let page = fs::read_to_string(root.join(PAGE))?;
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `nova_")?.split('`').next());
    let told: BTreeSet<String> = rows.map(|rest| format!("nova_{rest}")).collect();
    problems.extend(listed.difference(&told).map(|name| format!("{PAGE} does not name {name}")));
    problems.extend(told.difference(&listed).map(|name| format!("{PAGE} names {name}, and no metrics.rs has it")));
    Ok(problems)
}

fn look(folder: &Path, listed: &mut BTreeSet<String>, problems: &mut Vec<String>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            look(&path, listed, problems)?;
        } else if path.extension().is_some_and(|it| it == "rs") && !path.ends_with("xtask/src/metrics.rs") {
            let text = fs::read_to_string(&path)?;
            if path.ends_with("metrics.rs") {
                listed.extend(names(&text));
            }
            let recorded = ["counter!(\"", "gauge!(\"", "histogram!(\""].iter().any(|it| text.contains(it));
            if recorded {
                problems.push(format!("{} records a metric by its text", path.display()));
            }
        }
    }
    Ok(())
}

/// Texts that are names of metrics.
fn names(source: &str) -> impl Iterator<Item = String> + '_ {
    let texts = source.split('"').skip(1).step_by(2);
    texts
        .filter(|text| text.starts_with("nova_") && text.bytes().all(|it| it.is_ascii_lowercase() || it == b'_'))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_are_texts_that_begin_with_the_prefix() {
        let source =
            "use nova_bus::Bus;\nconst A: &str = \"nova_a_total\";\nconst B: &str = \"kind\";\nlet c = \"nova_b\";";
        assert_eq!(super::names(source).collect::<Vec<_>>(), ["nova_a_total", "nova_b"]);
    }
}
