//! Random workflows, and what each comes to without faults.
//!
//! A workflow is a list of steps that make a number of a number. So what it comes to is known beforehand, whatever is
//! retried, lost or taken over meanwhile. Whoever adds a construct to the language adds a step here.

use rand::Rng;
use rand::rngs::SmallRng;
use serde_json::{Value, json};

/// Numbers stay below.
const MODULUS: i64 = 1_000_003;
/// Kind of the tasks.
pub const WORK: &str = "work";
/// Bodies inside of bodies.
const DEPTH: u32 = 2;

/// A workflow.
pub struct Workflow {
    /// Its name.
    pub name: String,
    steps: Vec<Step>,
}

struct Step {
    id: String,
    kind: Kind,
}

enum Kind {
    /// A worker adds; the first attempts fail.
    Work { add: i64, ms: u64, fails: u32 },
    /// The same; the first attempts take longer than one may.
    Slow { add: i64, slow: u32 },
    /// The scheduler multiplies and adds.
    Transform { by: i64, add: i64 },
    /// The same, of every other number only.
    When { add: i64 },
    /// A worker fails for good, and a fallback adds.
    Fallback { add: i64 },
    /// A worker fails for good, and another node handles it.
    Handled { add: i64 },
    /// Nothing, for a while.
    Wait { ms: u64 },
    /// Adds to the variable.
    Set,
    /// One of two lists.
    If { of: i64, then: Vec<Step>, otherwise: Vec<Step> },
    /// One of several lists.
    Switch { cases: Vec<Vec<Step>> },
    /// Several at a time, each adding to the variable, and their sum.
    Parallel { branches: Vec<(i64, u64)>, most: u32 },
}

struct Maker<'a> {
    random: &'a mut SmallRng,
    next: u32,
}

impl Maker<'_> {
    fn steps(&mut self, depth: u32) -> Vec<Step> {
        let count = self.random.random_range(1..=if depth == 0 { 5 } else { 3 });
        (0..count).map(|_| self.step(depth)).collect()
    }

    fn step(&mut self, depth: u32) -> Step {
        self.next += 1;
        let id = format!("n{}", self.next);
        let add = self.random.random_range(1..1_000);
        let kinds = if depth < DEPTH { 13 } else { 10 };
        let kind = match self.random.random_range(0..kinds) {
            0..=2 => Kind::Work { add, ms: self.ms(), fails: self.random.random_range(0..6_u32).saturating_sub(3) },
            3 => Kind::Transform { by: self.random.random_range(2..50), add },
            4 => Kind::When { add },
            5 => Kind::Fallback { add },
            6 => Kind::Handled { add },
            7 => Kind::Wait { ms: self.random.random_range(1..3_000) },
            8 => Kind::Set,
            9 => Kind::Slow { add, slow: self.random.random_range(1..3) },
            10 => {
                let of = self.random.random_range(2..4);
                Kind::If { of, then: self.steps(depth + 1), otherwise: self.steps(depth + 1) }
            }
            11 => Kind::Switch { cases: (0..3).map(|_| self.steps(depth + 1)).collect() },
            _ => {
                let count = self.random.random_range(2..5);
                let branches = (0..count).map(|n| (add + n, self.ms())).collect();
                Kind::Parallel { branches, most: self.random.random_range(0..3) }
            }
        };
        Step { id, kind }
    }

    /// Most work is short; some lasts longer than a session without renewal.
    fn ms(&mut self) -> u64 {
        if self.random.random_ratio(1, 12) {
            self.random.random_range(2_000..6_000)
        } else {
            self.random.random_range(0..200)
        }
    }
}

fn work(id: &str, add: i64, x: &str, ms: u64, fails: u32) -> Value {
    let retry = json!({ "maxAttempts": 1_000, "initial": "50ms", "factor": 2, "maxDelay": "1s", "jitter": "full" });
    let with = json!({ "value": format!("${{ ({x} + {add}) % {MODULUS} }}"), "ms": ms, "fails": fails });
    json!({ "id": id, "type": "task", "kind": WORK, "with": with, "retry": retry })
}

/// It fails at each attempt that is carried out; only those that are lost with their worker are repeated.
fn failing(id: &str) -> Value {
    let retry = json!({ "maxAttempts": 1_000, "initial": "50ms", "only": ["worker"] });
    json!({ "id": id, "type": "task", "kind": WORK, "with": { "value": 0, "ms": 5, "fails": -1 }, "retry": retry })
}

