//! Workflows that are run, and how their right results look.

use std::fmt::Write;

use crate::args::Work;

/// Paths into one node that the language allows.
const PATHS: usize = 1_000;
/// The tenant of requests that name none.
const DEFAULT: &str = "default";

/// A workflow with what is known of its executions.
#[derive(Clone, Debug)]
pub(crate) struct Workflow {
    /// Its name.
    pub name: String,
    /// Whose it is.
    pub namespace: &'static str,
    /// Its document.
    pub document: String,
    /// What becomes of an execution.
    pub expect: Expect,
    /// Events of an execution whose tasks each ran once: accepted, two per task, one per node that only thinks, ended.
    pub events: u64,
    /// Its tasks.
    pub tasks: u64,
}

/// What becomes of an execution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expect {
    /// It completes with its number and this.
    NumberPlus(u64),
    /// It completes with nothing.
    Null,
    /// It is there and runs.
    Parked,
}

impl Expect {
    /// Whether this is the output, as JSON, of the execution of `number`.
    pub(crate) fn is(self, output: &str, number: u64) -> bool {
        match self {
            Self::Null => output == "null",
            Self::NumberPlus(more) => output.parse() == Ok(number + more),
            Self::Parked => false,
        }
    }
}

impl Workflow {
    /// Tasks in sequence.
    pub(crate) fn chain(name: &str, tasks: u64, work: Work) -> Self {
        let name = format!("load-{name}-{}", work.name());
        let step = |number: u64| match (work, number) {
            (Work::Noop | Work::Bare, _) => format!("    - {{ id: s{number}, type: task, kind: noop }}\n"),
            (Work::Echo, _) => {
                let before = match number {
                    1 => "input.n".to_owned(),
                    _ => format!("nodes.s{}.output.n", number - 1),
                };
                format!("    - {{ id: s{number}, type: task, kind: echo, with: {{ n: \"${{ {before} + 1 }}\" }} }}\n")
            }
        };
        let steps: String = (1..=tasks).map(step).collect();
        let (output, expect) = match work {
            Work::Noop => ("${ input.n }".to_owned(), Expect::NumberPlus(0)),
            Work::Echo => (format!("${{ nodes.s{tasks}.output.n }}"), Expect::NumberPlus(tasks)),
            Work::Bare => (String::new(), Expect::Null),
        };
        Self::new(name, &format!("  do:\n{steps}"), &output, expect, 2 + 2 * tasks, tasks)
    }

    /// A graph of tasks beside each other and a node that waits for all of them. Above the paths that may lead to one node
    /// there is a join for each thousand, and one of these joins.
    pub(crate) fn fan(name: &str, tasks: usize) -> Self {
        let mut nodes: String = (0..tasks).map(|n| format!("    - {{ id: t{n}, type: task, kind: noop }}\n")).collect();
        let mut join = |id: &str, needs: Vec<String>| {
            let _ = writeln!(nodes, "    - {{ id: {id}, type: set, needs: [{}] }}", needs.join(","));
        };
        let groups = tasks.div_ceil(PATHS);
        for group in 0..groups {
            let needs = (group * PATHS..tasks.min((group + 1) * PATHS)).map(|n| format!("t{n}"));
            join(&format!("j{group}"), needs.collect());
        }
        let joins = if groups > 1 {
            join("join", (0..groups).map(|group| format!("j{group}")).collect());
            groups + 1
        } else {
            groups
        };
        let events = (2 + 2 * tasks + joins) as u64;
        let body = format!("  nodes:\n{nodes}");
        Self::new(format!("load-{name}"), &body, "${ input.n }", Expect::NumberPlus(0), events, tasks as u64)
    }

    /// The calls of a recursive fibonacci as a graph: a task for each call, which needs the tasks of its two calls and
    /// gives their sum. It has the tasks, the order and the result of the recursion, drawn in advance.
    pub(crate) fn fibonacci(of: u32) -> Self {
        let mut nodes = String::new();
        let mut tasks = 0;
        let root = call(of, &mut tasks, &mut nodes);
        let output = format!("${{ nodes.c{root}.output.n + input.n }}");
        let expect = Expect::NumberPlus(fibonacci(of));
        let body = format!("  nodes:\n{nodes}");
        Self::new(format!("load-fibonacci-{of}"), &body, &output, expect, 2 + 2 * tasks, tasks)
    }

    /// A wait until the time in the input, and nothing else.
    pub(crate) fn sleeper(name: &str, expect: Expect) -> Self {
        let body = "  do:\n    - { id: w, type: wait, at: \"${ input.at }\" }\n";
        let events = if expect == Expect::Parked { 2 } else { 4 };
        Self::new(format!("load-{name}"), body, "${ input.n }", expect, events, 0)
    }

    /// A task that lasts.
    pub(crate) fn lasting(name: &str, ms: u64) -> Self {
        let body = format!("  do:\n    - {{ id: t, type: task, kind: sleep, with: {{ ms: {ms} }} }}\n");
        Self::new(format!("load-{name}"), &body, "${ input.n }", Expect::NumberPlus(0), 4, 1)
    }

