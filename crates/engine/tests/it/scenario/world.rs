//! A group with two shards, driven by commands in words.
//!
//! Entries: `workflow NAME [in NAMESPACE] [hash N]` (its program in lines with `|`), `namespace NAME [open N] [keys N]`,
//! `trigger ID NAME`, `delete-trigger ID`, `grant [shard N] owner N [after N]`, `worker NAME [slots N] [pool P]
//! [kinds A,B] [last N] [fenced] [inboxes N]`, `close|lost NAME [session N] [term N]`, `drain|undrain NAME`,
//! `requeue NAME [session N] [seen N] [after N] [held T,T]`, `tick [MS]`, `again` (the last entry once more).
//!
//! A proposal: `[propose [shard N] [epoch N] [offset N] [before N] [acked N]:] COMMAND [; COMMAND]… [& COMMAND]…`, where
//! `;` begins a new record and `&` does not. Commands: `submit [w NAME] [v N] [hash N] [ns NAME] [shard N] [key K]
//! [source S N] [content N] [input JSON] [id eN] [quiet]`, `cancel eN [REASON]`, `complete X [JSON]`, `fail X CODE
//! [final] [after MS]`, `stopped X`, `declined X`; evaluations: `run X [JSON]`, `skip X`, `done X [JSON] [cases N,…]
//! [set VAR=JSON]…`, `chosen X N,…`, `until X MS`, `for X MS`, `evalfail X CODE`. X is a token (`t7`) or the id of a node,
//! then the newest assignment or offer of it: `[eN/]ID[@SCOPE]`; `output[@SCOPE]` is the output of a scope.
//!
//! Looking: `show eN`, `stats`, `outbox`, `due`, `clock MS` (time passes without an entry), `silent COMMAND`.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use nova_engine::ids::{
    Epoch, ExecutionId, Offset, OwnerId, ScopeId, Seq, SessionId, ShardId, TimeMs, Token, WorkerId,
};
use nova_engine::input::{
    Command, Dedupe, Entry, EntryBody, LeaseRef, Local, LocalOutcome, Namespace, Proposal, PutWorkflow, Record,
    Register, ReplyTo, Submit, TaskOutcome, TaskResult, Trigger, VarWrite,
};
use nova_engine::output::{MessageBody, Offer, Subject, Verdict};
use nova_engine::payload::Payload;
use nova_engine::{Config, State};
use nova_program::{NodeIx, Program, VarIx};

use super::render;
use crate::rig::{checksum, failure, json, submission};

pub struct World {
    pub state: State,
    now: u64,
    index: u64,
    last: Option<EntryBody>,
    executions: Vec<(ExecutionId, Arc<Program>)>,
    /// Token, lease, and what the node is called.
    leases: Vec<(LeaseRef, String)>,
    offers: Vec<(Token, ExecutionId, String)>,
    shown: BTreeSet<Token>,
    seen: [Seq; 2],
    requests: u64,
}

/// The words of a command, taken from the left.
struct Words<'a> {
    place: &'a str,
    words: Vec<&'a str>,
    at: usize,
}

impl<'a> Words<'a> {
    fn new(place: &'a str, text: &'a str) -> Self {
        Self { place, words: text.split_whitespace().collect(), at: 0 }
    }

    fn maybe(&mut self) -> Option<&'a str> {
        let word = self.words.get(self.at).copied();
        self.at += usize::from(word.is_some());
        word
    }

    fn next(&mut self, what: &str) -> &'a str {
        self.maybe().unwrap_or_else(|| panic!("{}: {what} is missing", self.place))
    }

    fn number(&mut self) -> u64 {
        let word = self.next("a number");
        word.parse().unwrap_or_else(|_| panic!("{}: {word} is no number", self.place))
    }

    fn rest(&mut self) -> String {
        let rest = self.words[self.at..].join(" ");
        self.at = self.words.len();
        rest
    }

    fn unknown(&self, word: &str) -> ! {
        panic!("{}: {word} is not understood", self.place)
    }
}

impl World {
    pub fn new() -> Self {
        let mut world = Self {
            state: State::new(Config { shards: 2 }),
            now: 0,
            index: 0,
            last: None,
            executions: Vec::new(),
            leases: Vec::new(),
            offers: Vec::new(),
            shown: BTreeSet::new(),
            seen: [Seq(0); 2],
            requests: 0,
        };
        for shard in 0..2 {
            let grant = EntryBody::Grant { shard: ShardId(shard), after: Epoch(0), owner: OwnerId(1) };
            world.apply(grant);
        }
        world
    }

