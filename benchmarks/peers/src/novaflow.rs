//! NovaFlow: `nova dev`, or three coordinators and `nova dev` with everything else.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::time::Duration;

use nova_testkit::{DevCluster, DevOptions, Nova, until};
use serde::Deserialize;

use crate::Error;
use crate::case::{Case, Form, Work};
use crate::load::Question;
use crate::system::{About, Places};

/// Longest wait for the first execution.
const START: Duration = Duration::from_secs(60);

/// What an api answers.
#[derive(Deserialize)]
struct Answer<'a> {
    state: &'a str,
    output: Option<u64>,
}

/// A cluster in one process, or in four.
pub(crate) struct NovaFlow {
    cluster: DevCluster,
    nova: Nova,
    members: usize,
    /// Of the coordinators that are processes of their own.
    coordinators: Vec<u32>,
    host: SocketAddr,
}

impl NovaFlow {
    pub(crate) fn look(places: &Places) -> Result<Nova, Error> {
        match &places.nova {
            Some(nova) => Ok(nova.clone()),
            None => Ok(Nova::binary()?),
        }
    }

    pub(crate) async fn start(members: usize, places: &Places) -> Result<Self, Error> {
        let nova = Self::look(places)?;
        let options = DevOptions { members: (members > 1).then_some(members), ..DevOptions::default() };
        let mut cluster = DevCluster::start_in(&nova, &options, places.dir()?).await?;
        let coordinators =
            cluster.members().map(|members| members.processes().iter().filter_map(|it| it.pid()).collect());
        let url = cluster.rest().url();
        let host = url.strip_prefix("http://").and_then(|rest| rest.parse().ok());
        let host = host.ok_or_else(|| Error::Options(format!("{url} is not an address of nova dev")))?;
        let chains = [1, 5, 10].map(|steps| Work::Chain { steps });
        let all = chains.iter().flat_map(|work| [(*work, Form::Dispatched), (*work, Form::Chained)]);
        for (work, form) in all.chain([(Work::Fan { steps: 1_000 }, Form::Dispatched)]) {
            cluster.rest().apply(&document(work, form)).await?;
            let question = ask(work, form);
            until("the first execution", START, || question.once(host, 1)).await?;
        }
        Ok(Self { cluster, nova, members, coordinators: coordinators.unwrap_or_default(), host })
    }

    pub(crate) async fn about(&self) -> Result<About, Error> {
        let version = self.nova.run(["--version"]).await?.trim().to_owned();
        let place = match self.members {
            1 => "nova dev with its defaults: all services in one process, the embedded bus",
            _ => {
                "3 coordinators on loopback, an entry is committed by 2 of them; nova dev with its defaults for the rest"
            }
        };
        let settings = [
            place,
            "coordinators sync each batch of entries (fdatasync) before it is applied; the bus syncs each batch of records",
            "an execution is accepted, and a result stored, by a committed entry",
            "workers of nova dev, steps of kind echo; clients by HTTP/1.1 to the one api",
        ];
        Ok(About { version, settings: settings.map(Into::into).to_vec() })
    }

    pub(crate) fn processes(&self) -> BTreeMap<&'static str, Vec<u32>> {
        // The workers are inside of nova dev.
        let dev = self.cluster.pid();
        BTreeMap::from([("server", dev.into_iter().chain(self.coordinators.iter().copied()).collect())])
    }

    pub(crate) fn host(&self) -> SocketAddr {
        self.host
    }

    pub(crate) fn question(&self, case: &Case) -> Question {
        ask(case.work, case.form)
    }

    pub(crate) fn check(&mut self) -> Result<(), Error> {
        self.cluster.process().check()?;
        let members = self.cluster.members().map(|members| members.processes()).unwrap_or_default();
        members.iter_mut().try_for_each(|member| Ok(member.check()?))
    }
}

fn name(work: Work, form: Form) -> String {
    match (work, form) {
        (Work::Chain { steps }, Form::Chained) => format!("chained-{steps}"),
        (Work::Chain { steps }, _) => format!("chain-{steps}"),
        (Work::Fan { steps }, _) => format!("fan-{steps}"),
    }
}

