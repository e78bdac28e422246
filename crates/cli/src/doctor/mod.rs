//! `nova doctor`: looks at a cluster from outside, and says what is wrong, how it shows, and what to do.

mod judge;

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures::future::join_all;
use nova_bus::{BusError, Layout, SharedBus, TopicSpec};
use nova_client::{Coordinators, Repeat};
use nova_service_kit::bus::BusSettings;
use nova_wire::v1;
use serde_json::json;

use crate::args::{Doctor, Format};
use crate::error::{Failed, chain};
use crate::{members, print};
use judge::{Api, Clock, Facts, Limits, Member, State, Topic, judge, worst};

/// Between the two looks at how far members are.
const BETWEEN: Duration = Duration::from_secs(1);
/// Longest wait for one answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Times that a clock is read; the quickest answer says the most.
const READINGS: usize = 5;
/// Partitions of the reply topic, as `nova admin topics` makes them.
const APIS: u32 = 16;

/// Looks, and gives the exit code.
pub async fn run(doctor: Doctor, format: Format) -> Result<ExitCode, Failed> {
    let named = named(&doctor)?;
    let format = if doctor.json { Format::Json } else { format };
    let limits = Limits {
        skew_ms: doctor.max_skew_ms,
        sync_ms: doctor.max_sync_ms,
        free_percent: doctor.min_free_percent,
        lag_entries: doctor.max_lag_entries,
        lag_records: doctor.max_lag_records,
    };
    let facts = look(&doctor, &named).await?;
    let findings = judge(&facts, limits);
    let worst = worst(&findings);
    let all = json!({ "state": worst, "findings": findings });
    if !print::machine(&all, format)? {
        let columns = ["state", "check", "subject", "found"];
        print::table(&columns, print::rows(&all["findings"], &columns));
        for it in findings.iter().filter(|it| it.state != State::Ok) {
            println!(
                "\n{}: {}\n  found   {}\n  wanted  {}\n  do      {}",
                it.check, it.subject, it.found, it.limit, it.advice
            );
        }
    }
    Ok(match worst {
        State::Ok => ExitCode::SUCCESS,
        State::Warn => ExitCode::from(1),
        State::Fail => ExitCode::from(3),
    })
}

/// Where to look.
struct Named {
    coordinators: Vec<String>,
    apis: Vec<String>,
    bus: Option<BusSettings>,
}

fn named(doctor: &Doctor) -> Result<Named, Failed> {
    let mut named = Named { coordinators: doctor.at.addresses.clone(), apis: doctor.apis.clone(), bus: None };
    if let Some(path) = &doctor.config {
        of_config(path, &mut named)?;
        // What is said on the command line, or by the environment, counts more than a file.
        if !doctor.at.is_default() {
            named.coordinators.clone_from(&doctor.at.addresses);
        }
    }
    if let Some(bootstrap) = &doctor.bootstrap {
        let (prefix, replicas) = (doctor.prefix.clone(), doctor.replicas);
        let told = named.bus.take().unwrap_or(BusSettings { prefix, replicas, ..BusSettings::default() });
        named.bus = Some(BusSettings { bootstrap: bootstrap.clone(), ..told });
    }
    let problems = named.bus.as_ref().map(BusSettings::problems).unwrap_or_default();
    if problems.is_empty() { Ok(named) } else { Err(Failed::Usage(problems.join("\n"))) }
}

