//! Restate: one node with its defaults, or three of which two have a write before it is acknowledged.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use nova_testkit::{Dir, Launch, Process, Readiness, free_ports, until};

use crate::Error;
use crate::case::{Case, Form, Work};
use crate::http::Connection;
use crate::load::Question;
use crate::system::{About, Places, first_line};

const SERVER: &str = "restate/node_modules/@restatedev/restate-server-linux-x64/bin/restate-server";
const SERVICE: &str = "restate/nova-peers-restate-service";
/// Longest wait for the first execution.
const START: Duration = Duration::from_secs(60);

/// Where a node listens.
struct Ports {
    ingress: u16,
    admin: u16,
    fabric: u16,
}

/// Nodes and the service with the work.
pub(crate) struct Restate {
    nodes: Vec<Process>,
    service: Process,
    hosts: Vec<SocketAddr>,
    server: PathBuf,
    env: Vec<(String, String)>,
    // Last: it is removed when nobody writes into it any more.
    _dir: Dir,
}

impl Restate {
    pub(crate) fn look(places: &Places) -> Result<(), Error> {
        places.peer("Restate server", SERVER)?;
        places.peer("Restate service", SERVICE).map(drop)
    }

    pub(crate) async fn start(count: usize, places: &Places) -> Result<Self, Error> {
        let server = places.peer("Restate server", SERVER)?;
        let dir = places.dir()?;
        let ports = free_ports(count * 3 + 1)?;
        let (port, ports) = ports.split_last().expect("there is one more than three for each node");
        let ports: Vec<_> = ports.chunks(3).map(|of| Ports { ingress: of[0], admin: of[1], fabric: of[2] }).collect();
        let service = Process::spawn(Launch {
            name: "restate-service".into(),
            program: places.peer("Restate service", SERVICE)?,
            args: vec![format!("127.0.0.1:{port}").into()],
            env: Vec::new(),
            dir: dir.path().to_owned(),
            readiness: Readiness::Started,
        })?;
        let mut nodes = Vec::new();
        for number in 0..count {
            let name = format!("node-{number}");
            let mut args = ["--no-logo", "--bind-ip", "127.0.0.1", "--node-name", &name].map(Into::into).to_vec();
            args.extend(["--base-dir".into(), dir.path().join(&name).into_os_string()]);
            if count > 1 {
                // One of them begins the cluster; the others join it.
                args.extend(["--auto-provision".into(), (number == 0).to_string().into()]);
            }
            nodes.push(Process::spawn(Launch {
                name,
                program: server.clone(),
                args,
                env: environment(number, &ports),
                dir: dir.path().to_owned(),
                readiness: Readiness::Started,
            })?);
        }
        let local = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let hosts = ports.iter().map(|ports| local(ports.ingress)).collect();
        let mut restate = Self { nodes, service, hosts, server, env: environment(0, &ports), _dir: dir };
        restate.register(local(ports[0].admin), *port).await?;
        Ok(restate)
    }

