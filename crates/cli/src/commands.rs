//! What authors and operators ask of an api.

use std::io::{IsTerminal, Read, Write};
use std::path::Path;
use std::process::ExitCode;

use nova_model::Format as Source;
use reqwest::Method;
use serde_json::{Value, json};

use crate::args::{Files, Format, Get, GetKind, List, ListKind, Run, Trigger, Worker};
use crate::error::Failed;
use crate::rest::Rest;
use crate::{live, print};

fn read(path: &Path) -> Result<Vec<u8>, Failed> {
    let failed = |error: std::io::Error| Failed::Usage(format!("cannot read {}: {error}", path.display()));
    if path == Path::new("-") {
        let mut bytes = Vec::new();
        std::io::stdin().read_to_end(&mut bytes).map_err(failed)?;
        return Ok(bytes);
    }
    std::fs::read(path).map_err(failed)
}

fn media_type(path: &Path) -> &'static str {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("json") => "application/json",
        Some("yaml" | "yml") => "application/yaml",
        _ => "application/octet-stream",
    }
}

/// Checks documents here, without a cluster.
pub fn validate(files: &Files, format: Format) -> Result<ExitCode, Failed> {
    let mut bad = 0;
    let mut results = Vec::new();
    for file in &files.files {
        let bytes = read(file)?;
        let name = file.display().to_string();
        let compiled =
            nova_model::parse(&bytes, &name, Source::Detect).and_then(|document| nova_model::compile(&document));
        let (valid, problems) = match &compiled {
            Ok(compiled) => (true, compiled.warnings.clone()),
            Err(problems) => (false, problems.iter().cloned().collect()),
        };
        bad += usize::from(!valid);
        if format == Format::Table {
            for problem in &problems {
                println!("{problem}");
            }
            if let Ok(compiled) = &compiled {
                println!("{name}: workflow '{}' is valid ({} nodes)", compiled.name, compiled.program.nodes.len());
            }
        }
        let place = |problem: &nova_model::Problem| {
            json!({
                "file": problem.file, "line": problem.line, "column": problem.column, "code": problem.code,
                "message": problem.message, "help": problem.help, "path": problem.path,
            })
        };
        results
            .push(json!({ "file": name, "valid": valid, "problems": problems.iter().map(place).collect::<Vec<_>>() }));
    }
    print::machine(&Value::Array(results), format)?;
    Ok(if bad == 0 { ExitCode::SUCCESS } else { ExitCode::from(3) })
}

async fn apply_one(rest: &Rest, file: &Path) -> Result<Value, Failed> {
    let bytes = read(file)?;
    let request = rest
        .request(Method::POST, "/workflows")
        .header("content-type", media_type(file))
        .header("nova-file-name", file.display().to_string())
        .body(bytes);
    match rest.send(request).await {
        Ok((_, body)) => Ok(body),
        Err(Failed::Refused(why)) => Err(Failed::Refused(format!("{}: {why}", file.display()))),
        Err(other) => Err(other),
    }
}

/// Stores documents.
pub async fn apply(rest: &Rest, files: &Files, format: Format) -> Result<(), Failed> {
    let mut applied = Vec::new();
    for file in &files.files {
        let body = apply_one(rest, file).await?;
        if format == Format::Table {
            let what = if body["new"].as_bool() == Some(true) { "stored" } else { "unchanged" };
            println!("{} version {} {what}", print::text(&body, "name"), print::text(&body, "version"));
        }
        applied.push(body);
    }
    print::machine(&Value::Array(applied), format).map(drop)
}

fn input(text: &str) -> Result<Value, Failed> {
    let bytes = match text {
        "-" => read(Path::new("-"))?,
        _ => match text.strip_prefix('@') {
            Some(file) => read(Path::new(file))?,
            None => text.as_bytes().to_vec(),
        },
    };
    serde_json::from_slice(&bytes).map_err(|error| Failed::Usage(format!("--input is no JSON: {error}")))
}

