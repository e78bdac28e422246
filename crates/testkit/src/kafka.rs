//! A real Kafka, through `scripts/kafka.sh`.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::{Error, Result, Usage, usage_of};

/// Longest run of the script; the first one downloads Kafka.
const START: Duration = Duration::from_secs(600);
const OTHER: Duration = Duration::from_secs(90);

/// Brokers, on loopback or on hosts of their own. They end when this is dropped; their data stays in the directory.
#[derive(Debug)]
pub struct Kafka {
    script: PathBuf,
    dir: PathBuf,
    brokers: u32,
    optimise: bool,
    bootstrap: String,
    /// What the script reads from its environment.
    env: Vec<(&'static str, String)>,
}

/// What docs/operations.md says of brokers. Too little patience for a machine on which tests take all there is.
const QUICK: [&str; 6] = [
    "broker.session.timeout.ms=1500",
    "broker.heartbeat.interval.ms=250",
    "controller.quorum.fetch.timeout.ms=1000",
    "controller.quorum.request.timeout.ms=1000",
    "controller.quorum.election.timeout.ms=500",
    "controller.quorum.election.backoff.max.ms=300",
];

impl Kafka {
    /// Starts 1 or 3 brokers with their data in `dir`, and waits until they answer. With `optimise` they cost half, but
    /// only after a minute of load.
    ///
    /// # Errors
    /// When the script is not there or fails.
    pub async fn start(brokers: u32, optimise: bool, dir: &Path) -> Result<Self> {
        Self::begin(brokers, optimise, dir, Vec::new()).await
    }

    /// Starts as many brokers as there are hosts, 1 or 3: each in the network namespace of this name, at this address. They
    /// give up on one that died as soon as operators are told to have them do.
    ///
    /// # Errors
    /// When the script is not there or fails.
    pub async fn start_on(hosts: &[(String, IpAddr)], dir: &Path) -> Result<Self> {
        let list = |one: &dyn Fn(&(String, IpAddr)) -> String| hosts.iter().map(one).collect::<Vec<_>>().join(" ");
        let env = vec![
            ("KAFKA_NETNS", list(&|(namespace, _)| namespace.clone())),
            ("KAFKA_HOSTS", list(&|(_, address)| address.to_string())),
            ("KAFKA_EXTRA", QUICK.join("\n")),
        ];
        Self::begin(hosts.len() as u32, false, dir, env).await
    }

    async fn begin(brokers: u32, optimise: bool, dir: &Path, env: Vec<(&'static str, String)>) -> Result<Self> {
        // Made first: whatever the script has begun when it fails or this is dropped is ended.
        let mut kafka =
            Self { script: script()?, dir: dir.to_owned(), brokers, optimise, bootstrap: String::new(), env };
        kafka.bootstrap = kafka.restart().await?;
        Ok(kafka)
    }

    /// Brings back the brokers that are down, on their old ports, and waits until all answer; gives where they do.
    ///
    /// # Errors
    /// When one does not come back.
    pub async fn restart(&self) -> Result<String> {
        let brokers = self.brokers.to_string();
        let mut flags = vec!["--brokers", &brokers];
        flags.extend(self.optimise.then_some("--optimise"));
        let said = self.run("start", &flags, None, START).await?;
        let bootstrap = said.lines().rev().find_map(|line| line.strip_prefix("bootstrap="));
        let unexpected = || Error::Unexpected { what: "the answer of kafka.sh".into(), why: said.clone() };
        Ok(bootstrap.ok_or_else(unexpected)?.trim().to_owned())
    }

    /// `host:port` of all brokers, separated by commas.
    #[must_use]
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// How many brokers.
    #[must_use]
    pub fn brokers(&self) -> u32 {
        self.brokers
    }

    /// `kill -9` of one broker, from 1, or of all.
    ///
    /// # Errors
    /// When the script fails.
    pub async fn crash(&self, broker: Option<u32>) -> Result<()> {
        self.run("crash", &[], broker, OTHER).await.map(drop)
    }

    /// Clean shutdown of one broker, from 1, or of all.
    ///
    /// # Errors
    /// When the script fails.
    pub async fn stop(&self, broker: Option<u32>) -> Result<()> {
        self.run("stop", &[], broker, OTHER).await.map(drop)
    }

    /// Lets one broker, or all, stand still: it holds its connections and answers nothing.
    ///
    /// # Errors
    /// When the script fails.
    pub async fn pause(&self, broker: Option<u32>) -> Result<()> {
        self.run("pause", &[], broker, OTHER).await.map(drop)
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// When the script fails.
    pub async fn resume(&self, broker: Option<u32>) -> Result<()> {
        self.run("resume", &[], broker, OTHER).await.map(drop)
    }

    /// Runs a tool of Kafka's on these brokers, as an operator would, and gives what it printed.
    ///
    /// # Errors
    /// When it fails.
    pub async fn tool(&self, class: &str, args: &[&str]) -> Result<String> {
        let fixed = ["run", class, "--bootstrap-server", &self.bootstrap];
        let args = fixed.iter().chain(args).map(Into::into).collect();
        crate::nova::run(&self.script, args, &self.env, OTHER).await
    }

    /// What the brokers use that run.
    ///
    /// # Errors
    /// When a broker that is said to run does not.
    pub fn usage(&self) -> Result<Usage> {
        let mut sum = Usage::default();
        for broker in 1..=self.brokers {
            if let Some(pid) = self.pid(broker) {
                sum += usage_of(pid)?;
            }
        }
        Ok(sum)
    }

    /// Process id of a broker, from 1, if it runs.
    #[must_use]
    pub fn pid(&self, broker: u32) -> Option<u32> {
        let folder = self.dir.join(format!("b{broker}"));
        let pid: u32 = std::fs::read_to_string(folder.join("pid")).ok()?.trim().parse().ok()?;
        // The number may be that of a later process.
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let own = folder.join("server.properties").display().to_string();
        String::from_utf8_lossy(&line).contains(&own).then_some(pid)
    }

    async fn run(&self, what: &str, flags: &[&str], broker: Option<u32>, within: Duration) -> Result<String> {
        let mut args: Vec<OsString> = vec![what.into()];
        args.extend(flags.iter().map(Into::into));
        args.push(self.dir.clone().into());
        args.extend(broker.map(|broker| broker.to_string().into()));
        crate::nova::run(&self.script, args, &self.env, within).await
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        let mut command = std::process::Command::new(&self.script);
        command.arg("crash").arg(&self.dir).stdin(std::process::Stdio::null());
        // Nobody is left to hear of a failure; brokers that were never started are no failure.
        let _ = command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).status();
    }
}

/// The script named by `NOVA_KAFKA_SCRIPT`, else that of the checkout around the current directory or of the build.
fn script() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("NOVA_KAFKA_SCRIPT") {
        let path = PathBuf::from(path);
        return if path.is_file() { Ok(path) } else { Err(Error::NoKafkaScript { looked: vec![path] }) };
    }
    let current = std::env::current_dir().unwrap_or_default();
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let looked = current.ancestors().chain(built).map(|folder| folder.join("scripts/kafka.sh"));
    let looked: Vec<_> = looked.collect();
    let found = looked.iter().find(|path| path.is_file()).cloned();
    found.ok_or(Error::NoKafkaScript { looked })
}