    fn apply(&mut self, body: EntryBody) -> Verdict {
        self.index += 1;
        self.last = Some(body.clone());
        let verdict = self.state.apply(&Entry { now: TimeMs(self.now), index: self.index, term: 1, body });
        crate::invariants::check(&self.state);
        verdict
    }

    /// Does what a command says and tells what it came to.
    pub fn command(&mut self, place: &str, text: &str, block: &str) -> Vec<String> {
        let mut words = Words::new(place, text);
        match words.next("a command") {
            "silent" => {
                let rest = words.rest();
                self.command(place, &rest, block);
                vec![]
            }
            "show" => self.show(words.next("an execution"), place),
            "stats" => self.stats(),
            "outbox" => {
                let outbox = &self.state.shards[0].outbox;
                vec![format!("acked {} last {} bytes {}", outbox.acked, outbox.last(), outbox.bytes)]
            }
            "due" => vec![self.state.next_due().map_or("nothing".into(), |due| due.to_string())],
            "clock" => {
                self.now += words.number();
                vec![]
            }
            first => {
                let body = self.entry(first, &mut words, text, block);
                let verdict = self.apply(body);
                let mut said: Vec<String> = self.verdict(&verdict).into_iter().collect();
                self.news(&mut said);
                said
            }
        }
    }

    fn entry(&mut self, first: &str, words: &mut Words<'_>, text: &str, block: &str) -> EntryBody {
        match first {
            "again" => self.last.clone().expect("there was an entry before"),
            "tick" => {
                self.now += words.maybe().map_or(0, |ms| ms.parse().expect("milliseconds"));
                EntryBody::Tick
            }
            "workflow" => {
                let name = words.next("a name");
                let (mut namespace, mut hash) = ("default", 7);
                while let Some(word) = words.maybe() {
                    match word {
                        "in" => namespace = words.next("a namespace"),
                        "hash" => hash = words.number() as u8,
                        other => words.unknown(other),
                    }
                }
                EntryBody::PutWorkflow(PutWorkflow {
                    namespace: namespace.into(),
                    name: name.into(),
                    hash: [hash; 32],
                    program: Arc::new(crate::build::program(block)),
                    document: Bytes::from_static(b"{}"),
                })
            }
            "namespace" => {
                let name = words.next("a name").into();
                let mut namespace = Namespace { name, max_open_executions: 1_000, max_keys: 1_000 };
                while let Some(word) = words.maybe() {
                    match word {
                        "open" => namespace.max_open_executions = words.number(),
                        "keys" => namespace.max_keys = words.number(),
                        other => words.unknown(other),
                    }
                }
                EntryBody::PutNamespace(namespace)
            }
            "trigger" => EntryBody::PutTrigger(Trigger {
                namespace: "default".into(),
                id: words.next("an id").into(),
                workflow: words.next("a workflow").into(),
                spec: Bytes::from_static(b"{}"),
            }),
            "delete-trigger" => {
                EntryBody::DeleteTrigger { namespace: "default".into(), id: words.next("an id").into() }
            }
            "grant" => {
                let (mut shard, mut owner, mut after) = (0, 1, None);
                while let Some(word) = words.maybe() {
                    match word {
                        "shard" => shard = words.number() as u16,
                        "owner" => owner = words.number(),
                        "after" => after = Some(words.number()),
                        other => words.unknown(other),
                    }
                }
                let current = self.state.shard(ShardId(shard)).map_or(0, |shard| shard.epoch.0);
                EntryBody::Grant {
                    shard: ShardId(shard),
                    after: Epoch(after.unwrap_or(current)),
                    owner: OwnerId(owner),
                }
            }
            "worker" => EntryBody::Register(register(words)),
            "recover" => EntryBody::Recover { new_bus: words.maybe() == Some("new-bus") },
            "raise" => EntryBody::RaiseLevel { to: words.number() as u32 },
            "close" | "lost" | "drain" | "undrain" | "requeue" => self.about_worker(first, words),
            _ => EntryBody::Propose(self.proposal(words.place, text)),
        }
    }

