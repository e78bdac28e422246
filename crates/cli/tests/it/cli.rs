//! The command line: what it prints and how it ends.

use serde_json::Value;

use crate::rig::{Dev, nova, root, text};

#[test]
fn validate_answers_a_mistake_where_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bad.yaml");
    let good = std::fs::read_to_string(root().join("examples/order.yaml")).unwrap();
    std::fs::write(&file, good.replace("maxAttempts", "maxAttemps").replace("needs: [total]", "needs: [totel]"))
        .unwrap();
    let output = nova().args(["validate"]).arg(&file).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    let said = text(&output.stdout);
    assert!(said.contains("did you mean 'maxAttempts'") && said.contains("did you mean 'total'"), "{said}");
    let output = nova().args(["validate", "-o", "json"]).arg(&file).output().unwrap();
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(json[0]["problems"].as_array().unwrap().iter().all(|it| it["line"].as_u64().unwrap() > 0), "{json:#}");
    for example in ["hello.yaml", "order.yaml", "lowcode.json"] {
        let output = nova().args(["validate"]).arg(root().join("examples").join(example)).output().unwrap();
        assert!(output.status.success(), "{example}: {}", text(&output.stdout));
    }
}

#[test]
fn errors_have_codes_and_say_what_to_do() {
    let unreachable = nova().args(["--url", "http://127.0.0.1:1", "list", "workflows"]).output().unwrap();
    assert_eq!(unreachable.status.code(), Some(4));
    assert!(text(&unreachable.stderr).contains("nova dev"), "{unreachable:?}");
    let usage = nova().args(["validate", "no-such-file.yaml"]).output().unwrap();
    assert_eq!(usage.status.code(), Some(2));
    let unknown = nova().args(["frobnicate"]).output().unwrap();
    assert_eq!(unknown.status.code(), Some(2));
    let config = nova().args(["serve", "api", "--set", "lissten=x", "--print-config"]).output().unwrap();
    assert_eq!(config.status.code(), Some(2));
    assert!(text(&config.stderr).contains("lissten"), "{config:?}");
    for service in ["coordinator", "scheduler", "worker", "api"] {
        let printed = nova().args(["serve", service, "--print-config"]).output().unwrap();
        assert!(printed.status.success() && text(&printed.stdout).contains("cluster = "), "{printed:?}");
    }
    for shell in ["bash", "zsh", "fish"] {
        assert!(nova().args(["completion", shell]).output().unwrap().status.success());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workflow_is_run_listed_and_shown() {
    let dev = Dev::start();
    let ran = dev.nova(&["run", "examples/hello.yaml", "--input", "{\"name\":\"Ada\"}"]);
    assert_eq!(ran.status.code(), Some(0), "{ran:?}");
    assert!(text(&ran.stdout).contains("Hello, Ada!"), "{ran:?}");
    let json = dev.nova(&["run", "hello", "--input", "{\"name\":\"Bob\"}", "-o", "json"]);
    let execution: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!((&execution["state"], &execution["output"]), (&"COMPLETED".into(), &"Hello, Bob!".into()));
    let id = execution["id"].as_str().unwrap();
    for arguments in [
        vec!["get", "execution", id],
        vec!["get", "events", id],
        vec!["get", "result", id],
        vec!["get", "workflow", "hello"],
        vec!["list", "executions", "--state", "COMPLETED"],
        vec!["list", "workflows", "-o", "yaml"],
        vec!["worker", "list"],
        vec!["watch", id],
    ] {
        let output = dev.nova(&arguments);
        assert!(output.status.success() && !output.stdout.is_empty(), "{arguments:?}: {output:?}");
    }
    let failing = dev.dir.path().join("failing.yaml");
    let document = "{ apiVersion: nova/v1, kind: Workflow, metadata: { name: failing }, spec: { do: [ { id: a, type: task, kind: fail, with: { code: my.code, message: no } } ] } }";
    std::fs::write(&failing, document).unwrap();
    let failed = dev.nova(&["run", failing.to_str().unwrap()]);
    assert_eq!(failed.status.code(), Some(1), "{failed:?}");
    assert!(text(&failed.stdout).contains("my.code"), "{failed:?}");
    let refused = dev.nova(&["run", "hello", "--input", "{\"name\": 7}"]);
    assert_eq!(refused.status.code(), Some(3));
    assert!(text(&refused.stderr).contains("/name"), "{refused:?}");
    let unasked = dev.nova(&["cancel", id]);
    assert_eq!(unasked.status.code(), Some(2), "{unasked:?}");
    let drained = dev.nova(&["worker", "drain", "dev"]);
    assert!(drained.status.success() && text(&drained.stdout).contains("DRAINING"), "{drained:?}");
}
