//! A Kafka for the tests, started by the project's script and stopped with the last test that uses it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, SystemTime};

use nova_bus::{Topic, TopicSpec};
use nova_bus_kafka::{Config, KafkaBus};
use tempfile::TempDir;

/// Longest wait for something that must come.
pub const SOON: Duration = Duration::from_secs(60);

/// A broker that is there while somebody holds it.
pub struct Broker {
    pub bootstrap: String,
    folder: Option<TempDir>,
}

static SHARED: Mutex<Weak<Broker>> = Mutex::new(Weak::new());

/// The broker that tests share which leave it alone. `NOVA_KAFKA_BOOTSTRAP` names one that is running already.
pub fn shared() -> Arc<Broker> {
    let mut shared = SHARED.lock().unwrap();
    if let Some(broker) = shared.upgrade() {
        return broker;
    }
    let broker = Arc::new(match std::env::var("NOVA_KAFKA_BOOTSTRAP") {
        Ok(bootstrap) => Broker { bootstrap, folder: None },
        Err(_) => Broker::start(1),
    });
    *shared = Arc::downgrade(&broker);
    broker
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/kafka.sh")
}

impl Broker {
    pub fn start(brokers: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut broker = Self { bootstrap: String::new(), folder: Some(folder) };
        let out = broker.script(&["start", "--brokers", &brokers.to_string()], &[]);
        broker.bootstrap = out.lines().find_map(|line| line.strip_prefix("bootstrap=")).unwrap().to_owned();
        broker
    }

    /// Runs a command of the script on this cluster.
    pub fn script(&self, before: &[&str], after: &[&str]) -> String {
        let folder = self.folder.as_ref().expect("only a broker of our own is touched").path();
        let out = Command::new(script()).args(before).arg(folder).args(after).output().unwrap();
        let said = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(out.status.success(), "{before:?}: {said} {}", String::from_utf8_lossy(&out.stderr));
        said
    }

    pub fn config(&self) -> Config {
        Config::new(&self.bootstrap)
    }

    pub fn connect(&self) -> KafkaBus {
        KafkaBus::connect(self.config()).unwrap()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if self.folder.is_some() {
            self.script(&["crash"], &[]);
        }
    }
}

/// A name that no earlier run has used: a broker that was running already may hold its topics.
pub fn unique(name: &str) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    format!("{name}-{}-{}", std::process::id(), now.as_micros())
}

pub fn spec(name: &str, partitions: u32) -> TopicSpec {
    TopicSpec { topic: Topic::Named(unique(name).into()), partitions, retention_ms: 86_400_000 }
}
