//! What can be typed.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// NovaFlow: durable, event-streamed execution of workflows.
#[derive(Debug, Parser)]
#[command(name = "nova", version, max_term_width = 100, disable_help_subcommand = true)]
pub struct Cli {
    /// Where the api is.
    #[arg(long, global = true, env = "NOVA_URL", default_value = "http://127.0.0.1:7700", value_name = "URL")]
    pub url: String,
    /// Namespace.
    #[arg(long, short, global = true, env = "NOVA_NAMESPACE", default_value = "default")]
    pub namespace: String,
    /// How results are printed. `json` and `yaml` are stable.
    #[arg(long, short, global = true, value_enum, default_value_t = Format::Table)]
    pub output: Format,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Aligned columns for people.
    Table,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a whole cluster in this process, durable, in one directory.
    #[command(after_help = "Examples:\n  nova dev\n  nova dev --data /var/tmp/nova --port 7700")]
    Dev(Dev),
    /// Start one service as its own process.
    #[command(
        after_help = "Examples:\n  nova serve coordinator --config coordinator.toml\n  nova serve api --print-config"
    )]
    Serve(Serve),
    /// Check documents without a cluster; all problems at once.
    #[command(after_help = "Examples:\n  nova validate order.yaml\n  nova validate examples/*.yaml -o json")]
    Validate(Files),
    /// Store workflows; a changed document becomes a new version.
    #[command(after_help = "Examples:\n  nova apply order.yaml\n  nova apply -n shop order.yaml refund.yaml")]
    Apply(Files),
    /// Start an execution and show its graph live until it ends.
    #[command(
        after_help = "Examples:\n  nova run hello\n  nova run order.yaml --input '{\"orderId\": \"7\"}'\n  nova run order --input @order.json --key order-7\n\nExit codes: 0 completed, 1 failed or cancelled, 2 usage, 3 refused, 4 not reachable or unknown."
    )]
    Run(Run),
    /// Show one execution, workflow or trigger, or its events.
    #[command(
        after_help = "Examples:\n  nova get execution 0a1b…\n  nova get workflow order -o yaml\n  nova get events 0a1b…"
    )]
    Get(Get),
    /// List executions, workflows, triggers or workers.
    #[command(
        after_help = "Examples:\n  nova list executions --state FAILED --limit 20\n  nova list workflows\n  nova list workers"
    )]
    List(List),
    /// Follow an execution until it ends.
    #[command(after_help = "Example:\n  nova watch 0a1b…")]
    Watch {
        /// Its id.
        execution: String,
    },
    /// End an execution early.
    #[command(after_help = "Example:\n  nova cancel 0a1b… --reason 'ordered twice' --yes")]
    Cancel {
        /// Its id.
        execution: String,
        /// For people.
        #[arg(long, default_value = "")]
        reason: String,
        /// Do not ask.
        #[arg(long, short)]
        yes: bool,
    },
    /// Workers.
    #[command(subcommand)]
    Worker(Worker),
    /// Triggers.
    #[command(subcommand)]
    Trigger(Trigger),
    /// Care of a cluster.
    #[command(subcommand)]
    Admin(Admin),
    /// Look at a cluster, and say what is wrong and what to do about it.
    #[command(
        after_help = "Examples:\n  nova doctor\n  nova doctor --coordinator http://a:7710 --api http://b:7700 --bootstrap kafka-1:9092\n  nova doctor --config scheduler.toml --json\n\nExit codes: 0 all is well, 1 warnings, 3 something does not work, 2 usage."
    )]
    Doctor(Doctor),
    /// Print a shell completion script.
    #[command(after_help = "Example:\n  nova completion bash > /etc/bash_completion.d/nova")]
    Completion {
        /// Which shell.
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
}

/// `nova dev`.
#[derive(Args, Debug)]
pub struct Dev {
    /// Directory of all data.
    #[arg(long, env = "NOVA_DATA", default_value = "data")]
    pub data: PathBuf,
    /// Port of the api on 127.0.0.1; 0 picks a free one.
    #[arg(long, default_value_t = 7700)]
    pub port: u16,
    /// Slots of the worker.
    #[arg(long, default_value_t = 256)]
    pub slots: u32,
    /// Let `http` nodes reach this machine and private networks.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL")]
    pub allow_private: bool,
    /// Send traces there (OTLP over gRPC).
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL")]
    pub otlp: Option<String>,
    /// Share of executions that are traced, 0.0 to 1.0, when the request does not say with `traceparent`.
    #[arg(long, default_value_t = 1.0, value_name = "SHARE")]
    pub trace_ratio: f64,
    /// Print `ready <url>` on stdout once everything answers.
    #[arg(long)]
    pub announce: bool,
    /// Log every attempt of the worker there, synced, for verification.
    #[arg(long, hide = true)]
    pub ledger: Option<PathBuf>,
    /// Name of the cluster; data of another one is refused. A restored backup gets a new name.
    #[arg(long, default_value = nova_all_in_one::CLUSTER, value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub cluster: String,
    /// Coordinators that run elsewhere, of this cluster with 8 shards, instead of one in this process.
    #[arg(long = "coordinator", hide = true, value_name = "URL")]
    pub coordinators: Vec<String>,
}

