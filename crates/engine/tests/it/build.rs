//! Small programs, written as text.
//!
//! ```text
//! list                      graph parallel 2 vars n=0
//!   a noop                    a noop
//!   b wait 500                b noop needs a.ok
//!   c noop retry 3 100        c noop needs a.error b.ok join any
//! ```
//! The first line of a body is `list|graph [NAME] [parallel N] [vars x=JSON …] [output [reads …]]`; the root also takes
//! `total MS` and `priority N`. `go NAME [next +N|end]` is a case without a body.
//!
//! A node is `id kind [needs x.port …] [join all|every|any|count N] [retry MAX DELAY [full|equal|only CODE|never CODE]]
//! [total|attempt|queue MS] [with JSON] [pool NAME] [when] [out] [fallback] [reads X …] [cases NAME …] [next +N|end]`.
//! Kinds: a kind of work, `wait MS`, `wait-until`, `think`, `choose` with bodies indented below it, or `group` with one.
//! `reads` names nodes, variables or `input`, and is what its prepare, finish and fallback read.

use std::collections::BTreeMap;

use nova_program::{
    Backoff, Body, BodyForm, BodyIx, Case, Edge, Jitter, Join, Jump, Node, NodeIx, NodeKind, Port, Program, Reads,
    Retry, ScopeOutput, Timeouts, VarIx, Variable, WaitTime, With,
};

struct Line<'a> {
    depth: usize,
    words: Vec<&'a str>,
}

/// Builds a program from its text; panics with the line where it makes no sense.
pub fn program(text: &str) -> Program {
    let lines: Vec<Line<'_>> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| Line { depth: line.len() - line.trim_start().len(), words: line.split_whitespace().collect() })
        .collect();
    let mut program = Program { priority: 5, ..Program::default() };
    let mut names = Names::default();
    build(&mut program, &lines[1..], &lines[0].words, None, 0, &mut names);
    connect(&mut program, names);
    program
}

fn form(word: &str) -> BodyForm {
    match word {
        "list" => BodyForm::List,
        "graph" => BodyForm::Graph,
        other => panic!("a body is list or graph, not {other}"),
    }
}

/// What is named before it is known.
#[derive(Default)]
struct Names {
    needs: Vec<(NodeIx, String, Port)>,
    reads: Vec<(NodeIx, String)>,
    output_reads: Vec<(BodyIx, String)>,
}

/// Words after the form of a body.
fn options(program: &mut Program, body: BodyIx, words: &[&str], names: &mut Names) {
    let mut at = 0;
    while at < words.len() {
        let word = words[at];
        at += 1;
        match word {
            "parallel" | "total" | "priority" => {
                let number: u64 = words[at].parse().unwrap_or_else(|_| panic!("a number in {words:?}"));
                match word {
                    "parallel" => program.bodies[body.0 as usize].parallel = number as u32,
                    "total" => program.timeouts.total_ms = Some(number),
                    _ => program.priority = number as u8,
                }
                at += 1;
            }
            "vars" => {
                let start = program.variables.len() as u32;
                while let Some((name, value)) = words.get(at).and_then(|word| word.split_once('=')) {
                    program.variables.push(Variable { name: name.into(), body, start: value.as_bytes().into() });
                    at += 1;
                }
                program.bodies[body.0 as usize].vars = start..program.variables.len() as u32;
            }
            "output" => program.bodies[body.0 as usize].output = ScopeOutput::Evaluated,
            "reads" => {
                names.output_reads.extend(words[at..].iter().map(|name| (body, (*name).to_owned())));
                at = words.len();
            }
            other => panic!("unknown word {other} in {words:?}"),
        }
    }
}

