//! Waiting for conditions.

use std::future::Future;
use std::time::{Duration, Instant};

use crate::{Error, Result};

/// Time between two looks at a condition that nobody tells us of.
pub(crate) const LOOK: Duration = Duration::from_millis(10);

/// Looks until `probe` is good; its error says what is still missing.
///
/// # Errors
/// [`Error::Deadline`] with what was seen last.
pub async fn until<T, P, F>(what: &str, within: Duration, mut probe: P) -> Result<T>
where
    P: FnMut() -> F,
    F: Future<Output = Result<T, String>>,
{
    let end = Instant::now() + within;
    let mut last = "nothing was seen".to_owned();
    loop {
        // A probe that hangs must not outlast the deadline either.
        let left = end.saturating_duration_since(Instant::now());
        match tokio::time::timeout(left, probe()).await {
            Ok(Ok(good)) => return Ok(good),
            Ok(Err(why)) => last = why,
            Err(_) => {}
        }
        if Instant::now() >= end {
            return Err(Error::Deadline { what: what.to_owned(), within, last });
        }
        tokio::time::sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_condition_that_comes_is_given() {
        let mut looks = 0;
        let got = until("three looks", Duration::from_secs(10), || {
            looks += 1;
            let now = looks;
            async move { if now == 3 { Ok(now) } else { Err(format!("look {now}")) } }
        });
        assert_eq!(got.await.unwrap(), 3);
    }

    #[tokio::test]
    async fn a_deadline_names_what_was_seen_last() {
        let waiting = until("the moon", Duration::from_millis(30), || async { Err::<(), _>("clouds".to_owned()) });
        let error = waiting.await.unwrap_err();
        assert!(
            matches!(&error, Error::Deadline { what, last, .. } if what == "the moon" && last == "clouds"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_probe_that_hangs_does_not_outlast_the_deadline() {
        let waiting = until("an answer", Duration::from_millis(30), std::future::pending::<Result<(), String>>);
        assert!(matches!(waiting.await, Err(Error::Deadline { .. })));
    }
}