    /// Tells the first node of the service, and waits until an execution comes back from each node.
    async fn register(&mut self, admin: SocketAddr, service: u16) -> Result<(), Error> {
        let body = format!(r#"{{"uri":"http://127.0.0.1:{service}"}}"#);
        let length = body.len();
        let request = format!(
            "POST /deployments HTTP/1.1\r\nhost: {admin}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        let register = || async {
            let mut connection = Connection::open(admin).await.map_err(|error| error.to_string())?;
            let (status, body) = connection.exchange(request.as_bytes()).await.map_err(|error| error.to_string())?;
            let said = || format!("{status} {}", String::from_utf8_lossy(body));
            if matches!(status, 200 | 201) { Ok(()) } else { Err(said()) }
        };
        let registered = until("the registration of the service", START, register).await;
        // The end of a process says more than a connection that is refused.
        self.check()?;
        registered?;
        let question = ask("chain", Work::Chain { steps: 1 });
        for host in &self.hosts {
            until("the first execution", START, || question.once(*host, 1)).await?;
        }
        Ok(())
    }

    pub(crate) async fn about(&self) -> Result<About, Error> {
        let version = first_line(&self.server, &["--version"]).await?;
        let config = tokio::process::Command::new(&self.server)
            .args(["--dump-config", "--no-logo"])
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .output()
            .await
            .map_err(Error::file("run", &self.server))?;
        let config = String::from_utf8_lossy(&config.stdout).into_owned();
        let told = ["default-replication", "default-num-partitions", "default-provider", "rocksdb-disable-wal-fsync"];
        let mut settings = vec![match self.nodes.len() {
            1 => "1 node, its defaults".to_owned(),
            _ => "3 nodes on loopback, a write is acknowledged by 2 log servers, metadata by Raft".to_owned(),
        }];
        let mut lines: Vec<_> = config.lines().filter(|line| told.iter().any(|key| line.starts_with(key))).collect();
        lines.dedup();
        settings.push(format!("{} (from --dump-config)", lines.join(", ")));
        settings.push("each append to the log is written by RocksDB with an fsync of its WAL".into());
        settings.push(
            "service in Rust, restate-sdk 0.13, a process of its own; clients by HTTP/1.1 to all nodes in turn".into(),
        );
        Ok(About { version, settings })
    }

    pub(crate) fn processes(&self) -> BTreeMap<&'static str, Vec<u32>> {
        let servers = self.nodes.iter().filter_map(Process::pid).collect();
        BTreeMap::from([("server", servers), ("worker", self.service.pid().into_iter().collect())])
    }

    pub(crate) fn hosts(&self) -> &[SocketAddr] {
        &self.hosts
    }

    pub(crate) fn question(&self, case: &Case) -> Question {
        ask(
            match (case.work, case.form) {
                (Work::Chain { .. }, Form::Inside) => "chain",
                (Work::Chain { .. }, _) => "chain_called",
                (Work::Fan { .. }, _) => "fan",
            },
            case.work,
        )
    }

    pub(crate) fn check(&mut self) -> Result<(), Error> {
        self.service.check()?;
        self.nodes.iter_mut().try_for_each(|node| Ok(node.check()?))
    }
}

fn environment(number: usize, ports: &[Ports]) -> Vec<(String, String)> {
    let Ports { ingress, admin, fabric } = ports[number];
    let local = |port: u16| format!("127.0.0.1:{port}");
    let mut env = vec![
        ("RESTATE_INGRESS__BIND_ADDRESS", local(ingress)),
        ("RESTATE_ADMIN__BIND_ADDRESS", local(admin)),
        ("RESTATE_BIND_ADDRESS", local(fabric)),
        ("RESTATE_ADVERTISED_ADDRESS", format!("http://{}", local(fabric))),
        ("RESTATE_LISTEN_MODE", "tcp".into()),
        ("RESTATE_DISABLE_TELEMETRY", "true".into()),
        ("RUST_LOG", "warn".into()),
    ];
    if ports.len() > 1 {
        let all: Vec<_> = ports.iter().map(|ports| format!("\"http://{}\"", local(ports.fabric))).collect();
        env.push(("RESTATE_METADATA_CLIENT__ADDRESSES", format!("[{}]", all.join(","))));
        env.push(("RESTATE_DEFAULT_REPLICATION", "2".into()));
        env.push(("RESTATE_CLUSTER_NAME", "peers".into()));
    }
    env.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn ask(handler: &str, work: Work) -> Question {
    let (Work::Chain { steps } | Work::Fan { steps }) = work;
    Question {
        head: format!("POST /Bench/{handler} HTTP/1.1\r\ncontent-type: application/json\r\n"),
        body: ("{\"number\":".into(), format!(",\"steps\":{steps}}}")),
        is_right: |status, body, result| {
            status == 200 && std::str::from_utf8(body).ok().and_then(|text| text.parse().ok()) == Some(result)
        },
        work,
    }
}
