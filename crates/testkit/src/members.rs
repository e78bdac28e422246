//! Coordinators as processes of their own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::settings::{Settings, path, texts};
use crate::{Error, Launch, Nova, Process, Readiness, Result, Usage, free_ports};

/// What coordinators are made with.
#[derive(Clone, Debug)]
pub struct MembersOptions {
    /// How many: 1 or 3.
    pub count: usize,
    /// Name of the cluster.
    pub cluster: String,
    /// Its shards.
    pub shards: u16,
    /// Partitions of the task topic.
    pub inboxes: u32,
    /// Number of the first one; the others follow.
    pub first: u64,
    /// What holds the log: `file` or `sled`.
    pub log: String,
    /// More fields of their config files.
    pub settings: toml::Table,
}

impl Default for MembersOptions {
    fn default() -> Self {
        Self {
            count: 3,
            cluster: "nova".into(),
            shards: 24,
            inboxes: 4,
            first: 1,
            log: "file".into(),
            settings: toml::Table::new(),
        }
    }
}

/// The coordinators of a cluster. They end when this is dropped.
#[derive(Debug)]
pub struct Members {
    nova: Nova,
    options: MembersOptions,
    dir: PathBuf,
    numbers: Vec<u64>,
    processes: Vec<Process>,
    urls: Vec<String>,
}

impl Members {
    /// Starts them; their configs, data and output are in `dir`. [`Members::ready`] waits until one leads.
    ///
    /// # Errors
    /// When one cannot be started.
    pub fn start(nova: &Nova, options: &MembersOptions, dir: &Path) -> Result<Self> {
        let mut members = Self::prepare(nova, options, dir)?;
        members.processes.iter_mut().try_for_each(Process::start)?;
        Ok(members)
    }

    /// The same, but for the start: what their directories hold can be put there before.
    ///
    /// # Errors
    /// When there are no ports, or their configs cannot be written.
    pub fn prepare(nova: &Nova, options: &MembersOptions, dir: &Path) -> Result<Self> {
        let ports = free_ports(options.count * 2)?;
        let (listen, observe) = ports.split_at(options.count);
        let urls: Vec<_> = listen.iter().map(|port| format!("http://127.0.0.1:{port}")).collect();
        let numbers: Vec<_> = (options.first..).take(options.count).collect();
        let all: Vec<_> = numbers.iter().zip(&urls).map(|(member, url)| format!("{member}@{url}")).collect();
        let mut members = Self {
            nova: nova.clone(),
            options: options.clone(),
            dir: dir.to_owned(),
            numbers,
            processes: Vec::new(),
            urls,
        };
        for (place, (listen, observe)) in listen.iter().zip(observe).enumerate() {
            let launch = members.launch(members.numbers[place], *listen, *observe, &all)?;
            members.processes.push(Process::new(launch));
        }
        Ok(members)
    }

