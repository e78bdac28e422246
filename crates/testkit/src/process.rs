//! One process, from spawn to reaping.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::wait::LOOK;
use crate::{Error, Result, Usage, usage_of};

/// How a process shows that it does its work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// It prints `ready <url>` on a line of its own.
    Announced,
    /// `GET <this>/readyz` is answered with 200.
    Http(String),
    /// It runs; nothing else is known of it.
    Started,
}

/// What is started.
#[derive(Clone, Debug)]
pub struct Launch {
    /// Its name, in messages and as that of its output files.
    pub name: String,
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Environment, besides what this process has.
    pub env: Vec<(String, String)>,
    /// Where its output goes: `<name>.out` and `<name>.err`, each start appended.
    pub dir: PathBuf,
    /// How it shows that it is ready.
    pub readiness: Readiness,
}

/// A process. It is killed and reaped when this is dropped.
#[derive(Debug)]
pub struct Process {
    launch: Launch,
    child: Option<Child>,
    /// Where the output of the latest start begins.
    output_from: u64,
}

impl Process {
    /// One that does not run yet.
    #[must_use]
    pub fn new(launch: Launch) -> Self {
        Self { launch, child: None, output_from: 0 }
    }

    /// Starts it; [`Process::ready`] waits until it works.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(launch: Launch) -> Result<Self> {
        let mut process = Self::new(launch);
        process.start()?;
        Ok(process)
    }

    /// Starts it again with the same arguments; one that still runs is killed first.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&mut self) -> Result<()> {
        self.kill();
        let Launch { name, program, args, env, dir, .. } = &self.launch;
        std::fs::create_dir_all(dir).map_err(Error::file("make", dir))?;
        let open = |end: &str| {
            let path = dir.join(format!("{name}.{end}"));
            OpenOptions::new().create(true).append(true).open(&path).map_err(Error::file("open", path))
        };
        let (stdout, stderr) = (open("out")?, open("err")?);
        self.output_from = stdout.metadata().map_or(0, |it| it.len());
        let mut command = Command::new(program);
        command.args(args).envs(env.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(stdout).stderr(stderr);
        let child = command.spawn().map_err(|source| Error::Spawn { name: name.clone(), source })?;
        self.child = Some(child);
        Ok(())
    }

    /// Sets a variable of its environment, from its next start on.
    pub fn set_env(&mut self, name: &str, value: &str) {
        self.launch.env.retain(|(known, _)| known != name);
        self.launch.env.push((name.to_owned(), value.to_owned()));
    }

    /// Waits until it is ready; gives the url that it announced, if it is one that does.
    ///
    /// # Errors
    /// [`Error::Ended`] as soon as it ends, [`Error::Deadline`] when it does not get ready.
    pub async fn ready(&mut self, within: Duration) -> Result<Option<String>> {
        let end = Instant::now() + within;
        let client = crate::rest::client()?;
        loop {
            self.check()?;
            let last = match &self.launch.readiness {
                Readiness::Started => return Ok(None),
                Readiness::Announced => match self.announced() {
                    Some(url) => return Ok(Some(url)),
                    None => "it did not say so".to_owned(),
                },
                Readiness::Http(url) => {
                    let asking = client.get(format!("{url}/readyz")).timeout(Duration::from_secs(5)).send();
                    match asking.await {
                        Ok(answer) if answer.status().is_success() => return Ok(None),
                        Ok(answer) => answer.text().await.unwrap_or_default(),
                        Err(error) => error.to_string(),
                    }
                }
            };
            if Instant::now() >= end {
                let what = format!("readiness of {}", self.launch.name);
                return Err(Error::Deadline { what, within, last: format!("{last}\n{}", self.tail()) });
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The url after `ready ` in the output of the latest start.
    fn announced(&self) -> Option<String> {
        let mut file = File::open(self.launch.dir.join(format!("{}.out", self.launch.name))).ok()?;
        file.seek(SeekFrom::Start(self.output_from)).ok()?;
        let mut text = String::new();
        file.read_to_string(&mut text).ok()?;
        // A line without its end may still grow.
        let mut lines = text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
        lines.find_map(|line| line.strip_prefix("ready ").map(|url| url.trim().to_owned()))
    }

    /// That it still runs.
    ///
    /// # Errors
    /// [`Error::Ended`] with the end of its output, or [`Error::NotRunning`] when it was ended from here.
    pub fn check(&mut self) -> Result<()> {
        match self.ended()? {
            None => Ok(()),
            Some(status) => {
                let name = self.launch.name.clone();
                Err(Error::Ended { name, status: status.to_string(), tail: self.tail() })
            }
        }
    }

    /// What it ended with; none: it still runs.
    fn ended(&mut self) -> Result<Option<ExitStatus>> {
        let name = || self.launch.name.clone();
        let child = self.child.as_mut().ok_or_else(|| Error::NotRunning { name: name() })?;
        let ended = child.try_wait().map_err(|source| Error::Spawn { name: name(), source })?;
        if ended.is_some() {
            self.child = None;
        }
        Ok(ended)
    }

    /// The last lines of what it said, for people.
    #[must_use]
    pub fn tail(&self) -> String {
        let read = |end: &str| std::fs::read(self.launch.dir.join(format!("{}.{end}", self.launch.name)));
        let said = [read("out").unwrap_or_default(), read("err").unwrap_or_default()].concat();
        tail_of(&String::from_utf8_lossy(&said), 20)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.launch.name
    }

    /// Where its health and metrics are, if it shows them by HTTP.
    #[must_use]
    pub fn observed(&self) -> Option<&str> {
        match &self.launch.readiness {
            Readiness::Http(url) => Some(url),
            Readiness::Announced | Readiness::Started => None,
        }
    }

    /// All that it has written to standard error, over all its starts.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn errors(&self) -> Result<String> {
        let path = self.launch.dir.join(format!("{}.err", self.launch.name));
        std::fs::read(&path).map(|said| String::from_utf8_lossy(&said).into_owned()).map_err(Error::file("read", path))
    }

    /// Its process id while it was not ended from here.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// What it used since it was last started.
    ///
    /// # Errors
    /// When it does not run.
    pub fn usage(&self) -> Result<Usage> {
        usage_of(self.pid().ok_or_else(|| Error::NotRunning { name: self.launch.name.clone() })?)
    }

    /// `kill -9`, and waits until it is gone; nothing happens when it does not run.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Both fail only when it was reaped already; a stopped process dies of SIGKILL too.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Asks it to end, waits until it did, and gives what it ended with, if it ran; after `within` it is killed.
    ///
    /// # Errors
    /// [`Error::Deadline`] when it had to be killed.
    pub async fn stop(&mut self, within: Duration) -> Result<Option<ExitStatus>> {
        if self.child.is_none() {
            return Ok(None);
        }
        self.signal(Signal::TERM)?;
        let end = Instant::now() + within;
        loop {
            if let Some(status) = self.ended()? {
                return Ok(Some(status));
            }
            if Instant::now() >= end {
                self.kill();
                let what = format!("the end of {}", self.launch.name);
                return Err(Error::Deadline { what, within, last: "it was killed".into() });
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Lets it stand still: it holds its connections and answers nothing.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// When it does not run.
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let name = || self.launch.name.clone();
        let pid =
            self.pid().and_then(|pid| Pid::from_raw(pid as i32)).ok_or_else(|| Error::NotRunning { name: name() })?;
        // Ours until it is reaped, which only this struct does: the number cannot mean another process.
        kill_process(pid, signal).map_err(|error| Error::Signal { name: name(), source: error.into() })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The last `lines` lines.
pub(crate) fn tail_of(text: &str, lines: usize) -> String {
    let all: Vec<_> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