    fn about_worker(&mut self, what: &str, words: &mut Words<'_>) -> EntryBody {
        let name = words.next("a worker");
        let worker = self.state.workers.by_name.get(name).copied().unwrap_or(WorkerId(99));
        let mut session = self.state.worker(worker).map_or(SessionId(0), |worker| worker.session);
        let (mut term, mut seen, mut last_result, mut held) = (1, vec![], vec![], vec![]);
        while let Some(word) = words.maybe() {
            match word {
                "session" => session = SessionId(words.number()),
                "term" => term = words.number(),
                "seen" => seen.push((ShardId(0), Seq(words.number()))),
                "after" => last_result.push((ShardId(0), Offset(words.number()))),
                "held" => held.extend(words.next("tokens").split(',').map(token)),
                other => words.unknown(other),
            }
        }
        match what {
            "close" => EntryBody::Close { worker, session },
            "lost" => EntryBody::SessionLost { worker, session, counted_in_term: term },
            "requeue" => EntryBody::Requeue { worker, session, seen, last_result, held },
            _ => EntryBody::Drain { worker, draining: what == "drain" },
        }
    }

    fn proposal(&mut self, place: &str, text: &str) -> Proposal {
        let (head, commands) = match text.strip_prefix("propose") {
            Some(rest) => rest.split_once(':').unwrap_or((rest, "")),
            None => ("", text),
        };
        let mut words = Words::new(place, head);
        let (mut shard, mut epoch, mut offset, mut before, mut acked) = (ShardId(0), None, None, None, Seq(0));
        while let Some(word) = words.maybe() {
            match word {
                "shard" => shard = ShardId(words.number() as u16),
                "epoch" => epoch = Some(Epoch(words.number())),
                "offset" => offset = Some(words.number()),
                "before" => before = Some(words.number()),
                "acked" => acked = Seq(words.number()),
                other => words.unknown(other),
            }
        }
        let at = self.state.position(shard);
        let first = offset.or(at.map(|at| at.next_offset.0)).unwrap_or(0);
        let (mut records, mut locals) = (Vec::new(), Vec::new());
        for part in commands.split(';').map(str::trim).filter(|part| !part.is_empty()) {
            let mut in_record = Vec::new();
            let mut is_record = false;
            for one in part.split('&').map(str::trim) {
                match self.one(&mut Words::new(place, one)) {
                    Said::Command(command) => in_record.push(command),
                    Said::Local(local) => locals.push(local),
                    Said::Nothing => is_record = true,
                }
            }
            if is_record || !in_record.is_empty() {
                let offset = first + records.len() as u64;
                records.push(Record { offset: Offset(offset), checksum: checksum(offset), commands: in_record });
            }
        }
        Proposal {
            shard,
            epoch: epoch.or(at.map(|at| at.epoch)).unwrap_or_default(),
            first_offset: Offset(first),
            next_offset: Offset(first + records.len() as u64),
            before: before.unwrap_or(if first == 0 { 0 } else { checksum(first - 1) }),
            records,
            locals,
            outbox_acked: acked,
        }
    }

    fn one(&mut self, words: &mut Words<'_>) -> Said {
        let first = words.next("a command");
        Said::Command(match first {
            "empty" => return Said::Nothing,
            "submit" => Command::Submit(self.submit(words)),
            "cancel" => {
                let execution = self.execution(words.place, words.next("an execution"));
                self.requests += 1;
                let reply_to = Some(ReplyTo { inbox: 0, boot: 1, request: self.requests });
                Command::Cancel { execution, reason: words.rest().into(), reply_to }
            }
            "complete" => {
                let lease = self.lease(words);
                let outcome = TaskOutcome::Completed(json(words.maybe().unwrap_or("1")));
                Command::Result(TaskResult { lease, outcome })
            }
            "fail" => {
                let lease = self.lease(words);
                let mut why = failure(words.next("a code"), true);
                while let Some(word) = words.maybe() {
                    match word {
                        "final" => why.retryable = false,
                        "after" => why.retry_after_ms = Some(words.number()),
                        other => words.unknown(other),
                    }
                }
                Command::Result(TaskResult { lease, outcome: TaskOutcome::Failed(why) })
            }
            "stopped" => Command::Stopped { lease: self.lease(words) },
            "declined" => Command::Declined { lease: self.lease(words), reason: "full".into() },
            _ => return Said::Local(self.local(first, words)),
        })
    }

