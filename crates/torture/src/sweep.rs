//! A process that is killed at each sync, each rename, each truncation in turn, and started again: what it had answered for
//! is there, and it goes on.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use nova_client::{Coordinators, Repeat};
use nova_testkit::{Launch, Nova, Process, Readiness, Rest, free_ports, free_ports_apart};
use nova_wire::v1;
use serde_json::json;
use tokio::time::{sleep, timeout};

use crate::tools;

/// Longest wait for a process to be ready, and for an answer.
const START: Duration = Duration::from_secs(60);
const ANSWER: Duration = Duration::from_secs(20);
/// Longest time between the end of a process and the word of it.
const DEATH: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(10);
/// What is asked for before the process is given up, when no kill came.
const REQUESTS: u32 = 12;
/// A coordinator listens this far behind the api of its development cluster.
const COORDINATOR: u16 = 10;

const WORKFLOW: &str = r#"
apiVersion: nova/v1
kind: Workflow
metadata: { name: swept }
spec:
  nodes:
    - { id: a, type: task, kind: echo, with: "${ input.n }" }
  output: "${ nodes.a.output }"
"#;

/// What is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Target {
    /// A cluster in one process: bus, log, history, session.
    Dev,
    /// A coordinator that writes a snapshot after each entry.
    Coordinator,
    /// The same, with its log in sled.
    Sled,
}

/// At what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Call {
    /// Data is made durable.
    Sync,
    /// A file gets its name.
    Rename,
    /// A file is cut, or goes.
    Cut,
}

impl Call {
    /// System calls, each of which is swept: strace counts them by name, and for each thread.
    fn names(self) -> &'static [&'static str] {
        match self {
            Self::Sync => &["fdatasync", "fsync"],
            // A program has one of them.
            Self::Rename => &["rename,renameat,renameat2"],
            Self::Cut => &["ftruncate", "unlink,unlinkat"],
        }
    }
}

/// What a sweep came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Calls at which it was killed.
    pub kills: u32,
    /// Requests that it had answered before.
    pub answered: u32,
}

impl fmt::Display for Swept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} kills, {} answers kept", self.kills, self.answered)
    }
}

/// Whether a process can be killed at a call here.
///
/// # Errors
/// With what is missing.
pub fn probe() -> Result<()> {
    if !tools::is_there("strace") {
        bail!("`strace` is missing (Debian: strace)");
    }
    let args = ["-D", "-f", "-qq", "-o", "/dev/null", "-e", "trace=rename,renameat,renameat2", "-e"];
    let inject = "inject=rename,renameat,renameat2:signal=SIGKILL:when=1";
    let status = std::process::Command::new("strace")
        .args(args)
        .args([inject, "mv", "/nonexistent/a", "/nonexistent/b"])
        .stderr(std::process::Stdio::null())
        .status()?;
    use std::os::unix::process::ExitStatusExt;
    if status.signal() != Some(9) {
        bail!("strace kills no process at a call: {status}");
    }
    Ok(())
}

/// Kills a process at the first call of a thread, at the second, and so on, each time in a new directory, until no thread makes
/// more of them; at most `most` times for each name of the call.
///
/// # Errors
/// With what was lost, or when a process cannot be started again.
pub async fn sweep(nova: &Nova, target: Target, call: Call, most: u32, dir: &Path) -> Result<Swept> {
    let mut swept = Swept::default();
    for name in call.names() {
        for place in 1..=most {
            let own = dir.join(format!("{name}-{place}"));
            std::fs::create_dir_all(&own)?;
            let what = || format!("{target:?} was killed at {name} {place}, files in {}", own.display());
            let (killed, answered) = one(nova, target, name, place, &own).await.with_context(what)?;
            std::fs::remove_dir_all(&own)?;
            if !killed {
                break;
            }
            swept.kills += 1;
            swept.answered += answered;
        }
    }
    if swept.kills == 0 {
        bail!("{target:?} makes no such call: it was never killed");
    }
    Ok(swept)
}

/// A process that can be started with and without a kill, on the same data and ports.
struct Subject {
    target: Target,
    url: String,
    launch: Launch,
}

impl Subject {
    fn new(nova: &Nova, target: Target, dir: &Path) -> Result<Self> {
        let data = dir.join("data").display().to_string();
        let (url, args, readiness) = if target == Target::Dev {
            let port = free_ports_apart(&[0, COORDINATOR])?;
            let args = ["dev", "--announce", "--data", &data, "--port", &port.to_string()].map(OsString::from);
            (format!("http://127.0.0.1:{port}"), args.to_vec(), Readiness::Announced)
        } else {
            let ports = free_ports(2)?;
            let url = format!("http://127.0.0.1:{}", ports[0]);
            let log = if target == Target::Sled { "sled" } else { "file" };
            let mut args: Vec<OsString> = ["serve", "coordinator"].map(OsString::from).to_vec();
            let set = [
                format!("listen=127.0.0.1:{}", ports[0]),
                format!("observe=127.0.0.1:{}", ports[1]),
                format!("members=[\"1@{url}\"]"),
                format!("data={data}"),
                format!("log={log}"),
                "snapshot_entries=1".to_owned(),
                "shards=2".to_owned(),
            ];
            args.extend(set.into_iter().flat_map(|set| ["--set".into(), OsString::from(set)]));
            (url, args, Readiness::Http(format!("http://127.0.0.1:{}", ports[1])))
        };
        let env = vec![("NOVA_LOG".to_owned(), "warn".to_owned())];
        let launch =
            Launch { name: "subject".into(), program: nova.path().to_owned(), args, env, dir: dir.into(), readiness };
        Ok(Self { target, url, launch })
    }