    /// Starts another one, of a number that none had, with an empty directory and no word of the others; gives its place.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn add(&mut self, number: u64) -> Result<usize> {
        let ports = free_ports(2)?;
        let launch = self.launch(number, ports[0], ports[1], &[])?;
        self.processes.push(Process::spawn(launch)?);
        self.urls.push(format!("http://127.0.0.1:{}", ports[0]));
        self.numbers.push(number);
        Ok(self.numbers.len() - 1)
    }

    /// Gives the member at a place another number: its config says so at its next start. Its port and data stay.
    ///
    /// # Errors
    /// When its config cannot be written.
    pub fn renumber(&mut self, place: usize, number: u64) -> Result<()> {
        let old = self.dir.join(format!("coordinator-{}.toml", self.numbers[place]));
        let text = std::fs::read_to_string(&old).map_err(Error::file("read", &old))?;
        let mut settings: toml::Table = text.parse().expect("it was written as TOML");
        settings.insert("member".into(), (number as i64).into());
        settings.insert("members".into(), texts::<&str>(&[]));
        std::fs::write(&old, settings.to_string()).map_err(Error::file("write", &old))?;
        self.numbers[place] = number;
        Ok(())
    }

    /// The directory of the data of a member.
    #[must_use]
    pub fn data(&self, number: u64) -> PathBuf {
        self.dir.join(format!("coordinator-{number}"))
    }

    fn launch(&self, number: u64, listen: u16, observe: u16, all: &[String]) -> Result<Launch> {
        let name = format!("coordinator-{number}");
        let mut settings = Settings::default()
            .with("cluster", self.options.cluster.as_str())
            .with("member", number as i64)
            .with("listen", format!("127.0.0.1:{listen}"))
            .with("members", texts(all))
            .with("data", path(&self.data(number)))
            .with("log", self.options.log.as_str())
            .with("shards", i64::from(self.options.shards))
            .with("inboxes", i64::from(self.options.inboxes))
            .with("observe", format!("127.0.0.1:{observe}"));
        for (field, value) in &self.options.settings {
            settings = settings.with(field, value.clone());
        }
        serve(&self.nova, "coordinator", &name, &settings, observe, &self.dir)
    }

    /// Waits until each of those that run knows a leader.
    ///
    /// # Errors
    /// When one ends, or at the deadline.
    pub async fn ready(&mut self, within: Duration) -> Result<()> {
        for process in self.processes.iter_mut().filter(|process| process.pid().is_some()) {
            process.ready(within).await?;
        }
        Ok(())
    }

    /// Where they answer, the first member first.
    #[must_use]
    pub fn urls(&self) -> &[String] {
        &self.urls
    }

    /// The processes, the first member first.
    pub fn processes(&mut self) -> &mut [Process] {
        &mut self.processes
    }

    /// The place in [`Members::processes`] of the member that leads.
    ///
    /// # Errors
    /// When none leads within this time.
    pub async fn leader(&self, within: Duration) -> Result<usize> {
        let coordinators = self.urls.join(",");
        let args = ["admin", "members", "--output", "json", "--coordinator", &coordinators];
        crate::until("a leader", within, || async {
            let text = self.nova.run(args).await.map_err(|error| error.chain())?;
            let all: serde_json::Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
            let leads = |it: &&serde_json::Value| it["id"].is_u64() && it["id"] == it["leader"];
            // One that was cut off may think that it still leads; the highest term is right.
            let leaders = all.as_array().into_iter().flatten().filter(leads);
            let leader = leaders.max_by_key(|it| it["term"].as_u64()).and_then(|it| it["id"].as_u64());
            let place = leader.and_then(|id| self.numbers.iter().position(|number| *number == id));
            place.ok_or_else(|| format!("nobody leads: {all}"))
        })
        .await
    }

    /// What those use that run.
    ///
    /// # Errors
    /// When a process that should run does not.
    pub fn usage(&self) -> Result<Usage> {
        sum(&self.processes)
    }
}

/// What those of `processes` use that were not ended from here.
pub(crate) fn sum(processes: &[Process]) -> Result<Usage> {
    let mut sum = Usage::default();
    for process in processes.iter().filter(|process| process.pid().is_some()) {
        sum += process.usage()?;
    }
    Ok(sum)
}

/// `nova serve <service>` with these settings.
pub(crate) fn serve(
    nova: &Nova,
    service: &str,
    name: &str,
    settings: &Settings,
    observe: u16,
    dir: &Path,
) -> Result<Launch> {
    std::fs::create_dir_all(dir).map_err(Error::file("make", dir))?;
    let file: PathBuf = dir.join(format!("{name}.toml"));
    settings.write(&file)?;
    Ok(Launch {
        name: name.to_owned(),
        program: nova.path().to_owned(),
        args: vec!["serve".into(), service.into(), "--config".into(), file.into()],
        env: quiet(),
        dir: dir.to_owned(),
        readiness: Readiness::Http(format!("http://127.0.0.1:{observe}")),
    })
}

/// Logs of the life cycle are for operators; who wants them here says so.
pub(crate) fn quiet() -> Vec<(String, String)> {
    let unset = std::env::var_os("NOVA_LOG").is_none();
    unset.then(|| ("NOVA_LOG".to_owned(), "warn".to_owned())).into_iter().collect()
}
