//! Network namespaces on a bridge, one for each host, and what gets through to them.
//!
//! The harness itself sits on the bridge and is never cut off: it sees all hosts as they are.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::IpAddr;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::hosts::{HOSTS, Host};
use crate::tools::{feed, run};

/// Something that does not get to a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// All that this one sends.
    From(Host),
    /// Of all packets so many in a hundred.
    Some(u8),
    /// What this one sends; its connections are reset.
    Reset(Host),
}

/// Namespaces of this process. They are removed when this is dropped.
#[derive(Debug)]
pub struct Net {
    /// Namespaces, bridge and links have it in their names.
    tag: String,
    number: u8,
    /// Hosts that have rules, or had some.
    ruled: BTreeSet<&'static str>,
}

impl Net {
    /// Makes the namespaces and joins them.
    ///
    /// # Errors
    /// When that is not permitted, or a tool is missing.
    pub fn make() -> Result<Self> {
        remove_leftovers()?;
        let taken = run("ip", &["-o", "-4", "addr"])?;
        let free = |number: &u8| !taken.contains(&format!(" 10.77.{number}.1/"));
        let number = (0..=255).find(free).context("all nets of 10.77 are taken")?;
        let net = Self { tag: format!("{}x{number}", std::process::id()), number, ruled: BTreeSet::new() };
        let bridge = net.bridge();
        run("ip", &["link", "add", &bridge, "type", "bridge"])
            .context("a network of its own needs root, on a machine that lets it make namespaces")?;
        let address = format!("10.77.{number}.1/24");
        run("ip", &["addr", "add", &address, "dev", &bridge])?;
        run("ip", &["link", "set", &bridge, "up"])?;
        for host in HOSTS {
            let (namespace, link) = (net.namespace(host), net.link(host));
            run("ip", &["netns", "add", &namespace])?;
            run("ip", &["link", "add", &link, "type", "veth", "peer", "name", "eth0", "netns", &namespace])?;
            run("ip", &["link", "set", &link, "master", &bridge, "up"])?;
            let address = format!("{}/24", host.address(number));
            let inner = format!("addr add {address} dev eth0\nlink set eth0 up\nlink set lo up\n");
            feed("ip", &["-n", &namespace, "-batch", "-"], &inner)?;
        }
        Ok(net)
    }

    fn bridge(&self) -> String {
        format!("b{}", self.tag)
    }

    /// Name of the harness's end of the link to a host.
    fn link(&self, host: Host) -> String {
        format!("v{}{host}", self.tag)
    }

    /// Name of the namespace of a host.
    #[must_use]
    pub fn namespace(&self, host: Host) -> String {
        format!("nova-{}-{host}", self.tag)
    }

    /// Where a host is.
    #[must_use]
    pub fn address(&self, host: Host) -> IpAddr {
        host.address(self.number)
    }

    /// Lets nothing through that these rules stop, each by the number of its fault, and all else.
    ///
    /// # Errors
    /// When `nft` fails.
    pub fn rule(&mut self, rules: &BTreeMap<&'static str, Vec<(usize, Rule)>>) -> Result<()> {
        let names: BTreeSet<&str> = rules.keys().copied().chain(self.ruled.iter().copied()).collect();
        for host in HOSTS.into_iter().filter(|host| names.contains(host.name)) {
            let mut script = String::from(
                "add table inet nova\nadd chain inet nova in { type filter hook input priority 0; }\nflush chain inet nova in\n",
            );
            for (fault, rule) in rules.get(host.name).into_iter().flatten() {
                let (matched, verdict) = match rule {
                    Rule::From(other) => (format!("ip saddr {}", self.address(*other)), "drop"),
                    Rule::Reset(other) => {
                        (format!("ip saddr {} meta l4proto tcp", self.address(*other)), "reject with tcp reset")
                    }
                    Rule::Some(percent) => (format!("iif eth0 numgen random mod 100 < {percent}"), "drop"),
                };
                write!(
                    script,
                    "add counter inet nova f{fault}\nadd rule inet nova in {matched} counter name f{fault} {verdict}\n"
                )?;
            }
            self.within(host, "nft", &["-f", "-"], &script)?;
            self.ruled.insert(host.name);
        }
        Ok(())
    }

