//! The layers of crates, from `cargo metadata`.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;

/// A layer; a crate may depend on crates of its own row or of a row above, as [`Layer::may_use`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Layer {
    /// Plain functions over plain data.
    Core,
    /// What crosses borders: messages, traits.
    Contract,
    /// One outside thing each.
    Adapter,
    /// What every service needs.
    Platform,
    /// A process.
    Service,
    /// What people and tests run.
    Tool,
}

impl Layer {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "core" => Self::Core,
            "contract" => Self::Contract,
            "adapter" => Self::Adapter,
            "platform" => Self::Platform,
            "service" => Self::Service,
            "tool" => Self::Tool,
            _ => return None,
        })
    }

    /// Whether an arrow from `self` to `other` points down. Adapters never import adapters, services never services.
    #[must_use]
    pub fn may_use(self, other: Self) -> bool {
        match self {
            Self::Adapter | Self::Service => other < self,
            _ => other <= self,
        }
    }
}

/// A dependency that only one crate may name, with that crate.
const SINGLE_HOMES: [(&str, &str); 4] = [
    ("rdkafka", "nova-bus-kafka"),
    ("openraft", "nova-replication"),
    ("sled", "nova-replication"),
    ("sqlx", "nova-history"),
];

/// All that is wrong with the arrows of the workspace that contains `manifest_dir`, one sentence each.
///
/// # Errors
/// When `cargo metadata` cannot be run or read.
pub fn problems(manifest_dir: &str) -> Result<Vec<String>, String> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(manifest_dir)
        .output()
        .map_err(|e| format!("cargo metadata: {e}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let metadata: Value = serde_json::from_slice(&output.stdout).map_err(|e| format!("cargo metadata: {e}"))?;
    let packages = metadata["packages"].as_array().ok_or("cargo metadata names no packages")?;
    Ok(check(packages))
}

fn check(packages: &[Value]) -> Vec<String> {
    let mut problems = Vec::new();
    let mut layers = BTreeMap::new();
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        match package["metadata"]["nova"]["layer"].as_str().and_then(Layer::parse) {
            Some(layer) => {
                layers.insert(name, layer);
            }
            None => problems.push(format!("{name} names no layer in [package.metadata.nova]")),
        }
    }
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        let Some(layer) = layers.get(name) else { continue };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let on = dependency["name"].as_str().unwrap_or_default();
            // Tests may look at anything; what is shipped may not.
            if dependency["kind"].as_str() == Some("dev") {
                continue;
            }
            if let Some((_, home)) = SINGLE_HOMES.iter().find(|(heavy, home)| *heavy == on && *home != name) {
                problems.push(format!("{name} depends on {on}, which belongs to {home} alone"));
            }
            let composes = name == "nova-all-in-one";
            if let Some(other) = layers.get(on)
                && !layer.may_use(*other)
                && !(composes && *other == Layer::Service)
            {
                problems.push(format!("{name} ({layer:?}) depends on {on} ({other:?}): the arrow climbs"));
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::check;

    fn package(name: &str, layer: &str, dependencies: &[&str]) -> serde_json::Value {
        let dependencies: Vec<_> = dependencies.iter().map(|d| json!({ "name": d, "kind": null })).collect();
        json!({ "name": name, "metadata": { "nova": { "layer": layer } }, "dependencies": dependencies })
    }

    #[test]
    fn climbing_and_sideways_arrows_are_found() {
        let packages = [
            package("core", "core", &["adapter"]),
            package("adapter", "adapter", &["other-adapter", "core"]),
            package("other-adapter", "adapter", &["sled"]),
            package("service", "service", &["adapter", "other-service"]),
            package("other-service", "service", &[]),
            package("nova-all-in-one", "service", &["service"]),
        ];
        let problems = check(&packages);
        assert_eq!(problems.len(), 4, "{problems:#?}");
        assert!(problems.iter().any(|p| p.contains("core (Core) depends on adapter")));
        assert!(problems.iter().any(|p| p.contains("sled")));
    }

    #[test]
    fn a_crate_without_layer_is_found() {
        let packages = [json!({ "name": "x", "metadata": null, "dependencies": [] })];
        assert_eq!(check(&packages).len(), 1);
    }
}
