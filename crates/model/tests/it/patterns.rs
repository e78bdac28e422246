//! The 43 control-flow patterns, as documents: those of the supported part compile, the others say what they need.

use crate::rig::problems;

/// What is supported now.
pub const SUPPORTED: &[&str] = &[
    "wcp-01-sequence",
    "wcp-02-parallel-split",
    "wcp-03-synchronization",
    "wcp-04-exclusive-choice",
    "wcp-05-simple-merge",
    "wcp-06-multi-choice",
    "wcp-07-structured-synchronizing-merge",
    "wcp-09-structured-discriminator",
    "wcp-11-implicit-termination",
    "wcp-17-interleaved-parallel-routing",
    "wcp-30-structured-partial-join",
    "wcp-37-local-synchronizing-merge",
    "wcp-40-interleaved-routing",
];

#[test]
fn patterns_compile_or_say_what_they_need() {
    let all = include_str!("cases/patterns.yaml");
    let mut supported = Vec::new();
    let mut wrong = Vec::new();
    for pattern in all.split("\n---\n").skip(1) {
        let (name, body) = pattern.split_once('\n').expect("a name");
        let name = name.strip_prefix("name: ").expect("a name").split(' ').next().expect("a name");
        let spec: String = body.lines().map(|line| format!("  {line}\n")).collect();
        let source =
            format!("apiVersion: nova/v1\nkind: Workflow\nmetadata: {{ name: {name} }}\nspec:\n  timeout: 1h\n{spec}");
        let told = problems(source.as_bytes(), name);
        if told == "ok" || told.lines().all(|line| line.starts_with("warning")) {
            supported.push(name.to_owned());
        } else if !told.lines().any(|line| line.contains("  needs_feature  ")) {
            wrong.push(told);
        } else {
            // Beside what is needed there may only be what follows from it.
            let other = told.lines().filter(|line| !line.contains("  needs_feature  "));
            wrong.extend(other.map(str::to_owned));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(supported, SUPPORTED);
}