/// Takes what the config file of any service tells.
fn of_config(path: &Path, named: &mut Named) -> Result<(), Failed> {
    let wrong = |why: String| Failed::Usage(format!("{}: {why}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| wrong(error.message().to_owned()))?;
    let texts = |name: &str| -> Vec<String> {
        let all = table.get(name).and_then(toml::Value::as_array).into_iter().flatten();
        all.filter_map(|it| it.as_str().map(str::to_owned)).collect()
    };
    let members = texts("members").into_iter().filter_map(|it| it.split_once('@').map(|(_, url)| url.to_owned()));
    let listed: Vec<_> = texts("coordinators").into_iter().chain(members).collect();
    if !listed.is_empty() {
        named.coordinators = listed;
    }
    let listen = table.get("listen").and_then(toml::Value::as_str);
    if let (Some(listen), true) = (listen, table.contains_key("history")) {
        named.apis.push(format!("http://{listen}"));
    }
    if let Some(bus) = table.get("bus") {
        let bus: BusSettings =
            bus.clone().try_into().map_err(|error: toml::de::Error| wrong(error.message().to_owned()))?;
        named.bus = Some(bus);
    }
    Ok(())
}

async fn look(doctor: &Doctor, named: &Named) -> Result<Facts, Failed> {
    let begun = Instant::now();
    let asked = members::ask_all(&named.coordinators).await;
    let layout = asked.iter().filter_map(|it| it.answer.as_ref().ok()).map(|it| (it.shards, it.inboxes)).next();
    let clocks = join_all(asked.iter().map(|it| async {
        match it.answer {
            Ok(_) => clock(&it.address).await,
            Err(_) => None,
        }
    }));
    let client = Coordinators::new(named.coordinators.clone());
    let led = asked.iter().filter_map(|it| it.answer.as_ref().ok()).any(|it| it.leader == Some(it.member));
    let shards = async {
        if !led {
            // That nobody leads is said already.
            return (None, None);
        }
        let asking = client
            .call(PATIENCE, Repeat::Read, |mut leader| async move { leader.get_shards(v1::GetShardsRequest {}).await });
        let shards = asking.await.map(|it| it.shards).map_err(|error| chain(&error));
        let asking = client.call(PATIENCE, Repeat::Read, |mut leader| async move {
            leader.list_workers(v1::ListWorkersRequest {}).await
        });
        (Some(shards), asking.await.ok().map(|it| it.workers))
    };
    let apis = join_all(named.apis.iter().map(|url| api(url)));
    let (clocks, (shards, workers), apis, topics) = tokio::join!(clocks, shards, apis, topics(doctor, named, layout));
    tokio::time::sleep(BETWEEN.saturating_sub(begun.elapsed())).await;
    let later = join_all(asked.iter().map(|it| async {
        match it.answer {
            Ok(_) => members::ask(&it.address).await.ok(),
            Err(_) => None,
        }
    }));
    let later = later.await;
    let members = asked.into_iter().zip(later).zip(clocks).map(|((it, later), clock)| Member {
        address: it.address,
        number: it.member,
        first: it.answer,
        later,
        clock,
    });
    Ok(Facts { members: members.collect(), shards, workers, apis, topics: topics? })
}

fn wall_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

/// Reads a member's clock some times, and keeps what was answered quickest.
async fn clock(address: &str) -> Option<Clock> {
    let mut member = Coordinators::member(address).ok()?;
    let mut best: Option<Clock> = None;
    for _ in 0..READINGS {
        let (wall, begun) = (wall_ms(), Instant::now());
        let asking = tokio::time::timeout(PATIENCE, member.get_clock(v1::GetClockRequest {}));
        let Ok(Ok(answer)) = asking.await else { continue };
        let round_trip_ms = begun.elapsed().as_millis() as u64;
        // By the monotonic clock: ours may be set meanwhile.
        let middle = wall + (round_trip_ms / 2) as i64;
        let reading = Clock { offset_ms: answer.into_inner().wall_ms as i64 - middle, round_trip_ms };
        if best.is_none_or(|best| reading.round_trip_ms < best.round_trip_ms) {
            best = Some(reading);
        }
    }
    best
}

/// What an api's page of metrics says of its history.
async fn api(url: &str) -> Api {
    let lag = async {
        let rest = crate::rest::Rest::new(url, "default").map_err(|error| error.to_string())?;
        let page = tokio::time::timeout(PATIENCE, rest.metrics()).await;
        let page = page.map_err(|_| "no answer in time".to_owned())?.map_err(|error| error.to_string())?;
        let read = |name: &str| {
            let line = page.lines().find(|line| line.split([' ', '{']).next() == Some(name));
            let value = line.and_then(|line| line.rsplit(' ').next()).and_then(|value| value.parse::<f64>().ok());
            value.map(|value| value as u64).ok_or_else(|| format!("its metrics have no {name}"))
        };
        Ok((read("nova_history_lag_records")?, read("nova_history_age_seconds")?))
    };
    Api { url: url.to_owned(), lag: lag.await }
}

/// Compares the topics with what `nova admin topics` would make. Makes none.
async fn topics(doctor: &Doctor, named: &Named, layout: Option<(u32, u32)>) -> Result<Vec<Topic>, Failed> {
    let Some(settings) = &named.bus else { return Ok(Vec::new()) };
    let bus = settings.connect().map_err(|error| Failed::Usage(error.to_string()))?;
    let (shards, inboxes) = layout.unwrap_or((Layout::default().shards, Layout::default().inboxes));
    let specs = Layout { shards, events: doctor.events, inboxes, apis: APIS }.topics();
    Ok(join_all(specs.into_iter().map(|spec| topic(&bus, spec))).await)
}

async fn topic(bus: &SharedBus, spec: TopicSpec) -> Topic {
    let name = spec.topic.to_string();
    let problems = match bus.partitions(&spec.topic).await {
        Err(error) => Err(error.to_string()),
        Ok(None) => Ok(vec!["it does not exist".to_owned()]),
        // It is there, so it is compared and not made.
        Ok(Some(_)) => match bus.ensure_topics(std::slice::from_ref(&spec)).await {
            Ok(()) => Ok(Vec::new()),
            Err(BusError::WrongSettings { problems, .. }) => Ok(problems),
            Err(error) => Err(error.to_string()),
        },
    };
    Topic { name, problems }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        doctor: Doctor,
    }

    #[test]
    fn what_is_said_counts_more_than_a_file() {
        let folder = tempfile::tempdir().expect("a directory");
        let path = folder.path().join("scheduler.toml");
        let text = "coordinators = [\"http://a:1\"]\n[bus]\nbootstrap = \"a:2\"\nprefix = \"shop.\"\n";
        std::fs::write(&path, text).expect("written");
        let config = path.to_str().expect("a path");
        let of = |more: &[&str]| {
            let line = Line::parse_from(["doctor", "--config", config].iter().chain(more));
            let Named { coordinators, bus, .. } = named(&line.doctor).expect("nothing is wrong with it");
            let bus = bus.expect("the file names one");
            (coordinators.join(" "), bus.bootstrap, bus.prefix)
        };
        let told = |coordinator: &str, bus: &str| (coordinator.to_owned(), bus.to_owned(), "shop.".to_owned());
        assert_eq!(of(&[]), told("http://a:1", "a:2"));
        assert_eq!(of(&["--coordinator", "http://b:1"]), told("http://b:1", "a:2"));
        assert_eq!(of(&["--bootstrap", "b:2"]), told("http://a:1", "b:2"));
    }
}