    fn local(&mut self, what: &str, words: &mut Words<'_>) -> Local {
        let name = words.next("an offer");
        let known = self.offers.iter().rev().find(|(token, id, known)| self.named(*token, *id, known, name));
        let (token, execution) =
            known.map(|(token, id, _)| (*token, *id)).unwrap_or_else(|| panic!("{}: no offer {name}", words.place));
        let outcome = match what {
            "run" => LocalOutcome::Run { with: words.maybe().map(json) },
            "skip" => LocalOutcome::Skip,
            "until" => LocalOutcome::WaitUntil(TimeMs(words.number())),
            "for" => LocalOutcome::WaitFor { ms: words.number() },
            "evalfail" => LocalOutcome::Failed(failure(words.next("a code"), false)),
            "chosen" | "done" => {
                let (mut output, mut cases, mut sets) = (Payload::null(), 0, vec![]);
                if what == "chosen" {
                    cases = bits(words.next("cases"));
                }
                while let Some(word) = words.maybe() {
                    match word {
                        "cases" => cases = bits(words.next("cases")),
                        "set" => {
                            let (name, value) = words.next("a variable").split_once('=').expect("VAR=JSON");
                            sets.push(VarWrite { var: self.var(execution, name), value: json(value) });
                        }
                        value => output = json(value),
                    }
                }
                if what == "chosen" {
                    LocalOutcome::Chosen { cases, sets }
                } else {
                    LocalOutcome::Done { output, cases, sets }
                }
            }
            other => words.unknown(other),
        };
        Local { execution, token, outcome }
    }

    fn submit(&mut self, words: &mut Words<'_>) -> Submit {
        self.requests += 1;
        let mut submit = submission(ExecutionId(0), self.requests);
        let (mut shard, mut known) = (ShardId(0), None);
        while let Some(word) = words.maybe() {
            match word {
                "w" => submit.workflow = words.next("a workflow").into(),
                "v" => submit.version = words.number() as u32,
                "hash" => submit.hash = [words.number() as u8; 32],
                "ns" => submit.namespace = words.next("a namespace").into(),
                "shard" => shard = ShardId(words.number() as u16),
                "key" => submit.dedupe = Dedupe::Key(words.next("a key").into()),
                "source" => {
                    let source = words.next("a source").into();
                    submit.dedupe = Dedupe::Source { source, number: words.number() };
                }
                "content" => submit.content_hash = [words.number() as u8; 32],
                "input" => submit.input = json(words.next("an input")),
                "large" => submit.input = json(&format!("\"{}\"", "x".repeat(20_000))),
                "id" => known = Some(self.execution(words.place, words.next("an execution"))),
                "quiet" => submit.reply_to = None,
                other => words.unknown(other),
            }
        }
        let number = self.executions.len() as u64 + 1;
        submit.execution = known.unwrap_or_else(|| {
            let id = ExecutionId::new(shard, self.now, number);
            let version = self.state.workflow(&submit.namespace, &submit.workflow, Some(submit.version));
            let program = version.map_or_else(|| Arc::new(Program::default()), |version| version.program.clone());
            self.executions.push((id, program));
            id
        });
        submit
    }

    fn execution(&self, place: &str, name: &str) -> ExecutionId {
        let number = name.strip_prefix('e').and_then(|number| number.parse::<usize>().ok());
        let known = number.and_then(|number| self.executions.get(number.wrapping_sub(1)));
        known.unwrap_or_else(|| panic!("{place}: no execution {name}")).0
    }

    /// Whether `name` means a lease or offer.
    fn named(&self, token: Token, id: ExecutionId, known: &str, name: &str) -> bool {
        let (execution, name) = name.split_once('/').map_or((None, name), |(id, name)| (Some(id), name));
        let here = execution.is_none_or(|execution| self.execution_name(id) == execution);
        let bare = known.split_once('@').map_or(known, |(bare, _)| bare);
        here && (name == known || name == bare || name == render::token(token.0))
    }

    fn lease(&self, words: &mut Words<'_>) -> LeaseRef {
        let name = words.next("a lease");
        let found =
            self.leases.iter().rev().find(|(lease, known)| self.named(lease.token, lease.execution, known, name));
        found.unwrap_or_else(|| panic!("{}: no lease {name}", words.place)).0
    }

    fn program(&self, id: ExecutionId) -> Option<&Program> {
        self.executions.iter().find(|(known, _)| *known == id).map(|(_, program)| &**program)
    }

    pub fn execution_name(&self, id: ExecutionId) -> String {
        let at = self.executions.iter().position(|(known, _)| *known == id);
        at.map_or_else(|| id.to_string(), |at| format!("e{}", at + 1))
    }