/// `nova serve`.
#[derive(Args, Debug)]
pub struct Serve {
    /// Which service.
    #[arg(value_enum)]
    pub service: Service,
    /// Its config file (TOML).
    #[arg(long, short)]
    pub config: Option<PathBuf>,
    /// Set one field: `--set listen=127.0.0.1:7701`.
    #[arg(long = "set", value_name = "FIELD=VALUE")]
    pub overrides: Vec<String>,
    /// Print what is in force, and stop.
    #[arg(long)]
    pub print_config: bool,
}

/// A service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Service {
    /// A member of the replicated state.
    Coordinator,
    /// Carries commands to the coordinator and its messages to the bus.
    Scheduler,
    /// Runs attempts.
    Worker,
    /// Starts executions from schedules and topics.
    Trigger,
    /// REST.
    Api,
}

/// Documents.
#[derive(Args, Debug)]
pub struct Files {
    /// YAML or JSON documents; `-` reads standard input.
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
}

/// `nova run`.
#[derive(Args, Debug)]
pub struct Run {
    /// Name of a stored workflow, or a document to apply first.
    pub workflow: String,
    /// Version; the newest when left out.
    #[arg(long)]
    pub version: Option<u32>,
    /// Input as JSON, `@file`, or `-` for standard input.
    #[arg(long, short, default_value = "{}")]
    pub input: String,
    /// Idempotency key: the same key starts one execution only.
    #[arg(long, short)]
    pub key: Option<String>,
    /// Labels: `--label team=orders`.
    #[arg(long = "label", value_name = "NAME=VALUE")]
    pub labels: Vec<String>,
    /// Print the id and return.
    #[arg(long)]
    pub detach: bool,
}

/// `nova get`.
#[derive(Args, Debug)]
pub struct Get {
    /// What.
    #[arg(value_enum)]
    pub kind: GetKind,
    /// Id or name.
    pub name: String,
    /// Version of a workflow; the newest when left out.
    #[arg(long)]
    pub version: Option<u32>,
}

/// What can be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum GetKind {
    /// An execution.
    #[value(alias = "executions", alias = "e")]
    Execution,
    /// A workflow.
    #[value(alias = "workflows", alias = "w")]
    Workflow,
    /// The events of an execution.
    Events,
    /// The output or error of an execution.
    Result,
}

/// `nova list`.
#[derive(Args, Debug)]
pub struct List {
    /// What.
    #[arg(value_enum)]
    pub kind: ListKind,
    /// Only executions in this state: RUNNING, COMPLETED, FAILED, CANCELLED.
    #[arg(long)]
    pub state: Option<String>,
    /// Only executions of this workflow.
    #[arg(long)]
    pub workflow: Option<String>,
    /// At most this many.
    #[arg(long, default_value_t = 50)]
    pub limit: u32,
    /// Go on where the answer before ended.
    #[arg(long)]
    pub cursor: Option<String>,
}

/// What can be listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ListKind {
    /// Executions, newest first.
    #[value(alias = "execution", alias = "e")]
    Executions,
    /// Newest versions of workflows.
    #[value(alias = "workflow", alias = "w")]
    Workflows,
    /// Triggers.
    #[value(alias = "trigger", alias = "t")]
    Triggers,
    /// Workers.
    #[value(alias = "worker")]
    Workers,
}

/// `nova worker`.
#[derive(Debug, Subcommand)]
pub enum Worker {
    /// All workers, their slots and leases.
    List,
    /// Give a worker no new attempts; it finishes those it has.
    Drain {
        /// Its name.
        name: String,
        /// Take the drain back.
        #[arg(long)]
        undo: bool,
    },
}

/// `nova trigger`.
#[derive(Debug, Subcommand)]
pub enum Trigger {
    /// Create or change a trigger from a JSON or YAML file.
    Apply {
        /// `{ id, workflow, type: cron | kafka, … }`; `-` reads standard input.
        file: PathBuf,
    },
    /// All triggers of the namespace.
    List,
    /// Remove a trigger; its position is forgotten.
    Delete {
        /// Its id.
        id: String,
        /// Do not ask.
        #[arg(long, short)]
        yes: bool,
    },
}