/// Starts an execution and follows it.
pub async fn run(rest: &Rest, run: Run, format: Format) -> Result<ExitCode, Failed> {
    let file = Path::new(&run.workflow);
    let is_file = run.workflow == "-" || file.extension().is_some_and(|it| it == "yaml" || it == "yml" || it == "json");
    let workflow = if is_file { print::text(&apply_one(rest, file).await?, "name") } else { run.workflow.clone() };
    let mut labels = serde_json::Map::new();
    for label in &run.labels {
        let (name, value) =
            label.split_once('=').ok_or_else(|| Failed::Usage(format!("--label '{label}' is not <name>=<value>")))?;
        labels.insert(name.into(), value.into());
    }
    let mut body = json!({ "workflow": workflow, "input": input(&run.input)?, "labels": labels });
    if let Some(version) = run.version {
        body["version"] = version.into();
    }
    let mut request = rest.request(Method::POST, "/executions").json(&body);
    if let Some(key) = &run.key {
        request = request.header("idempotency-key", key);
    }
    let (_, accepted) = rest.send(request).await?;
    let id = print::text(&accepted, "id");
    if run.detach {
        if !print::machine(&accepted, format)? {
            println!("{id}");
        }
        return Ok(ExitCode::SUCCESS);
    }
    live::follow(rest, &id, format).await
}

/// Shows one thing.
pub async fn get(rest: &Rest, get: &Get, format: Format) -> Result<(), Failed> {
    let path = match get.kind {
        GetKind::Execution => format!("/executions/{}", get.name),
        GetKind::Workflow => match get.version {
            Some(version) => format!("/workflows/{}?version={version}", get.name),
            None => format!("/workflows/{}", get.name),
        },
        GetKind::Events => format!("/executions/{}/events", get.name),
        GetKind::Result => format!("/executions/{}/result", get.name),
    };
    let (_, mut body) = rest.send(rest.request(Method::GET, &path)).await?;
    // Events come in pages.
    while let Some(next) = body["next"].as_u64() {
        let (_, more) = rest.send(rest.request(Method::GET, &format!("{path}?after={next}"))).await?;
        if let (Some(events), Some(more)) = (body["events"].as_array_mut(), more["events"].as_array()) {
            events.extend(more.iter().cloned());
        }
        body["next"] = more["next"].clone();
    }
    if let Some(fields) = body.as_object_mut() {
        fields.remove("next");
    }
    if print::machine(&body, format)? {
        return Ok(());
    }
    match get.kind {
        GetKind::Execution => {
            for field in
                ["id", "workflow", "version", "state", "startedAt", "endedAt", "startedBy", "input", "output", "error"]
            {
                let text = print::text(&body, field);
                if !text.is_empty() {
                    println!("{field:<10} {text}");
                }
            }
            println!();
            let nodes = body["nodes"].as_array().cloned().unwrap_or_default();
            let row = |node: &Value| {
                let error = print::text(&node["error"], "code");
                vec![print::text(node, "path"), print::text(node, "state"), print::text(node, "attempts"), error]
            };
            print::table(&["node", "state", "attempts", "error"], nodes.iter().map(row).collect());
        }
        GetKind::Events => {
            let row = |event: &Value| {
                let more = ["state", "attempt", "output", "error", "reason", "value"];
                let said: Vec<_> = more
                    .iter()
                    .filter(|field| !event[**field].is_null())
                    .map(|field| format!("{field}={}", print::text(event, field)))
                    .collect();
                vec![
                    print::text(event, "number"),
                    print::text(event, "at"),
                    print::text(event, "type"),
                    print::text(event, "node"),
                    said.join(" "),
                ]
            };
            let events = body["events"].as_array().cloned().unwrap_or_default();
            print::table(&["number", "at", "type", "node", ""], events.iter().map(row).collect());
        }
        GetKind::Workflow => {
            for field in ["name", "version", "hash", "createdAt"] {
                println!("{field:<10} {}", print::text(&body, field));
            }
            println!();
            print::machine(&body["document"], Format::Yaml)?;
        }
        GetKind::Result => {
            println!("state      {}", print::text(&body, "state"));
            for field in ["output", "error"] {
                let text = print::text(&body, field);
                if !text.is_empty() {
                    println!("{field:<10} {text}");
                }
            }
        }
    }
    Ok(())
}

