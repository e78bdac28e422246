//! The first executions after a start. Processes that are ready may still be taking over their shards and meeting each
//! other; what is measured begins when an execution on every shard came back.

use std::time::{Duration, Instant};

use crate::Error;
use crate::args::Work;
use crate::http::Connection;
use crate::request::{Asks, FIRST, Said, read_line};
use crate::workflow::Workflow;

/// So many keys fall on all of 24 shards, but for one start in two thousand.
const KEYS: u64 = 256;
/// Longest wait until all come back.
const PATIENCE: Duration = Duration::from_secs(90);
const PAUSE: Duration = Duration::from_millis(100);

/// The workflow of the first executions: those of the scenario itself are all counted.
pub(crate) fn workflow() -> Workflow {
    Workflow::chain("first", 1, Work::Noop)
}

/// Waits until an execution on every shard came back, and says how long that took and how many answers were errors.
pub(crate) async fn results(
    connection: &mut Connection,
    host: &str,
    workflow: &Workflow,
) -> Result<(Duration, u64), Error> {
    let begun = Instant::now();
    let mut errors = 0;
    let mut waiting: Vec<u64> = (FIRST..FIRST + KEYS).collect();
    loop {
        // The same keys again: what was taken before is not done twice.
        let line = |number: &u64| {
            let workflow = &workflow.name;
            format!(r#"{{"workflow":"{workflow}","input":{{"n":{number}}},"idempotencyKey":"first-{number}"}}"#)
        };
        let body = waiting.iter().map(line).collect::<Vec<_>>().join("\n");
        let head = format!(
            "POST /api/v1/executions/batch HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/x-ndjson\r\nprefer: wait=20\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let unanswered = |source| Error::Unanswered { what: "the first submission".into(), source };
        let answer = connection.exchange([head, body].concat().as_bytes()).await.map_err(unanswered)?;
        let mut lines = answer.body.split(|byte| *byte == b'\n');
        let mut last = String::new();
        waiting.retain(|number| {
            let line = lines.next().unwrap_or_default();
            let right = matches!(read_line(line, *number, workflow.expect, Asks::End), Said::Completed(_));
            if !right {
                last = String::from_utf8_lossy(&line[..line.len().min(500)]).into_owned();
            }
            !right
        });
        if waiting.is_empty() {
            return Ok((begun.elapsed(), errors));
        }
        errors += waiting.len() as u64;
        if begun.elapsed() >= PATIENCE {
            return Err(Error::Nothing { phase: "the first executions".into(), answer: last });
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{Fake, Fault};

    #[tokio::test]
    async fn what_does_not_come_back_at_first_is_asked_for_again() {
        let workflow = workflow();
        for (fault, wrong) in [(Fault::None, 0), (Fault::BusyOnce, 1)] {
            let address = Fake::start(fault, &workflow).await;
            let mut connection = Connection::open(address).await.unwrap();
            let (_, errors) = results(&mut connection, "h", &workflow).await.unwrap();
            assert_eq!(errors, wrong);
        }
    }
}
