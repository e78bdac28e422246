//! Whether a cluster is after a long time what it was at first: as quick, and no larger.

use std::collections::BTreeMap;
use std::time::Duration;

use nova_checker::Violation;

/// What processes use, and what was done, at a moment.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// Since the beginning.
    pub at: Duration,
    /// Submissions that were accepted until then.
    pub accepted: u64,
    /// Resident memory of each process, in bytes, without what is of files; of those that run.
    pub memory: BTreeMap<&'static str, u64>,
    /// Its open descriptors.
    pub descriptors: BTreeMap<&'static str, u64>,
    /// Bytes on the disk of each coordinator.
    pub disk: BTreeMap<&'static str, u64>,
}

/// The last tenth must accept so much of what the first did, in hundredths.
const QUICK: u64 = 95;
/// Memory and disk may grow by a quarter and by so many bytes: buffers that fill, a segment of the log.
const ROOM: u64 = 96 << 20;
/// Descriptors may become so many more: connections that were not needed before.
const MORE: u64 = 32;

/// Compares the last tenth with the first, and with the second where the first still fills buffers.
#[must_use]
pub fn judge(samples: &[Sample]) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut add = |what: String| found.push(Violation { invariant: "J4", what });
    let tenth = samples.len() / 10;
    if tenth < 2 {
        add(format!("{} samples say nothing of a long time", samples.len()));
        return found;
    }
    let (first, second, last) = (&samples[..tenth], &samples[tenth..2 * tenth], &samples[samples.len() - tenth..]);
    let done = |part: &[Sample]| match part {
        [begin, .., end] => {
            let span = (end.at - begin.at).as_secs_f64().max(f64::EPSILON);
            (end.accepted - begin.accepted) as f64 / span
        }
        _ => 0.0,
    };
    if done(last) * 100.0 < done(first) * QUICK as f64 {
        add(format!("{:.1} a second are accepted at last, and {:.1} were at first", done(last), done(first)));
    }
    let median = |part: &[Sample], of: fn(&Sample) -> &BTreeMap<&'static str, u64>| {
        let mut all: BTreeMap<&'static str, Vec<u64>> = BTreeMap::new();
        part.iter().flat_map(of).for_each(|(host, value)| all.entry(host).or_default().push(*value));
        all.values_mut().for_each(|values| values.sort_unstable());
        all.into_iter().map(|(host, values)| (host, values[values.len() / 2])).collect::<BTreeMap<_, _>>()
    };
    let mut compare = |what: &str, of: fn(&Sample) -> &BTreeMap<&'static str, u64>, most: fn(u64) -> u64| {
        let (before, after) = (median(second, of), median(last, of));
        for (host, before) in before {
            if let Some(after) = after.get(host).filter(|after| **after > most(before)) {
                add(format!("{what} of {host}: {before} at first, {after} at last"));
            }
        }
    };
    compare("bytes of memory", |it| &it.memory, |before| before + before / 4 + ROOM);
    compare("descriptors", |it| &it.descriptors, |before| before + MORE);
    compare("bytes on the disk", |it| &it.disk, |before| before + before / 4 + ROOM);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(change: impl Fn(u64, &mut Sample)) -> Vec<Sample> {
        let one = |n: u64| {
            let mut sample = Sample { at: Duration::from_secs(n), accepted: 100 * n, ..Sample::default() };
            sample.memory.insert("c1", 200 << 20);
            sample.descriptors.insert("c1", 50);
            sample.disk.insert("c1", 64 << 20);
            change(n, &mut sample);
            sample
        };
        (0..100).map(one).collect()
    }

    fn found(change: impl Fn(u64, &mut Sample)) -> Vec<String> {
        judge(&samples(change)).into_iter().map(|it| it.what).collect()
    }

    #[test]
    fn what_stays_as_it_is_is_good() {
        assert_eq!(found(|_, _| {}), Vec::<String>::new());
        // A process that is dead for a while uses nothing.
        assert_eq!(
            found(|n, it| if n % 3 == 0 {
                it.memory.clear()
            }),
            Vec::<String>::new()
        );
    }

    #[test]
    fn what_grows_or_tires_is_found() {
        let wrong = |change: fn(u64, &mut Sample), word: &str| {
            let found = found(change);
            assert!(found.len() == 1 && found[0].contains(word), "{found:?}");
        };
        wrong(|n, it| it.memory.values_mut().for_each(|bytes| *bytes += n * (2 << 20)), "memory of c1");
        wrong(|n, it| it.descriptors.values_mut().for_each(|count| *count += n), "descriptors of c1");
        wrong(|n, it| it.disk.values_mut().for_each(|bytes| *bytes += n * (2 << 20)), "disk of c1");
        wrong(|n, it| it.accepted = if n < 50 { 100 * n } else { 5_000 + 90 * (n - 50) }, "accepted at last");
        assert_eq!(judge(&samples(|_, _| {})[..15]).len(), 1, "too short");
    }
}