/// Nodes of a body are contiguous: first all of this body, then the bodies below it.
fn build(program: &mut Program, lines: &[Line<'_>], head: &[&str], owner: Option<NodeIx>, case: u8, names: &mut Names) {
    let form = form(head[0]);
    let body = BodyIx(program.bodies.len() as u32);
    let start = program.nodes.len() as u32;
    program.bodies.push(Body {
        form,
        nodes: start..start,
        owner,
        case,
        vars: 0..0,
        output: if form == BodyForm::List { ScopeOutput::LastStep } else { ScopeOutput::Evaluated },
        output_reads: Reads::default(),
        parallel: 0,
    });
    options(program, body, &head[1..], names);
    let depth = lines.first().map_or(0, |line| line.depth);
    let own: Vec<usize> = (0..lines.len()).filter(|i| lines[*i].depth == depth).collect();
    for index in &own {
        let node = node(&lines[*index], body, NodeIx(program.nodes.len() as u32), names);
        program.nodes.push(node);
    }
    program.bodies[body.0 as usize].nodes = start..program.nodes.len() as u32;
    for (position, index) in own.iter().enumerate() {
        let end = own.get(position + 1).copied().unwrap_or(lines.len());
        let inner = &lines[index + 1..end];
        let ix = NodeIx(start + position as u32);
        match lines[*index].words[1] {
            "group" => {
                let below = BodyIx(program.bodies.len() as u32);
                program.nodes[ix.0 as usize].kind = NodeKind::Scope(below);
                build(program, &inner[1..], &inner[0].words, Some(ix), 0, names);
            }
            "choose" => {
                let heads: Vec<usize> = (0..inner.len())
                    .filter(|i| inner.first().is_some_and(|first| inner[*i].depth == first.depth))
                    .collect();
                for (case, head) in heads.iter().enumerate() {
                    let stop = heads.get(case + 1).copied().unwrap_or(inner.len());
                    let words = &inner[*head].words;
                    let name = words[1].into();
                    if words[0] == "go" {
                        let next = words.get(3).map(|word| jump(ix, word));
                        program.nodes[ix.0 as usize].cases.push(Case { name, body: None, next });
                        continue;
                    }
                    let below = BodyIx(program.bodies.len() as u32);
                    program.nodes[ix.0 as usize].cases.push(Case { name, body: Some(below), next: None });
                    let words: Vec<_> = [words[0]].into_iter().chain(words[2..].iter().copied()).collect();
                    build(program, &inner[head + 1..stop], &words, Some(ix), case as u8, names);
                }
            }
            _ => {}
        }
    }
}

fn node(line: &Line<'_>, body: BodyIx, ix: NodeIx, names: &mut Names) -> Node {
    let words = &line.words;
    let number = |at: usize| words[at].parse::<u64>().unwrap_or_else(|_| panic!("a number in {words:?}"));
    let (kind, mut at) = match words[1] {
        "wait" => (NodeKind::Wait(WaitTime::ForMs(number(2))), 3),
        "wait-until" => (NodeKind::Wait(WaitTime::Evaluated), 2),
        "think" => (NodeKind::Think, 2),
        "choose" => (NodeKind::Choose, 2),
        "group" => (NodeKind::Think, 2),
        kind => (NodeKind::Work { kind: kind.into(), pool: "default".into(), with: With::Absent }, 2),
    };
    let mut node = Node {
        id: words[0].into(),
        prepare: matches!(words[1], "think" | "choose" | "wait-until"),
        kind,
        body,
        in_degree: 0,
        join: Join::All,
        edges: 0..0,
        cases: Vec::new(),
        next: None,
        prepare_reads: Reads::default(),
        finish: false,
        finish_reads: Reads::default(),
        fallback: false,
        fallback_reads: Reads::default(),
        retry: None,
        timeouts: Timeouts::default(),
    };
    while at < words.len() {
        let word = words[at];
        at += 1;
        match word {
            "needs" => {
                while at < words.len() && words[at].contains('.') {
                    let (source, port) = words[at].split_once('.').expect("checked");
                    let port = match port {
                        "ok" => Port::Ok,
                        "error" => Port::Error,
                        "timeout" => Port::Timeout,
                        "ended" => Port::Ended,
                        case => Port::Case(case.parse().unwrap_or_else(|_| panic!("a port in {words:?}"))),
                    };
                    names.needs.push((ix, source.to_owned(), port));
                    at += 1;
                }
            }
            "join" => {
                node.join = match words[at] {
                    "all" => Join::All,
                    "every" => Join::Every,
                    "any" => Join::Any,
                    "count" => {
                        at += 1;
                        Join::Count(number(at) as u16)
                    }
                    other => panic!("a join, not {other}"),
                };
                at += 1;
            }
            "retry" => {
                let initial_ms = number(at + 1);
                let backoff = Backoff { initial_ms, factor_milli: 2000, max_delay_ms: 60_000, jitter: Jitter::None };
                let mut retry = Retry { max_attempts: number(at) as u32, backoff, only: vec![], never: vec![] };
                at += 2;
                loop {
                    match words.get(at) {
                        Some(&"full") => retry.backoff.jitter = Jitter::Full,
                        Some(&"equal") => retry.backoff.jitter = Jitter::Equal,
                        Some(&"only") => {
                            at += 1;
                            retry.only.push(words[at].into());
                        }
                        Some(&"never") => {
                            at += 1;
                            retry.never.push(words[at].into());
                        }
                        _ => break,
                    }
                    at += 1;
                }
                node.retry = Some(retry);
            }
            "total" | "attempt" | "queue" => {
                let ms = Some(number(at));
                match word {
                    "total" => node.timeouts.total_ms = ms,
                    "attempt" => node.timeouts.attempt_ms = ms,
                    _ => node.timeouts.queue_ms = ms,
                }
                at += 1;
            }
            "with" | "pool" => {
                let NodeKind::Work { with, pool, .. } = &mut node.kind else { panic!("not work: {words:?}") };
                match (word, words[at]) {
                    ("pool", name) => *pool = name.into(),
                    (_, "evaluated") => {
                        *with = With::Evaluated;
                        node.prepare = true;
                    }
                    (_, json) => *with = With::Constant(json.as_bytes().into()),
                }
                at += 1;
            }
            "reads" => {
                names.reads.extend(words[at..].iter().map(|name| (ix, (*name).to_owned())));
                at = words.len();
            }
            "when" => node.prepare = true,
            "out" => node.finish = true,
            "fallback" => node.fallback = true,
            "cases" => {
                while at < words.len() {
                    node.cases.push(Case { name: words[at].into(), body: None, next: None });
                    at += 1;
                }
            }
            "next" => {
                node.next = Some(jump(ix, words[at]));
                at += 1;
            }
            other => panic!("unknown word {other} in {words:?}"),
        }
    }
    node
}

/// Only forward jumps, by distance: `+2`, or `end`.
fn jump(from: NodeIx, word: &str) -> Jump {
    match word {
        "end" => Jump::End,
        distance => Jump::To(NodeIx(from.0 + distance.trim_start_matches('+').parse::<u32>().expect("distance"))),
    }
}

fn read(program: &Program, reads: &mut Reads, name: &str) {
    let nodes = program.nodes.iter().position(|node| &*node.id == name);
    let vars = program.variables.iter().position(|variable| &*variable.name == name);
    match (nodes, vars) {
        _ if name == "input" => reads.input = true,
        (Some(node), _) => reads.nodes.push(NodeIx(node as u32)),
        (_, Some(var)) => reads.vars.push(VarIx(var as u32)),
        _ => panic!("nothing is called {name}"),
    }
}

fn connect(program: &mut Program, names: Names) {
    let by_id: BTreeMap<String, NodeIx> =
        program.nodes.iter().enumerate().map(|(i, n)| (n.id.to_string(), NodeIx(i as u32))).collect();
    let mut out: BTreeMap<NodeIx, Vec<Edge>> = BTreeMap::new();
    for (target, source, port) in names.needs {
        let source = by_id.get(&source).unwrap_or_else(|| panic!("no node {source}"));
        out.entry(*source).or_default().push(Edge { port, target });
        program.nodes[target.0 as usize].in_degree += 1;
    }
    for ix in 0..program.nodes.len() {
        let start = program.edges.len() as u32;
        program.edges.extend(out.remove(&NodeIx(ix as u32)).unwrap_or_default());
        program.nodes[ix].edges = start..program.edges.len() as u32;
    }
    for (ix, name) in names.reads {
        let mut reads = std::mem::take(&mut program.nodes[ix.0 as usize].prepare_reads);
        read(program, &mut reads, &name);
        let node = &mut program.nodes[ix.0 as usize];
        node.finish_reads = reads.clone();
        node.fallback_reads = reads.clone();
        node.prepare_reads = reads;
    }
    for (body, name) in names.output_reads {
        let mut reads = std::mem::take(&mut program.bodies[body.0 as usize].output_reads);
        read(program, &mut reads, &name);
        program.bodies[body.0 as usize].output_reads = reads;
    }
}