/// `nova doctor`.
#[derive(Args, Debug)]
pub struct Doctor {
    /// Where the coordinators are; one that answers is enough to find the others.
    #[command(flatten)]
    pub at: Coordinators,
    /// Apis, whose histories are looked at.
    #[arg(long = "api", value_delimiter = ',', value_name = "URL")]
    pub apis: Vec<String>,
    /// Config file of any service, which tells coordinators, bus and api.
    #[arg(long, short)]
    pub config: Option<PathBuf>,
    /// Kafka brokers, whose topics are looked at.
    #[arg(long)]
    pub bootstrap: Option<String>,
    /// Prefix of all topic names.
    #[arg(long, default_value = "")]
    pub prefix: String,
    /// Copies that each record should have.
    #[arg(long, default_value_t = 3)]
    pub replicas: u16,
    /// Partitions that the event topic should have.
    #[arg(long, default_value_t = nova_bus::Layout::default().events)]
    pub events: u32,
    /// The same as `--output json`.
    #[arg(long)]
    pub json: bool,
    /// How far a clock may be off the median of the members, in milliseconds; ten times as much fails.
    #[arg(long, default_value_t = 500)]
    pub max_skew_ms: u64,
    /// How long the median sync of a log may take, in milliseconds; ten times as much fails.
    #[arg(long, default_value_t = 50)]
    pub max_sync_ms: u64,
    /// Free part of each disk, in percent; a quarter of it fails.
    #[arg(long, default_value_t = 10)]
    pub min_free_percent: u64,
    /// Entries of the log that a member may lack after a second, or have and not have applied.
    #[arg(long, default_value_t = 1_000)]
    pub max_lag_entries: u64,
    /// Commands of one shard, and records of events, that may wait; ten times as many fail.
    #[arg(long, default_value_t = 1_000)]
    pub max_lag_records: u64,
}