    /// As it is, to be killed at a call.
    fn doomed(&self, names: &str, place: u32) -> Launch {
        let (trace, inject) = (format!("trace={names}"), format!("inject={names}:signal=SIGKILL:when={place}"));
        // The tracer is a child of its own, so that the process is ours to wait for.
        let mut args: Vec<OsString> =
            ["-D", "-f", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject].map(OsString::from).to_vec();
        args.push(self.launch.program.clone().into());
        args.extend(self.launch.args.iter().cloned());
        Launch { program: "strace".into(), args, ..self.launch.clone() }
    }

    /// Asks for the next thing; what is known is answered as before.
    async fn ask(&self, n: u32) -> Result<String> {
        if self.target == Target::Dev {
            let rest = Rest::new(&self.url)?;
            if n == 0 {
                return Ok(rest.apply(WORKFLOW).await?.version.to_string());
            }
            let execution = rest.submit_once("swept", &json!({ "n": n }), &format!("k{n}")).await?;
            return Ok(execution.id);
        }
        let namespace = v1::Namespace { name: format!("n{n}"), ..Default::default() };
        let member = Coordinators::new(vec![self.url.clone()]);
        let asking = member.call(ANSWER, Repeat::Harmless, |mut it| {
            let namespace = namespace.clone();
            async move { it.put_namespace(namespace).await }
        });
        asking.await.map(|_| namespace.name).context("a namespace")
    }

    /// Looks whether all that it had answered for is there.
    async fn look(&self, answered: &[String]) -> Result<()> {
        if self.target == Target::Dev {
            let rest = Rest::new(&self.url)?;
            for (n, before) in answered.iter().enumerate().skip(1) {
                let again = rest.submit_once("swept", &json!({ "n": n }), &format!("k{n}")).await?;
                if again.id != *before || !again.repeated {
                    bail!("k{n} was {before}, and is {again:?}");
                }
                let ended = rest.wait(before, START).await?;
                if ended.output != Some(json!(n)) {
                    bail!("{n} came to {ended:?}");
                }
            }
            return Ok(());
        }
        let member = Coordinators::new(vec![self.url.clone()]);
        let asking = member.call(ANSWER, Repeat::Read, |mut it| async move {
            it.get_catalogue(v1::GetCatalogueRequest::default()).await
        });
        let there: BTreeSet<String> = asking.await?.namespaces.into_iter().map(|it| it.name).collect();
        match answered.iter().find(|name| !there.contains(*name)) {
            Some(lost) => bail!("{lost} was answered for, and is gone: {there:?}"),
            None => Ok(()),
        }
    }
}

async fn dead(process: &mut Process) {
    while process.check().is_ok() {
        sleep(LOOK).await;
    }
}

/// Whether it was killed, and how much it had answered until then.
async fn one(nova: &Nova, target: Target, names: &str, place: u32, dir: &Path) -> Result<(bool, u32)> {
    let subject = Subject::new(nova, target, dir)?;
    let mut process = Process::spawn(subject.doomed(names, place))?;
    let mut answered = Vec::new();
    if let Err(error) = process.ready(START).await {
        // It was killed before it was ready, unless it lives.
        if process.check().is_ok() {
            return Err(error).context("it is not ready");
        }
    } else {
        for n in 0..REQUESTS {
            tokio::select! {
                asked = timeout(ANSWER, subject.ask(n)) => match asked {
                    Ok(Ok(answer)) => answered.push(answer),
                    // Whose connection breaks may be dead, and not yet known to be.
                    failed => {
                        if timeout(DEATH, dead(&mut process)).await.is_err() {
                            failed.context("it does not answer")??;
                        }
                        break;
                    }
                },
                () = dead(&mut process) => break,
            }
        }
    }
    let killed = process.check().is_err();
    process.kill();
    let mut process = Process::spawn(subject.launch.clone())?;
    process.ready(START).await.context("it does not start again")?;
    subject.look(&answered).await?;
    subject.ask(REQUESTS).await.or_else(|error| if answered.is_empty() { Ok(String::new()) } else { Err(error) })?;
    process.stop(START).await?;
    Ok((killed, answered.len() as u32))
}