    pub fn node_id(&self, id: ExecutionId, node: NodeIx) -> String {
        self.program(id).map_or_else(|| node.0.to_string(), |program| program.node(node).id.to_string())
    }

    pub fn node_name(&self, id: ExecutionId, scope: ScopeId, node: NodeIx) -> String {
        let at = if scope.0 == 0 { String::new() } else { format!("@{scope}") };
        format!("{}{at}", self.node_id(id, node))
    }

    pub fn var_name(&self, id: ExecutionId, var: VarIx) -> String {
        self.program(id).map_or_else(String::new, |program| program.variables[var.0 as usize].name.to_string())
    }

    fn var(&self, id: ExecutionId, name: &str) -> VarIx {
        let variables = &self.program(id).expect("a known execution").variables;
        VarIx(variables.iter().position(|variable| &*variable.name == name).expect("a variable") as u32)
    }

    /// Messages and offers that were not told yet.
    fn news(&mut self, said: &mut Vec<String>) {
        for shard in 0..2 {
            let news: Vec<_> =
                self.state.outbox(ShardId(shard), self.seen[usize::from(shard)], 5_000).cloned().collect();
            for message in news {
                self.seen[usize::from(shard)] = message.seq;
                if let MessageBody::Assign(it) = &message.body {
                    let name = self.node_name(it.lease.execution, it.scope, it.node);
                    self.leases.push((it.lease, name));
                }
                said.extend(self.message(&message));
            }
        }
        let offers: Vec<Offer> =
            (0..2).flat_map(|shard| self.state.offers(ShardId(shard), Token(0), usize::MAX)).collect();
        let live: BTreeSet<Token> = offers.iter().map(|offer| offer.token).collect();
        for offer in offers.iter().filter(|offer| !self.shown.contains(&offer.token)) {
            let name = match offer.subject {
                Subject::Prepare(node) | Subject::Finish(node) | Subject::Fallback(node) => {
                    self.node_name(offer.execution, offer.scope, node)
                }
                Subject::ScopeOutput(_) if offer.scope.0 == 0 => "output".into(),
                Subject::ScopeOutput(_) => format!("output@{}", offer.scope),
            };
            self.offers.push((offer.token, offer.execution, name));
            said.push(self.offer(offer));
        }
        self.shown = live;
    }

    fn show(&self, name: &str, place: &str) -> Vec<String> {
        let id = self.execution(place, name);
        let Some(view) = self.state.execution(id) else { return vec![format!("{name} is not open")] };
        let program = self.program(id).expect("a known execution");
        let mut said = vec![format!("{name} {}", format!("{:?}", view.state).to_lowercase())];
        for (scope_id, scope) in &view.execution.scopes {
            let first = program.body(scope.body).nodes.start;
            let nodes = scope
                .nodes
                .iter()
                .zip(first..)
                .map(|(record, ix)| format!("{}={}", program.node(NodeIx(ix)).id, render::state(record.state)));
            said.push(format!("  scope {scope_id}: {}", nodes.collect::<Vec<_>>().join(" ")));
        }
        said
    }

    fn stats(&self) -> Vec<String> {
        let group = self.state.group_stats();
        let shard = self.state.shard_stats(ShardId(0));
        vec![format!(
            "open {} keys {} offers {} queued {} timers {} leases {} slots {} sessions {} work {}",
            shard.open,
            shard.keys,
            shard.offers,
            group.queued,
            group.timers,
            group.leases,
            group.slots,
            group.sessions,
            self.state.work.len()
        )]
    }
}

enum Said {
    Command(Command),
    Local(Local),
    /// A record that could not be read.
    Nothing,
}

fn token(word: &str) -> Token {
    Token(word.trim_start_matches('t').parse().expect("a token"))
}

fn bits(cases: &str) -> u64 {
    cases.split(',').map(|case| 1 << case.parse::<u64>().expect("a case")).sum()
}

fn register(words: &mut Words<'_>) -> Register {
    let mut register = crate::rig::registration(words.next("a name"), 1, 0);
    while let Some(word) = words.maybe() {
        match word {
            "slots" => register.capacity = words.number() as u32,
            "pool" => register.pool = words.next("a pool").into(),
            "kinds" => register.kinds = words.next("kinds").split(',').map(Into::into).collect(),
            "last" => register.last_session = SessionId(words.number()),
            "fenced" => register.fenced = true,
            "inboxes" => register.inboxes = words.number() as u32,
            other => words.unknown(other),
        }
    }
    register
}