/// Lists things.
pub async fn list(rest: &Rest, list: &List, format: Format) -> Result<(), Failed> {
    let (path, field, columns): (_, _, &[&str]) = match list.kind {
        ListKind::Executions => {
            ("/executions", "executions", &["id", "workflow", "version", "state", "startedAt", "startedBy"])
        }
        ListKind::Workflows => ("/workflows", "workflows", &["name", "version", "createdAt"]),
        ListKind::Triggers => ("/triggers", "triggers", &["id", "type", "workflow", "schedule", "topic"]),
        ListKind::Workers => ("/workers", "workers", &["worker", "name", "pool", "state", "slots", "leases", "kinds"]),
    };
    let mut request = rest.request(Method::GET, path);
    if matches!(list.kind, ListKind::Executions) {
        request = request.query(&[("limit", list.limit.to_string())]);
        let filters = [("state", &list.state), ("workflow", &list.workflow), ("cursor", &list.cursor)];
        for (name, value) in filters {
            if let Some(value) = value {
                request = request.query(&[(name, value)]);
            }
        }
    }
    let (_, body) = rest.send(request).await?;
    if !print::machine(&body, format)? {
        print::table(columns, print::rows(&body[field], columns));
        let cursor = print::text(&body, "cursor");
        if !cursor.is_empty() {
            eprintln!("there is more: --cursor {cursor}");
        }
    }
    Ok(())
}

/// Asks before something is taken away, when there is somebody to ask.
pub fn confirm(question: &str, yes: bool) -> Result<(), Failed> {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(Failed::Usage(format!("{question} Nobody can be asked here: say --yes")));
    }
    eprint!("{question} [y/N] ");
    let _ = std::io::stderr().flush();
    let mut answer = String::new();
    let read = std::io::stdin().read_line(&mut answer);
    match read {
        Ok(_) if matches!(answer.trim(), "y" | "Y" | "yes") => Ok(()),
        _ => Err(Failed::Usage("nothing was done".into())),
    }
}

/// Ends an execution early.
pub async fn cancel(rest: &Rest, execution: &str, reason: &str, yes: bool) -> Result<(), Failed> {
    confirm(&format!("Cancel execution {execution}?"), yes)?;
    let request = rest.request(Method::POST, &format!("/executions/{execution}/cancel"));
    let (_, body) = rest.send(request.json(&json!({ "reason": reason }))).await?;
    println!("{execution} {}", print::text(&body, "state"));
    Ok(())
}

/// Workers.
pub async fn worker(rest: &Rest, worker: Worker, format: Format) -> Result<(), Failed> {
    match worker {
        Worker::List => {
            let kind = ListKind::Workers;
            list(rest, &List { kind, state: None, workflow: None, limit: 50, cursor: None }, format).await
        }
        Worker::Drain { name, undo } => {
            let request = rest.request(Method::POST, &format!("/workers/{name}/drain"));
            let (_, body) = rest.send(request.json(&json!({ "draining": !undo }))).await?;
            println!("{name} {}", print::text(&body, "state"));
            Ok(())
        }
    }
}

/// Triggers.
pub async fn trigger(rest: &Rest, trigger: Trigger, format: Format) -> Result<(), Failed> {
    match trigger {
        Trigger::Apply { file } => {
            let bytes = read(&file)?;
            let text = String::from_utf8_lossy(&bytes);
            let spec: Value =
                serde_saphyr::from_str(&text).map_err(|error| Failed::Usage(format!("{}: {error}", file.display())))?;
            let (_, body) = rest.send(rest.request(Method::POST, "/triggers").json(&spec)).await?;
            println!("trigger {} stored", print::text(&body, "id"));
            Ok(())
        }
        Trigger::List => {
            let kind = ListKind::Triggers;
            list(rest, &List { kind, state: None, workflow: None, limit: 50, cursor: None }, format).await
        }
        Trigger::Delete { id, yes } => {
            confirm(&format!("Remove trigger {id}? Its position is forgotten."), yes)?;
            rest.send(rest.request(Method::DELETE, &format!("/triggers/{id}"))).await?;
            println!("trigger {id} removed");
            Ok(())
        }
    }
}
