//! Work that blocks: files, long computations.
//!
//! In a service it has a thread of the runtime's pool, so that nothing else waits for it. Where one thread runs all
//! processes it is done at once: the order of two threads is nobody's to decide, and no seed could repeat it.

use std::cell::Cell;
use std::time::Duration;

thread_local! {
    static ALONE: Cell<bool> = const { Cell::new(false) };
    static OWED: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// The work panicked.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Panicked(String);

/// From now on nothing that is begun on this thread gets another one, or does again.
pub fn set_alone(alone: bool) {
    ALONE.set(alone);
}

/// Whether this thread is the only one.
#[must_use]
pub fn is_alone() -> bool {
    ALONE.get()
}

/// What was done at once on the only thread would have taken so much longer.
pub fn owe(time: Duration) {
    OWED.set(OWED.get() + time);
}

/// What is owed and not waited for.
#[must_use]
pub fn owed() -> Duration {
    OWED.get()
}

/// The same, and nobody will wait for it any more.
pub fn take_owed() -> Duration {
    OWED.take()
}

/// Waits as long as what was done at once on the only thread would have taken.
pub async fn settle() {
    let owed = take_owed();
    if !owed.is_zero() {
        tokio::time::sleep(owed).await;
    }
}

/// Does it on a thread that may block, or at once where there is only this one.
///
/// # Errors
/// When it panics.
pub async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Panicked> {
    if is_alone() {
        // Others have their turn first, as they would beside a thread.
        tokio::task::yield_now().await;
        let result = work();
        settle().await;
        return Ok(result);
    }
    tokio::task::spawn_blocking(work).await.map_err(|error| Panicked(error.to_string()))
}

/// The same, and nobody waits for it.
pub fn spawn(work: impl FnOnce() + Send + 'static) {
    if is_alone() {
        drop(tokio::spawn(async { work() }));
    } else {
        drop(tokio::task::spawn_blocking(work));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thread() -> std::thread::ThreadId {
        std::thread::current().id()
    }

    #[tokio::test]
    async fn it_has_a_thread_unless_there_is_only_one() {
        assert_ne!(run(thread).await.expect("it runs"), thread());
        set_alone(true);
        assert_eq!(run(thread).await.expect("it runs"), thread());
        set_alone(false);
        assert_ne!(run(thread).await.expect("it runs"), thread());
    }

    #[tokio::test]
    async fn a_panic_is_told() {
        let panicked = run(|| -> () { panic!("planted") }).await.expect_err("it does not return");
        assert!(panicked.to_string().contains("panicked"), "{panicked}");
    }
}
