//! Temporal: its server with all four services in one process, on a PostgreSQL of its own.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use nova_testkit::{Dir, Launch, Process, Readiness, free_ports, until};
use tokio::process::Command;

use crate::Error;
use crate::case::{Amount, Case, Work};
use crate::load::Figures;
use crate::system::{About, Places, first_line};

const SERVER: &str = "temporal/temporal-server";
const SCHEMA_TOOL: &str = "temporal/temporal-sql-tool";
const BENCH: &str = "temporal/bench";
const SCHEMA: &str = "temporal/schema";
/// Where `setup.sh` found the programs of PostgreSQL.
const POSTGRES: &str = "postgres";
const CONFIG: &str = include_str!("../temporal/server.yaml");
const START: Duration = Duration::from_secs(90);
/// PostgreSQL refuses to run as root.
const POSTGRES_USER: &str = "postgres";

/// Server, PostgreSQL and worker.
pub(crate) struct Temporal {
    worker: Process,
    server: Process,
    postgres: Process,
    address: String,
    programs: Programs,
    // Last: it is removed when nobody writes into it any more.
    _dir: Dir,
}

/// What is started.
struct Programs {
    server: PathBuf,
    schema_tool: PathBuf,
    schema: PathBuf,
    bench: PathBuf,
    postgres: PathBuf,
}

impl Programs {
    fn find(places: &Places) -> Result<Self, Error> {
        Ok(Self {
            server: places.peer("Temporal server", SERVER)?,
            schema_tool: places.peer("schema tool of Temporal", SCHEMA_TOOL)?,
            schema: places.peer("schema of Temporal", SCHEMA)?,
            bench: places.peer("worker of Temporal", BENCH)?,
            postgres: places.peer("PostgreSQL", &format!("{POSTGRES}/postgres"))?,
        })
    }
}

impl Temporal {
    pub(crate) fn look(places: &Places) -> Result<(), Error> {
        Programs::find(places).map(drop)
    }

    pub(crate) async fn start(places: &Places) -> Result<Self, Error> {
        let programs = Programs::find(places)?;
        let dir = places.dir()?;
        let ports = free_ports(10)?;
        let names = [
            "postgres",
            "frontend",
            "frontend-members",
            "frontend-http",
            "matching",
            "matching-members",
            "history",
            "history-members",
            "worker",
            "worker-members",
        ];
        let fill = |text: String, (name, port): (&str, &u16)| text.replace(&format!("{{{name}}}"), &port.to_string());
        let config = names.into_iter().zip(&ports).fold(CONFIG.to_owned(), fill);
        let (port, address) = (ports[0], format!("127.0.0.1:{}", ports[1]));

        let postgres = postgres(&programs, dir.path(), port).await?;
        schema(&programs, port).await?;
        let place = dir.path().join("config");
        std::fs::create_dir_all(&place).map_err(Error::file("make", &place))?;
        std::fs::write(place.join("development.yaml"), config).map_err(Error::file("write", &place))?;
        let launch = |name: &str, program: &Path, args: &[&str]| Launch {
            name: name.into(),
            program: program.to_owned(),
            args: args.iter().map(Into::into).collect(),
            env: Vec::new(),
            dir: dir.path().to_owned(),
            readiness: Readiness::Started,
        };
        let root = dir.path().to_string_lossy().into_owned();
        let args = ["--root", &root, "--config", "config", "--env", "development", "--allow-no-auth", "start"];
        let mut server = Process::spawn(launch("temporal-server", &programs.server, &args))?;
        let make = [address.as_str(), "namespace"];
        let made = until("the namespace", START, || command(&programs.bench, &make)).await;
        server.check()?;
        made?;
        let worker = Process::spawn(launch("temporal-worker", &programs.bench, &[&address, "worker"]))?;
        let mut temporal = Self { worker, server, postgres, address, programs, _dir: dir };
        let ask = || temporal.ask(Work::Chain { steps: 1 }, 1, Amount::Count(1));
        let first = until("the first execution", START, ask).await;
        // The end of a process says more than an answer that did not come.
        temporal.check()?;
        first?;
        Ok(temporal)
    }

    pub(crate) async fn about(&self) -> Result<About, Error> {
        let postgres = first_line(&self.programs.postgres, &["--version"]).await?;
        let said = Command::new(&self.programs.server).arg("--version").output().await;
        let said = said.map_err(Error::file("run", &self.programs.server))?;
        let all = [said.stdout, said.stderr].concat();
        let text = String::from_utf8_lossy(&all).trim().to_owned();
        let settings = [
            "one process with all four services, 4 history shards, as its development-postgres12.yaml has it",
            "PostgreSQL with its defaults but max_connections=300: fsync on, synchronous_commit on",
            "worker in Go, a process of its own with 16 pollers of each kind; steps are activities; clients by gRPC (its SDK)",
        ];
        Ok(About { version: format!("{text}; {postgres}"), settings: settings.map(Into::into).to_vec() })
    }