/// The steps as nodes of a list; `x` is the expression of the number so far, and becomes that of the last.
fn nodes(steps: &[Step], x: &mut String) -> Vec<Value> {
    let mut all = Vec::new();
    for Step { id, kind } in steps {
        let output = format!("nodes.{id}.output");
        let before = x.clone();
        let body = |steps: &[Step]| {
            let mut x = before.clone();
            let mut all = nodes(steps, &mut x);
            // Whatever the last step was: the output of a list is that of its last one.
            let last = format!("{id}e{}", all.first().map_or("", |it| it["id"].as_str().unwrap_or("")));
            all.push(json!({ "id": last, "type": "transform", "with": format!("${{ {x} }}") }));
            all
        };
        let node = match kind {
            Kind::Work { add, ms, fails } => work(id, *add, x, *ms, *fails),
            Kind::Slow { add, slow } => {
                let mut node = work(id, *add, x, 5, 0);
                node["with"]["slow"] = json!(slow);
                node["timeout"] = json!({ "attempt": "1500ms" });
                node
            }
            Kind::Transform { by, add } => {
                json!({ "id": id, "type": "transform", "with": format!("${{ ({x} * {by} + {add}) % {MODULUS} }}") })
            }
            Kind::When { add } => json!({ "id": id, "type": "transform", "when": format!("{x} % 2 == 0"),
                "with": format!("${{ ({x} + {add}) % {MODULUS} }}") }),
            Kind::Fallback { add } => {
                let mut node = failing(id);
                node["fallback"] = json!(format!("${{ ({x} + {add}) % {MODULUS} }}"));
                node
            }
            Kind::Handled { add } => {
                let handler = json!({ "id": format!("{id}h"), "type": "transform", "needs": [format!("{id}f.error")],
                    "with": format!("${{ ({x} + {add}) % {MODULUS} }}") });
                json!({ "id": id, "type": "group", "nodes": [failing(&format!("{id}f")), handler],
                    "output": format!("${{ nodes.{id}h.output }}") })
            }
            Kind::Wait { ms } => json!({ "id": id, "type": "wait", "for": format!("{ms}ms") }),
            Kind::Set => {
                json!({ "id": id, "type": "set", "set": { "acc": format!("${{ (vars.acc + {x}) % {MODULUS} }}") } })
            }
            Kind::If { of, then, otherwise } => json!({ "id": id, "type": "if", "test": format!("{x} % {of} == 0"),
                "then": body(then), "else": body(otherwise) }),
            Kind::Switch { cases } => {
                let count = cases.len();
                let case = |(n, steps): (usize, &Vec<Step>)| json!({ "name": format!("{id}c{n}"), "when": format!("{x} % {count} == {n}"), "do": body(steps) });
                let all: Vec<Value> = cases.iter().enumerate().take(count - 1).map(case).collect();
                json!({ "id": id, "type": "switch", "cases": all, "else": body(&cases[count - 1]) })
            }
            Kind::Parallel { branches, most } => {
                let name = |n: usize| format!("{id}b{n}");
                let mut inner: Vec<Value> = Vec::new();
                for (n, (add, ms)) in branches.iter().enumerate() {
                    let mut node = work(&name(n), *add, x, *ms, 0);
                    node["set"] = json!({ "acc": format!("${{ (vars.acc + output) % {MODULUS} }}") });
                    inner.push(node);
                }
                let names: Vec<String> = (0..branches.len()).map(name).collect();
                let sum: Vec<String> = names.iter().map(|name| format!("nodes.{name}.output")).collect();
                inner.push(json!({ "id": format!("{id}s"), "type": "transform", "needs": names, "join": "every",
                    "with": format!("${{ ({}) % {MODULUS} }}", sum.join(" + ")) }));
                let mut node = json!({ "id": id, "type": "group", "nodes": inner,
                    "output": format!("${{ nodes.{id}s.output }}") });
                if *most > 0 {
                    node["parallel"] = json!(most);
                }
                node
            }
        };
        match kind {
            Kind::Wait { .. } | Kind::Set => {}
            Kind::When { .. } => *x = format!("default({output}, {x})"),
            _ => *x = output,
        }
        all.push(node);
    }
    all
}

fn come_to(steps: &[Step], mut x: i64, acc: &mut i64) -> i64 {
    for step in steps {
        match &step.kind {
            Kind::Work { add, .. } | Kind::Slow { add, .. } | Kind::Fallback { add } | Kind::Handled { add } => {
                x = (x + add) % MODULUS
            }
            Kind::Transform { by, add } => x = (x * by + add) % MODULUS,
            Kind::When { add } if x % 2 == 0 => x = (x + add) % MODULUS,
            Kind::When { .. } | Kind::Wait { .. } => {}
            Kind::Set => *acc = (*acc + x) % MODULUS,
            Kind::If { of, then, otherwise } => {
                x = come_to(if x % of == 0 { then } else { otherwise }, x, acc);
            }
            Kind::Switch { cases } => x = come_to(&cases[x as usize % cases.len()], x, acc),
            Kind::Parallel { branches, .. } => {
                let all: Vec<i64> = branches.iter().map(|(add, _)| (x + add) % MODULUS).collect();
                all.iter().for_each(|one| *acc = (*acc + one) % MODULUS);
                x = all.iter().sum::<i64>() % MODULUS;
            }
        }
    }
    x
}

impl Workflow {
    /// A random one.
    #[must_use]
    pub fn random(name: &str, random: &mut SmallRng) -> Self {
        let steps = Maker { random, next: 0 }.steps(0);
        Self { name: name.to_owned(), steps }
    }

    /// Its document.
    #[must_use]
    pub fn document(&self) -> Value {
        let mut x = "input.n".to_owned();
        let steps = nodes(&self.steps, &mut x);
        let output = json!({ "x": format!("${{ {x} }}"), "acc": "${ vars.acc }" });
        json!({ "apiVersion": "nova/v1", "kind": "Workflow", "metadata": { "name": self.name },
            "spec": { "vars": { "acc": 0 }, "do": steps, "output": output } })
    }

    /// What an execution with this input comes to.
    #[must_use]
    pub fn expected(&self, n: i64) -> Value {
        let mut acc = 0;
        let x = come_to(&self.steps, n, &mut acc);
        json!({ "x": x, "acc": acc })
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn all_that_the_grammar_makes_is_accepted() {
        for seed in 0..300 {
            let workflow = Workflow::random("w", &mut SmallRng::seed_from_u64(seed));
            let document = workflow.document();
            let text = document.to_string();
            let compiled = nova_model::parse(text.as_bytes(), "w", nova_model::Format::Json)
                .and_then(|document| nova_model::compile(&document));
            if let Err(problems) = compiled {
                panic!("seed {seed}: {problems}\n{document:#}");
            }
        }
    }
}