/// `nova admin`.
#[derive(Debug, Subcommand)]
pub enum Admin {
    /// Create the topics of a cluster with the right settings, or check them.
    #[command(after_help = "Example:\n  nova admin topics --bootstrap 127.0.0.1:9092 --shards 24 --replicas 3")]
    Topics {
        /// Kafka brokers.
        #[arg(long)]
        bootstrap: String,
        /// Shards of the cluster; fixed when the cluster is made.
        #[arg(long, default_value_t = nova_bus::Layout::default().shards)]
        shards: u32,
        /// Partitions of the event topic; fixed too.
        #[arg(long, default_value_t = 4)]
        events: u32,
        /// Partitions of the task topic (inboxes); each serves at most 8 workers.
        #[arg(long, default_value_t = 64)]
        inboxes: u32,
        /// Copies of each record.
        #[arg(long, default_value_t = 3)]
        replicas: u16,
        /// Prefix of all topic names.
        #[arg(long, default_value = "")]
        prefix: String,
    },
    /// Members of the coordinator, leader, log positions.
    Members(Coordinators),
    /// Add a member that was started with an empty directory.
    AddMember {
        /// Where the coordinators are.
        #[command(flatten)]
        at: Coordinators,
        /// Its id; never one that was used before.
        id: u64,
        /// Its address: http://host:port.
        address: String,
    },
    /// Remove a member.
    RemoveMember {
        /// Where the coordinators are.
        #[command(flatten)]
        at: Coordinators,
        /// Its id.
        id: u64,
        /// Do not ask.
        #[arg(long, short)]
        yes: bool,
    },
    /// Put a new member in the place of one that is lost, and wait until it has all that it had.
    #[command(
        after_help = "Start the new member first: an empty directory, a number that was never used, members=[].\n\nExample:\n  nova admin replace --member 2 --with 4@http://10.0.0.4:7710"
    )]
    Replace {
        /// Where the coordinators are.
        #[command(flatten)]
        at: Coordinators,
        /// The member that is lost.
        #[arg(long)]
        member: u64,
        /// The new one: `4@http://host:port`.
        #[arg(long, value_parser = member)]
        with: Member,
        /// Also when the old one answers.
        #[arg(long)]
        force: bool,
        /// Do not ask.
        #[arg(long, short)]
        yes: bool,
    },
    /// Shards, owners, positions, backlog.
    Shards(Coordinators),
    /// Write a snapshot now.
    Snapshot(Coordinators),
    /// Let the cluster do what the new build knows, once all members run it. Older builds cannot start any more.
    #[command(after_help = "Example:\n  nova admin raise-level --yes")]
    RaiseLevel {
        /// Where the coordinators are.
        #[command(flatten)]
        at: Coordinators,
        /// The level; the highest that all members know when left out.
        #[arg(long)]
        to: Option<u32>,
        /// Do not ask.
        #[arg(long, short)]
        yes: bool,
    },
    /// Copy the whole state into a file, while the cluster works.
    #[command(after_help = "Example:\n  nova admin backup --to nova-2026-11-22.backup")]
    Backup {
        /// Where the coordinators are.
        #[command(flatten)]
        at: Coordinators,
        /// The file; there must be none of that name.
        #[arg(long)]
        to: PathBuf,
    },
    /// Read a backup through, and say what it is of.
    Verify {
        /// The backup.
        #[arg(long)]
        from: PathBuf,
    },
    /// Make the directory of the first member of a cluster that begins with a backup.
    #[command(
        after_help = "A name other than that of the backup makes a new cluster: give it topics of its own, empty ones.\nThe same name goes on with the topics of the old cluster, all members of which must be gone for ever.\n\nExamples:\n  nova admin restore --from nova.backup --cluster shop2 --data data/coordinator --member 1@http://10.0.0.1:7710\n  nova admin restore --from nova.backup --cluster shop --data data/coordinator --member 4@http://10.0.0.1:7710,5@http://10.0.0.2:7710,6@http://10.0.0.3:7710"
    )]
    Restore {
        /// The backup.
        #[arg(long)]
        from: PathBuf,
        /// Name of the cluster that it becomes.
        #[arg(long)]
        cluster: String,
        /// Directory of the first member; it must not be there, or be empty.
        #[arg(long)]
        data: PathBuf,
        /// All members, `1@http://host:port`, the one whose directory it is first. The others begin empty.
        #[arg(long = "member", value_parser = member, value_delimiter = ',', required = true)]
        members: Vec<Member>,
        /// What holds its log.
        #[arg(long, value_enum, default_value_t = Log::File)]
        log: Log,
    },
    /// UNSAFE: go on with one member after the majority is lost for ever. What only the others had is gone.
    #[command(
        after_help = "Works on the directory of a member that has stopped. The others must never start again.\n\nExample:\n  nova admin recover --data data/coordinator --member 4@http://10.0.0.1:7710 --i-accept-data-loss"
    )]
    Recover {
        /// Directory of the member that is left.
        #[arg(long)]
        data: PathBuf,
        /// The number under which it goes on, never used before, and its address: `4@http://host:port`.
        #[arg(long, value_parser = member)]
        member: Member,
        /// Name of its cluster, where the directory does not tell it.
        #[arg(long)]
        cluster: Option<String>,
        /// Without this nothing is done.
        #[arg(long)]
        i_accept_data_loss: bool,
    },
    /// Create or change a namespace.
    Namespace {
        /// Where the coordinators are.
        #[command(flatten)]
        at: Coordinators,
        /// Its name.
        name: String,
        /// Open executions at once.
        #[arg(long, default_value_t = 1_000_000)]
        max_open_executions: u64,
        /// Idempotency keys remembered at once.
        #[arg(long, default_value_t = 1_000_000)]
        max_keys: u64,
    },
    /// Read the whole event topic again into an api's history (the api must be stopped).
    RebuildHistory {
        /// The api's config file.
        #[arg(long, short)]
        config: PathBuf,
        /// Do not ask.
        #[arg(long, short)]
        yes: bool,
    },
}

/// A member: number and address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its number.
    pub id: u64,
    /// `http://host:port`.
    pub address: String,
}

fn member(text: &str) -> Result<Member, String> {
    let wrong = || format!("'{text}' is not <id>@http://<host>:<port>");
    let (id, address) = text.split_once('@').ok_or_else(wrong)?;
    let id = id.parse().ok().filter(|id| *id > 0).ok_or_else(wrong)?;
    if !address.starts_with("http://") && !address.starts_with("https://") {
        return Err(wrong());
    }
    Ok(Member { id, address: address.to_owned() })
}

/// What holds a member's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Log {
    /// Segmented files.
    File,
    /// A sled database.
    Sled,
}

/// Where the coordinators are.
#[derive(Args, Debug)]
pub struct Coordinators {
    /// Addresses of members.
    #[arg(
        long = "coordinator",
        env = "NOVA_COORDINATORS",
        value_delimiter = ',',
        default_value = DEFAULT_COORDINATOR
    )]
    pub addresses: Vec<String>,
}

/// Where `nova dev` has its coordinator.
const DEFAULT_COORDINATOR: &str = "http://127.0.0.1:7710";

impl Coordinators {
    /// Whether nobody named any.
    pub fn is_default(&self) -> bool {
        self.addresses == [DEFAULT_COORDINATOR]
    }
}