    fn new(name: String, body: &str, output: &str, expect: Expect, events: u64, tasks: u64) -> Self {
        let head = format!("apiVersion: nova/v1\nkind: Workflow\nmetadata: {{ name: {name} }}\nspec:\n");
        let output = if output.is_empty() { String::new() } else { format!("  output: \"{output}\"\n") };
        Self { document: [&head, body, &output].concat(), name, namespace: DEFAULT, expect, events, tasks }
    }

    /// The same as that of another tenant.
    pub(crate) fn of(self, namespace: &'static str) -> Self {
        let own = format!("metadata: {{ name: {}, namespace: {namespace} }}", self.name);
        let document = self.document.replacen(&format!("metadata: {{ name: {} }}", self.name), &own, 1);
        Self { document, namespace, ..self }
    }

    /// The line of a request that says whose it is.
    pub(crate) fn header(&self) -> String {
        if self.namespace == DEFAULT { String::new() } else { format!("nova-namespace: {}\r\n", self.namespace) }
    }
}

/// Writes the task of one call after those of the calls in it, and gives its number.
fn call(of: u32, tasks: &mut u64, nodes: &mut String) -> u64 {
    let calls = (of >= 2).then(|| [call(of - 1, tasks, nodes), call(of - 2, tasks, nodes)]);
    let own = *tasks;
    *tasks += 1;
    let task = match calls {
        None => format!("with: {{ n: {of} }}"),
        Some([a, b]) => {
            format!("needs: [c{a}, c{b}], with: {{ n: \"${{ nodes.c{a}.output.n + nodes.c{b}.output.n }}\" }}")
        }
    };
    let _ = writeln!(nodes, "    - {{ id: c{own}, type: task, kind: echo, {task} }}");
    own
}

fn fibonacci(of: u32) -> u64 {
    (0..of).fold((0, 1), |(a, b), _| (b, a + b)).0
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn a_chain_has_as_many_tasks_as_is_asked_for() {
        for tasks in [1, 10] {
            for work in Work::value_variants() {
                let workflow = Workflow::chain("x", tasks, *work);
                assert_eq!(workflow.document.matches("type: task").count() as u64, tasks, "{}", workflow.document);
                assert!(workflow.document.contains(&format!("name: {}", workflow.name)));
                assert_eq!((workflow.events, workflow.tasks), (2 + 2 * tasks, tasks));
            }
        }
    }

    #[test]
    fn a_fan_joins_every_task_and_keeps_to_the_paths_into_a_node() {
        for (tasks, joins) in [(3, 1), (1_000, 1), (2_500, 4), (9_989, 11)] {
            let workflow = Workflow::fan("x", tasks);
            let lines: Vec<_> = workflow.document.lines().collect();
            let needs = |line: &str| line.split_once("needs: [").map(|(_, rest)| rest.matches(',').count() + 1);
            let paths: Vec<_> = lines.iter().filter_map(|line| needs(line)).collect();
            assert_eq!(paths.len(), joins);
            assert!(paths.iter().all(|paths| *paths <= PATHS));
            assert_eq!(paths.iter().sum::<usize>(), tasks + joins.saturating_sub(1));
            assert_eq!(workflow.events as usize, 2 + 2 * tasks + joins);
            assert!(workflow.document.len() < 1 << 20);
        }
    }

    #[test]
    fn a_tenant_is_named_where_it_is_not_the_default() {
        let workflow = Workflow::chain("x", 1, Work::Noop);
        assert_eq!(workflow.header(), "");
        let other = workflow.of("other");
        assert_eq!(other.header(), "nova-namespace: other\r\n");
        assert!(other.document.contains("metadata: { name: load-x-noop, namespace: other }"), "{}", other.document);
    }

    #[test]
    fn fibonacci_has_a_task_for_each_call() {
        assert_eq!((fibonacci(0), fibonacci(1), fibonacci(2), fibonacci(10)), (0, 1, 1, 55));
        let workflow = Workflow::fibonacci(10);
        assert_eq!((workflow.tasks, workflow.expect), (177, Expect::NumberPlus(55)));
        assert_eq!(workflow.document.matches("type: task").count(), 177);
        // 89 calls are of 0 or 1 and call nobody.
        assert_eq!(workflow.document.matches("needs:").count(), 88);
    }

    #[test]
    fn an_output_is_right_for_one_number_only() {
        assert!(Expect::NumberPlus(10).is("17", 7));
        assert!(!Expect::NumberPlus(10).is("17", 8) && !Expect::NumberPlus(0).is("null", 0));
        assert!(Expect::Null.is("null", 7) && !Expect::Null.is("7", 7) && !Expect::Null.is("", 7));
        assert!(!Expect::Parked.is("null", 7) && !Expect::Parked.is("7", 7));
    }
}
