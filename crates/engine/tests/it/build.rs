//! Small programs, written as text.
//!
//! ```text
//! list                      graph
//!   a noop                    a noop
//!   b wait 500                b noop needs a.ok
//!   c noop retry 3 100        c noop needs a.error join any
//! ```
//! A line is `id kind [needs x.port …] [join all|every|any|count N] [retry MAX DELAY] [total|attempt|queue MS] [when] [out]
//! [fallback] [next ID|end]`. Kinds: a kind of work, `wait MS`, `think`, `choose`, or `group`, whose body is indented.

use std::collections::BTreeMap;

use nova_program::{
    Backoff, Body, BodyForm, BodyIx, Case, Edge, Jitter, Join, Jump, Node, NodeIx, NodeKind, Port, Program, Reads,
    Retry, ScopeOutput, Timeouts, WaitTime, With,
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
    let mut needs = Vec::new();
    build(&mut program, &lines[1..], form(lines[0].words[0]), None, 0, &mut needs);
    connect(&mut program, needs);
    program
}

fn form(word: &str) -> BodyForm {
    match word {
        "list" => BodyForm::List,
        "graph" => BodyForm::Graph,
        other => panic!("a body is list or graph, not {other}"),
    }
}

type Needs = Vec<(NodeIx, String, Port)>;

/// Nodes of a body are contiguous: first all of this body, then the bodies below it.
fn build(
    program: &mut Program,
    lines: &[Line<'_>],
    form: BodyForm,
    owner: Option<NodeIx>,
    case: u8,
    needs: &mut Needs,
) {
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
    let depth = lines.first().map_or(0, |line| line.depth);
    let own: Vec<usize> = (0..lines.len()).filter(|i| lines[*i].depth == depth).collect();
    for index in &own {
        let node = node(&lines[*index], body, NodeIx(program.nodes.len() as u32), needs);
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
                build(program, &inner[1..], self::form(inner[0].words[0]), Some(ix), 0, needs);
            }
            "choose" => {
                let heads: Vec<usize> = (0..inner.len())
                    .filter(|i| inner.first().is_some_and(|first| inner[*i].depth == first.depth))
                    .collect();
                for (case, head) in heads.iter().enumerate() {
                    let stop = heads.get(case + 1).copied().unwrap_or(inner.len());
                    let below = BodyIx(program.bodies.len() as u32);
                    let name = inner[*head].words[1].into();
                    program.nodes[ix.0 as usize].cases.push(Case { name, body: Some(below), next: None });
                    let form = self::form(inner[*head].words[0]);
                    build(program, &inner[head + 1..stop], form, Some(ix), case as u8, needs);
                }
            }
            _ => {}
        }
    }
}

fn node(line: &Line<'_>, body: BodyIx, ix: NodeIx, needs: &mut Needs) -> Node {
    let words = &line.words;
    let number = |at: usize| words[at].parse::<u64>().unwrap_or_else(|_| panic!("a number in {words:?}"));
    let (kind, mut at) = match words[1] {
        "wait" => (NodeKind::Wait(WaitTime::ForMs(number(2))), 3),
        "think" => (NodeKind::Think, 2),
        "choose" => (NodeKind::Choose, 2),
        "group" => (NodeKind::Think, 2),
        kind => (NodeKind::Work { kind: kind.into(), pool: "default".into(), with: With::Absent }, 2),
    };
    let mut node = Node {
        id: words[0].into(),
        prepare: matches!(words[1], "think" | "choose"),
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
                    needs.push((ix, source.to_owned(), port));
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
                node.retry = Some(Retry { max_attempts: number(at) as u32, backoff, only: vec![], never: vec![] });
                at += 2;
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
                // Only forward jumps by distance: `next +2`, or `next end`.
                node.next = Some(match words[at] {
                    "end" => Jump::End,
                    distance => {
                        Jump::To(NodeIx(ix.0 + distance.trim_start_matches('+').parse::<u32>().expect("distance")))
                    }
                });
                at += 1;
            }
            other => panic!("unknown word {other} in {words:?}"),
        }
    }
    node
}

fn connect(program: &mut Program, needs: Needs) {
    let by_id: BTreeMap<String, NodeIx> =
        program.nodes.iter().enumerate().map(|(i, n)| (n.id.to_string(), NodeIx(i as u32))).collect();
    let mut out: BTreeMap<NodeIx, Vec<Edge>> = BTreeMap::new();
    for (target, source, port) in needs {
        let source = by_id.get(&source).unwrap_or_else(|| panic!("no node {source}"));
        out.entry(*source).or_default().push(Edge { port, target });
        program.nodes[target.0 as usize].in_degree += 1;
    }
    for ix in 0..program.nodes.len() {
        let start = program.edges.len() as u32;
        program.edges.extend(out.remove(&NodeIx(ix as u32)).unwrap_or_default());
        program.nodes[ix].edges = start..program.edges.len() as u32;
    }
}
