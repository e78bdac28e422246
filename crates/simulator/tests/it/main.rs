//! The world itself: time, order, network, death.

mod cluster;
mod disk;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use nova_simulator::{Skew, Socket, World, simulate};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const HOUR: Duration = Duration::from_secs(3_600);

/// Answers each byte with the next one.
async fn echo(socket: Socket) {
    let mut listener = socket.listen(7).expect("the port is free");
    while let Some(mut stream) = listener.accept().await {
        tokio::spawn(async move {
            while let Ok(byte) = stream.read_u8().await {
                if stream.write_u8(byte.wrapping_add(1)).await.is_err() {
                    return;
                }
            }
        });
    }
}

async fn ask(socket: Socket, address: &str, times: u32, heard: Arc<Mutex<Vec<String>>>) {
    let end = match socket.connect(address).await {
        Err(error) => error.kind().to_string(),
        Ok(mut stream) => loop {
            let asked = stream.write_u8(rand::random()).await;
            match (asked, stream.read_u8().await) {
                (Ok(()), Ok(_)) => heard.lock().push("answer".into()),
                (_, Err(error)) | (Err(error), _) => break error.kind().to_string(),
            }
            if heard.lock().len() >= times as usize {
                break "enough".into();
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        },
    };
    heard.lock().push(end);
}

#[test]
fn an_hour_passes_at_once_and_all_clocks_show_it() {
    let begun = Instant::now();
    let spans = simulate(1, |mut world| {
        let spans = Arc::new(Mutex::new(None));
        let own = Arc::clone(&spans);
        world.start("a", |_| async move {
            let (wall, steady) = (SystemTime::now(), Instant::now());
            tokio::time::sleep(HOUR).await;
            *own.lock() = Some((wall.elapsed().expect("it goes forward"), steady.elapsed()));
        });
        assert!(!world.run_until(HOUR / 2, || spans.lock().is_some()), "half an hour is not enough");
        assert!(world.run_until(HOUR, || spans.lock().is_some()));
        spans.lock().take()
    });
    let (wall, steady) = spans.expect("it ran");
    assert!(wall == steady && (HOUR..HOUR + Duration::from_millis(2)).contains(&steady), "{wall:?} {steady:?}");
    assert!(begun.elapsed() < HOUR / 60);
}

fn busy(world: &mut World) -> (u64, Vec<u64>) {
    let drawn = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::new(Mutex::new(Vec::new()));
    let server = world.net().clone();
    world.start("server", move |_| echo(server.socket("server")));
    for name in ["a", "b", "c"] {
        let (net, drawn, heard) = (world.net().clone(), Arc::clone(&drawn), Arc::clone(&heard));
        world.start(name, move |_| async move {
            let map: HashMap<u64, u64> = (0..50).map(|n| (n, rand::random())).collect();
            drawn.lock().extend(map.into_iter().flat_map(|(key, value)| [key, value]));
            ask(net.socket(name), "server:7", 200, heard).await;
        });
    }
    world.run_for(Duration::from_secs(60));
    let drawn = drawn.lock().clone();
    (world.trace_hash(), drawn)
}

#[test]
fn a_seed_repeats_every_step_and_every_random_number() {
    let run = |seed| simulate(seed, |mut world| busy(&mut world));
    for seed in [1, 2, 77] {
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
    assert_ne!(run(1), run(2));
}

#[test]
fn who_is_connected_to_a_process_that_dies_hears_of_it() {
    let heard = simulate(5, |mut world| {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let net = world.net().clone();
        let (server, client) = (net.clone(), net);
        let victim = world.start("server", move |_| echo(server.socket("server")));
        let own = Arc::clone(&heard);
        world.start("client", move |_| async move { ask(client.socket("client"), "server:7", 1_000, own).await });
        assert!(world.run_until(HOUR, || heard.lock().len() > 10));
        world.kill(victim);
        world.run_for(Duration::from_secs(1));
        drop(world);
        Arc::into_inner(heard)
    });
    let heard = heard.expect("all who heard are gone").into_inner();
    assert_eq!(heard.last().map(String::as_str), Some("connection reset"));
}

#[test]
fn nobody_listens_is_said_and_a_host_that_is_off_says_nothing() {
    simulate(5, |mut world| {
        let (no, nothing) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
        world.start("server", |_| async {});
        for (address, heard) in [("server:7", &no), ("elsewhere:7", &nothing)] {
            let (net, heard) = (world.net().clone(), Arc::clone(heard));
            world.start("client", move |_| async move { ask(net.socket("client"), address, 1, heard).await });
        }
        world.run_for(HOUR);
        assert_eq!(*no.lock(), ["connection refused"]);
        assert!(nothing.lock().is_empty());
    });
}

#[test]
fn what_is_sent_through_a_cut_comes_when_it_is_healed() {
    simulate(9, |mut world| {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let (server, client, own) = (world.net().clone(), world.net().clone(), Arc::clone(&heard));
        world.start("server", move |_| echo(server.socket("server")));
        world.start("client", move |_| async move { ask(client.socket("client"), "server:7", 1_000, own).await });
        assert!(world.run_until(HOUR, || heard.lock().len() > 10));
        world.net().cut(&["client"], &["server"]);
        world.run_for(Duration::from_secs(10));
        let before = heard.lock().len();
        world.run_for(HOUR);
        assert_eq!(heard.lock().len(), before, "nothing comes through");
        world.net().heal();
        assert!(world.run_until(Duration::from_secs(30), || heard.lock().len() > before + 100));
    });
}

#[test]
fn a_process_that_stands_still_goes_on_where_it_stood() {
    simulate(3, |mut world| {
        let ticks = Arc::new(AtomicU64::new(0));
        let own = Arc::clone(&ticks);
        let process = world.start("a", |_| async move {
            let mut every = tokio::time::interval(Duration::from_secs(1));
            every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
            loop {
                every.tick().await;
                own.fetch_add(1, Ordering::Relaxed);
            }
        });
        world.run_for(Duration::from_secs(10));
        world.pause(process, true);
        let before = ticks.load(Ordering::Relaxed);
        world.run_for(HOUR);
        assert_eq!(ticks.load(Ordering::Relaxed), before);
        world.pause(process, false);
        world.run_for(Duration::from_secs(10));
        assert!((before + 9..=before + 12).contains(&ticks.load(Ordering::Relaxed)));
    });
}

#[test]
fn clocks_that_are_off_show_it() {
    let minute = Duration::from_secs(60);
    let off = Skew { wall_ns: -60_000_000_000, drift_ppm: 1_000 };
    let shown = simulate(3, |mut world| {
        [Skew::default(), off].map(|skew| {
            let shown = Arc::new(Mutex::new(None));
            let own = Arc::clone(&shown);
            let begun = world.now();
            world.start_with("a", skew, |_| async move {
                let wall = SystemTime::now();
                tokio::time::sleep(HOUR).await;
                *own.lock() = Some(wall);
            });
            assert!(world.run_until(HOUR * 2, || shown.lock().is_some()));
            let wall = shown.lock().take().expect("it ran");
            (wall, begun, world.now() - begun)
        })
    });
    let [(right, first, hour), (behind, second, short)] = shown;
    // The second one began an hour later, on a clock that had gained 3.6 s by then, and slept 3.6 s less.
    let gained = Duration::from_millis(3_600);
    let expected = right + (second - first) + gained - minute;
    let between = |found: Duration, wanted: Duration| found.abs_diff(wanted) < Duration::from_millis(5);
    assert!(behind.max(expected).duration_since(behind.min(expected)).is_ok_and(|it| it < Duration::from_millis(5)));
    assert!(between(hour, HOUR) && between(short, HOUR - gained), "{hour:?} {short:?}");
}

#[test]
fn a_word_from_another_process_wakes_it() {
    simulate(3, |mut world| {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let done = Arc::new(AtomicBool::new(false));
        let own = Arc::clone(&done);
        world.start("waits", |_| async move { own.store(receiver.await.is_ok(), Ordering::Relaxed) });
        world.start("speaks", |_| async move {
            tokio::time::sleep(HOUR).await;
            sender.send(()).expect("somebody waits");
        });
        assert!(!world.run_until(HOUR / 2, || done.load(Ordering::Relaxed)));
        assert!(world.run_until(HOUR, || done.load(Ordering::Relaxed)));
    });
}