/// The workflow. A step is of kind `echo`, which gives back what it got.
fn document(work: Work, form: Form) -> String {
    let mut text = format!("apiVersion: nova/v1\nkind: Workflow\nmetadata: {{ name: {} }}\nspec:\n", name(work, form));
    match work {
        Work::Chain { steps } => {
            text.push_str("  do:\n");
            for step in 1..=steps {
                let gets = match (form, step) {
                    (Form::Chained, 1) => "\"${ input.n + 1 }\"".to_owned(),
                    (Form::Chained, _) => format!("\"${{ nodes.s{}.output + {step} }}\"", step - 1),
                    _ => step.to_string(),
                };
                let _ = writeln!(text, "    - {{ id: s{step}, type: task, kind: echo, with: {gets} }}");
            }
            let outputs: Vec<_> = (1..=steps).map(|step| format!("nodes.s{step}.output")).collect();
            let output = match form {
                Form::Chained => format!("nodes.s{steps}.output"),
                _ => format!("input.n + {}", outputs.join(" + ")),
            };
            let _ = writeln!(text, "  output: \"${{ {output} }}\"");
        }
        Work::Fan { steps } => {
            text.push_str("  nodes:\n");
            for step in 1..=steps {
                let _ = writeln!(text, "    - {{ id: s{step}, type: task, kind: echo, with: {step} }}");
            }
            let all: Vec<_> = (1..=steps).map(|step| format!("s{step}")).collect();
            let _ = writeln!(text, "    - {{ id: all, type: merge, needs: [{}] }}", all.join(", "));
            text.push_str("  output: \"${ input.n + sum(nodes.all.output.map(id, nodes.all.output[id])) }\"\n");
        }
    }
    text
}

fn ask(work: Work, form: Form) -> Question {
    Question {
        // Longer than the slowest execution here, and what the api allows.
        head: "POST /api/v1/executions HTTP/1.1\r\ncontent-type: application/json\r\nprefer: wait=60\r\n".into(),
        body: (format!("{{\"workflow\":\"{}\",\"input\":{{\"n\":", name(work, form)), "}}".into()),
        is_right: |status, body, result| {
            let answer = serde_json::from_slice::<Answer>(body).ok().filter(|answer| answer.state == "COMPLETED");
            matches!(status, 200 | 201) && answer.and_then(|answer| answer.output) == Some(result)
        },
        work,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_have_as_many_steps_as_the_work() {
        let chain = document(Work::Chain { steps: 10 }, Form::Dispatched);
        assert_eq!(chain.matches("type: task").count(), 10);
        assert!(chain.contains("with: 10 }") && chain.contains("input.n + nodes.s1.output + nodes.s2"), "{chain}");
        let chained = document(Work::Chain { steps: 10 }, Form::Chained);
        assert_eq!(chained.matches("type: task").count(), 10);
        assert!(
            chained.contains("with: \"${ nodes.s9.output + 10 }\"") && chained.contains("input.n + 1 }"),
            "{chained}"
        );
        let fan = document(Work::Fan { steps: 1_000 }, Form::Dispatched);
        assert_eq!(fan.matches("type: task").count(), 1_000);
        assert!(fan.contains("id: s1000,") && fan.contains(", s1000] }"), "{fan}");
    }

    #[test]
    fn an_answer_is_right_for_one_result_only() {
        let question = ask(Work::Chain { steps: 1 }, Form::Dispatched);
        let body =
            |state: &str, output: &str| format!(r#"{{"id":"ff","version":1,"state":"{state}","output":{output}}}"#);
        let is_right = |status, body: String| (question.is_right)(status, body.as_bytes(), 8);
        assert!(is_right(201, body("COMPLETED", "8")));
        for (status, state, output) in [
            (201, "COMPLETED", "9"),
            (201, "COMPLETED", "null"),
            (202, "RUNNING", "null"),
            (429, "COMPLETED", "8"),
            (201, "FAILED", "8"),
        ] {
            assert!(!is_right(status, body(state, output)), "{status} {state} {output}");
        }
        assert!(!is_right(201, String::new()));
    }
}
