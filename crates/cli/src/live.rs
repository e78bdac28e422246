//! Following an execution in the terminal.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use futures::StreamExt;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use reqwest::Method;
use serde_json::Value;

use crate::args::Format;
use crate::error::Failed;
use crate::print;
use crate::rest::Rest;

/// How often a broken stream is opened again.
const TRIES: u32 = 20;

/// Shows an execution until it ends; prints its result.
pub async fn follow(rest: &Rest, id: &str, format: Format) -> Result<ExitCode, Failed> {
    let mut screen = Screen::new(format);
    let mut last = 0;
    let mut tries = 0;
    let ended = loop {
        match stream(rest, id, &mut last, &mut screen).await {
            Ok(Some(ended)) => break ended,
            Ok(None) => {}
            Err(Failed::Unreachable(why)) if tries < TRIES => screen.note(&why),
            Err(error) => return Err(error),
        }
        tries += 1;
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    screen.finish();
    let (_, execution) = rest.send(rest.request(Method::GET, &format!("/executions/{id}"))).await?;
    if !print::machine(&execution, format)? {
        println!("execution  {id}");
        for field in ["state", "output", "error"] {
            let text = match &execution[field] {
                Value::Object(_) | Value::Array(_) if field == "output" => {
                    serde_json::to_string_pretty(&execution[field]).unwrap_or_default()
                }
                _ => print::text(&execution, field),
            };
            if !text.is_empty() {
                println!("{field:<10} {text}");
            }
        }
    }
    Ok(if ended == "COMPLETED" { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// Reads events until the last one (its state), or until the stream ends.
async fn stream(rest: &Rest, id: &str, last: &mut u64, screen: &mut Screen) -> Result<Option<String>, Failed> {
    let request = rest.request(Method::GET, &format!("/executions/{id}/watch"));
    let response = rest.open(request.header("last-event-id", last.to_string())).await?;
    let mut chunks = response.bytes_stream();
    let mut buffer = Vec::new();
    while let Some(chunk) = chunks.next().await {
        let Ok(chunk) = chunk else { return Ok(None) };
        buffer.extend_from_slice(&chunk);
        while let Some(end) = buffer.windows(2).position(|pair| pair == b"\n\n") {
            let message: Vec<u8> = buffer.drain(..end + 2).collect();
            let text = String::from_utf8_lossy(&message);
            let data: String = text.lines().filter_map(|line| line.strip_prefix("data:")).collect();
            let Ok(event) = serde_json::from_str::<Value>(data.trim()) else { continue };
            *last = event["number"].as_u64().unwrap_or(*last);
            screen.show(&event);
            match event["type"].as_str() {
                Some("ended") => return Ok(Some(print::text(&event, "state"))),
                Some("rejected") => return Ok(Some("REJECTED".into())),
                _ => {}
            }
        }
    }
    Ok(None)
}

/// One line per node on a terminal, one line per event elsewhere; nothing when a program reads.
struct Screen {
    bars: Option<MultiProgress>,
    lines: bool,
    nodes: BTreeMap<String, (ProgressBar, Instant)>,
    order: Vec<String>,
}

impl Screen {
    fn new(format: Format) -> Self {
        let people = format == Format::Table;
        let terminal = std::io::stderr().is_terminal();
        Self {
            bars: (people && terminal).then(MultiProgress::new),
            lines: people && !terminal,
            nodes: BTreeMap::new(),
            order: Vec::new(),
        }
    }

    fn show(&mut self, event: &Value) {
        let kind = print::text(event, "type");
        let node = print::text(event, "node");
        let error = print::text(&event["error"], "code");
        let attempt = print::text(event, "attempt");
        if self.lines {
            let more = [("attempt", &attempt), ("error", &error)];
            let more: String = more
                .iter()
                .filter(|(_, text)| !text.is_empty())
                .map(|(name, text)| format!(" {name}={text}"))
                .collect();
            eprintln!("{:>4} {kind} {node}{more}", print::text(event, "number"));
        }
        let Some(bars) = &self.bars else { return };
        if node.is_empty() {
            return;
        }
        let (bar, begun) = self.nodes.entry(node.clone()).or_insert_with(|| {
            self.order.push(node.clone());
            let bar = bars.add(ProgressBar::new_spinner());
            bar.set_style(style("{spinner}"));
            bar.enable_steady_tick(Duration::from_millis(100));
            bar.set_prefix(node.clone());
            (bar, Instant::now())
        });
        let took = format!("{} ms", begun.elapsed().as_millis());
        match kind.as_str() {
            "nodeStarted" => bar.set_message("queued"),
            "attemptStarted" if attempt == "1" => bar.set_message("running"),
            "attemptStarted" => bar.set_message(format!("running, attempt {attempt}")),
            "attemptFailed" => bar.set_message(format!("attempt {attempt} failed: {error}; it is tried again")),
            "nodeCompleted" => end(bar, "✔", &took),
            "nodeFailed" => end(bar, "✘", &format!("{error} ({took})")),
            "nodeSkipped" => end(bar, "–", "skipped"),
            "nodeCancelled" => end(bar, "–", "cancelled"),
            _ => {}
        }
    }

    fn note(&self, why: &str) {
        if self.lines {
            eprintln!("     {why}");
        }
    }

    fn finish(&self) {
        for (bar, _) in self.nodes.values().filter(|(bar, _)| !bar.is_finished()) {
            bar.finish();
        }
    }
}

fn end(bar: &ProgressBar, sign: &str, message: &str) {
    bar.set_style(style(sign));
    bar.finish_with_message(message.to_owned());
}

fn style(sign: &str) -> ProgressStyle {
    let template = format!("  {sign} {{prefix:<24}} {{msg}}");
    ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}