    /// How many packets a fault has stopped, at all hosts.
    ///
    /// # Errors
    /// When `nft` fails.
    pub fn stopped(&self, fault: usize) -> Result<u64> {
        let wanted = format!("f{fault}");
        let mut all = 0;
        for host in HOSTS.into_iter().filter(|host| self.ruled.contains(host.name)) {
            let text = self.within(host, "nft", &["-j", "list", "counters", "table", "inet", "nova"], "")?;
            let said: Value = serde_json::from_str(&text).context("nft speaks JSON")?;
            let counters = said["nftables"].as_array().into_iter().flatten().map(|it| &it["counter"]);
            all += counters.filter(|it| it["name"] == *wanted).filter_map(|it| it["packets"].as_u64()).sum::<u64>();
        }
        Ok(all)
    }

    /// Makes what a host sends slow, or as it was.
    ///
    /// # Errors
    /// When `tc` fails, or does not know how.
    pub fn slow(&self, host: Host, how: Option<&[&str]>) -> Result<()> {
        let namespace = self.namespace(host);
        match how {
            Some(how) => {
                let args = ["-n", &namespace, "qdisc", "replace", "dev", "eth0", "root"];
                run("tc", &[&args[..], how].concat()).map(drop)
            }
            None => run("tc", &["-n", &namespace, "qdisc", "del", "dev", "eth0", "root"]).map(drop),
        }
    }

    /// Packets that had to wait.
    ///
    /// # Errors
    /// When `tc` fails.
    pub fn slowed(&self, host: Host) -> Result<u64> {
        let said = run("tc", &["-n", &self.namespace(host), "-s", "qdisc", "show", "dev", "eth0"])?;
        let sent = said.split_once("Sent ").and_then(|(_, rest)| rest.split_once(" bytes ")?.1.split_once(" pkt"));
        Ok(sent.and_then(|(packets, _)| packets.parse().ok()).unwrap_or(0))
    }

    /// Runs a tool where a host lives.
    fn within(&self, host: Host, program: &str, args: &[&str], input: &str) -> Result<String> {
        let namespace = self.namespace(host);
        feed("ip", &[&["netns", "exec", &namespace, program], args].concat(), input)
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        // Nobody is left to hear of a failure; the next one removes what is left.
        for host in HOSTS {
            // A namespace that is gone takes its end of the link with it some time later, and the name is taken until then.
            let _ = run("ip", &["link", "del", &self.link(host)]);
            let _ = run("ip", &["netns", "del", &self.namespace(host)]);
        }
        let _ = run("ip", &["link", "del", &self.bridge()]);
    }
}

/// Removes what a harness has left that was killed.
fn remove_leftovers() -> Result<()> {
    let is_dead = |tag: &str| {
        let pid = tag.split_once('x').and_then(|(pid, _)| pid.parse::<u32>().ok());
        pid.is_some_and(|pid| !std::path::Path::new(&format!("/proc/{pid}")).exists())
    };
    let listed = run("ip", &["netns", "list"])?;
    for name in listed.lines().filter_map(|line| line.split_whitespace().next()) {
        if name.strip_prefix("nova-").and_then(|rest| rest.split_once('-')).is_some_and(|(tag, _)| is_dead(tag)) {
            run("ip", &["netns", "del", name])?;
        }
    }
    let links = run("ip", &["-o", "link", "show", "type", "bridge"])?;
    for name in links.lines().filter_map(|line| line.split(": ").nth(1)) {
        if name.strip_prefix('b').is_some_and(is_dead) {
            run("ip", &["link", "del", name])?;
        }
    }
    Ok(())
}

/// Whether hosts can be cut off from each other here.
///
/// # Errors
/// With what is missing.
pub fn probe() -> Result<()> {
    let mut net = Net::make()?;
    let [one, other] = [HOSTS[0], HOSTS[1]];
    let hears = |net: &Net| {
        let address = net.address(one).to_string();
        let connect = format!("exec 3<>/dev/tcp/{address}/9");
        // Nobody listens there: who is heard is refused, who is not waits.
        let said = net.within(other, "timeout", &["1", "bash", "-c", &connect], "");
        said.is_err_and(|error| error.to_string().contains("refused"))
    };
    if !hears(&net) {
        bail!("two hosts on a bridge do not hear each other");
    }
    net.rule(&[(one.name, vec![(0, Rule::From(other))])].into())?;
    if hears(&net) || net.stopped(0)? == 0 {
        bail!("a rule that drops packets drops none");
    }
    net.rule(&BTreeMap::new())?;
    if !hears(&net) {
        bail!("packets are dropped by a rule that is gone");
    }
    Ok(())
}