    pub(crate) fn processes(&self) -> BTreeMap<&'static str, Vec<u32>> {
        let pid = |process: &Process| process.pid().into_iter().collect();
        BTreeMap::from([
            ("server", pid(&self.server)),
            ("database", pid(&self.postgres)),
            ("worker", pid(&self.worker)),
        ])
    }

    pub(crate) async fn load(
        &self,
        case: &Case,
        in_flight: u32,
        amount: Amount,
        _next: &Arc<AtomicU64>,
    ) -> Result<Figures, String> {
        self.ask(case.work, in_flight, amount).await
    }

    async fn ask(&self, work: Work, in_flight: u32, amount: Amount) -> Result<Figures, String> {
        let (name, steps) = match work {
            Work::Chain { steps } => ("chain", steps),
            Work::Fan { steps } => ("fan", steps),
        };
        let (kind, amount) = match amount {
            Amount::For(time) => ("for", time.as_secs()),
            Amount::Count(count) => ("count", count),
        };
        let numbers = [steps, in_flight.into(), amount].map(|number| number.to_string());
        let args = [&self.address, name, &numbers[0], &numbers[1], kind, &numbers[2]];
        let said = command(&self.programs.bench, &args).await?;
        serde_json::from_str(&said).map_err(|error| format!("{error} in {said}"))
    }

    pub(crate) fn check(&mut self) -> Result<(), Error> {
        self.postgres.check()?;
        self.server.check()?;
        Ok(self.worker.check()?)
    }
}

/// Makes a data directory and starts PostgreSQL on it.
async fn postgres(programs: &Programs, dir: &Path, port: u16) -> Result<Process, Error> {
    let data = dir.join("postgres");
    std::fs::create_dir(&data).map_err(Error::file("make", &data))?;
    // It may look at its directory only if it may walk there.
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(dir, open).map_err(Error::file("open", dir))?;
    let root = is_root()?;
    let initdb = programs.postgres.with_file_name("initdb");
    let path = data.to_string_lossy().into_owned();
    if root {
        run(Path::new("chown"), &[POSTGRES_USER, &path]).await?;
    }
    let (program, args) = as_user(root, &initdb, &["-D", &path, "-A", "trust", "-U", "postgres"]);
    let args: Vec<_> = args.iter().map(|arg| arg.to_string_lossy().into_owned()).collect();
    run(&program, &args.iter().map(String::as_str).collect::<Vec<_>>()).await?;
    let port = port.to_string();
    let settings = [
        "-D",
        &path,
        "-p",
        &port,
        "-c",
        "listen_addresses=127.0.0.1",
        "-c",
        "unix_socket_directories=",
        "-c",
        "max_connections=300",
    ];
    let (program, args) = as_user(root, &programs.postgres, &settings);
    let mut process = Process::spawn(Launch {
        name: "postgres".into(),
        program,
        args,
        env: Vec::new(),
        dir: dir.to_owned(),
        readiness: Readiness::Started,
    })?;
    let psql = programs.postgres.with_file_name("psql");
    let asking = ["-h", "127.0.0.1", "-p", &port, "-U", "postgres", "-c", "select 1"];
    let ready = until("PostgreSQL", START, || command(&psql, &asking)).await;
    process.check()?;
    ready?;
    Ok(process)
}

async fn schema(programs: &Programs, port: u16) -> Result<(), Error> {
    let port = port.to_string();
    for (database, folder) in [("temporal", "temporal"), ("temporal_visibility", "visibility")] {
        let versions = programs.schema.join(folder).join("versioned").to_string_lossy().into_owned();
        for step in [&["create"][..], &["setup-schema", "-v", "0.0"], &["update-schema", "-d", &versions]] {
            let at = ["--ep", "127.0.0.1", "-p", &port, "-u", "postgres", "--pw", "none", "--pl", "postgres12"];
            let args: Vec<_> = at.iter().chain(&["--db", database]).chain(step).copied().collect();
            run(&programs.schema_tool, &args).await?;
        }
    }
    Ok(())
}

fn is_root() -> Result<bool, Error> {
    use std::os::unix::fs::MetadataExt;
    // What is below /proc/self belongs to the user that this process acts as.
    let own = std::fs::metadata("/proc/self").map_err(Error::file("look at", "/proc/self"))?;
    Ok(own.uid() == 0)
}

/// The program as the user of PostgreSQL, when this is root.
fn as_user(root: bool, program: &Path, args: &[&str]) -> (PathBuf, Vec<OsString>) {
    let args = args.iter().map(Into::into);
    if !root {
        return (program.to_owned(), args.collect());
    }
    let change = ["--reuid", POSTGRES_USER, "--regid", POSTGRES_USER, "--clear-groups"];
    let all = change.iter().map(Into::into).chain([program.into()]).chain(args);
    ("setpriv".into(), all.collect())
}

/// Runs a command to its end and gives what it printed.
async fn command(program: &Path, args: &[&str]) -> Result<String, String> {
    let mut command = Command::new(program);
    command.args(args).current_dir("/").stdin(Stdio::null()).kill_on_drop(true);
    let said = command.output().await.map_err(|error| format!("{}: {error}", program.display()))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if said.status.success() { Ok(text(&said.stdout)) } else { Err([text(&said.stdout), text(&said.stderr)].join(" ")) }
}

async fn run(program: &Path, args: &[&str]) -> Result<(), Error> {
    let ran = command(program, args).await;
    ran.map(drop).map_err(|why| Error::Options(format!("{} {} failed: {why}", program.display(), args.join(" "))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_port_in_the_config_is_one_that_is_filled_in() {
        let source = include_str!("temporal.rs");
        let names = CONFIG.split('{').skip(1).filter_map(|rest| rest.split_once('}')).map(|(name, _)| name);
        let mut count = 0;
        for name in names.filter(|name| name.bytes().all(|it| it.is_ascii_lowercase() || it == b'-')) {
            assert!(source.contains(&format!("\"{name}\",")), "{name}");
            count += 1;
        }
        assert_eq!(count, 12);
    }
}
