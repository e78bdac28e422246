//! What is run, and how its right result looks.

use crate::args::{ScenarioName, Work};

/// A workflow with what is known of its executions.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    /// Name of the workflow.
    pub workflow: String,
    /// The workflow.
    pub document: String,
    /// Output of the execution of a number.
    pub expect: Expect,
    /// Events of an execution whose tasks each ran once: accepted, two per task, ended.
    pub events: u64,
}

/// The right output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expect {
    /// The number of the execution and this.
    NumberPlus(u64),
    /// Nothing.
    Null,
}

impl Expect {
    /// As JSON, for the execution of `number`.
    pub(crate) fn is(self, output: &str, number: u64) -> bool {
        match self {
            Self::Null => output == "null",
            Self::NumberPlus(more) => output.parse() == Ok(number + more),
        }
    }
}

impl Scenario {
    pub(crate) fn new(name: ScenarioName, work: Work) -> Self {
        let tasks = match name {
            ScenarioName::S1 => 1,
            ScenarioName::S2 => 10,
        };
        let workflow = format!("load-{}-{}", name.name(), work.name());
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
            Work::Noop => ("  output: \"${ input.n }\"\n".to_owned(), Expect::NumberPlus(0)),
            Work::Echo => (format!("  output: \"${{ nodes.s{tasks}.output.n }}\"\n"), Expect::NumberPlus(tasks)),
            Work::Bare => (String::new(), Expect::Null),
        };
        let head = format!("apiVersion: nova/v1\nkind: Workflow\nmetadata: {{ name: {workflow} }}\nspec:\n  do:\n");
        Self { workflow, document: [head, steps, output].concat(), expect, events: 2 + 2 * tasks }
    }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn documents_are_workflows_with_as_many_tasks_as_the_scenario_says() {
        for (name, tasks) in [(ScenarioName::S1, 1), (ScenarioName::S2, 10)] {
            for work in Work::value_variants() {
                let scenario = Scenario::new(name, *work);
                assert_eq!(scenario.document.matches("type: task").count(), tasks, "{}", scenario.document);
                assert!(scenario.document.contains(&format!("name: {}", scenario.workflow)));
                assert_eq!(scenario.events as usize, 2 + 2 * tasks);
            }
        }
    }

    #[test]
    fn an_output_is_right_for_one_number_only() {
        assert!(Expect::NumberPlus(10).is("17", 7));
        assert!(!Expect::NumberPlus(10).is("17", 8) && !Expect::NumberPlus(0).is("null", 0));
        assert!(Expect::Null.is("null", 7) && !Expect::Null.is("7", 7) && !Expect::Null.is("", 7));
    }
}
