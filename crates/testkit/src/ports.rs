//! Free ports on loopback.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::sync::Mutex;

use crate::{Error, Result};

/// Below the range from which the kernel gives ports to clients: none of them can take one before its server does.
const LOW: u16 = 15_000;
const HIGH: u16 = 32_000;
/// Ports that were given out by this process are not given out again: a server that is restarted wants its own.
static TAKEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// A free port.
///
/// # Errors
/// When none is found.
pub fn free_port() -> Result<u16> {
    Ok(free_ports(1)?[0])
}

/// `count` free ports.
///
/// # Errors
/// When there are not so many.
pub fn free_ports(count: usize) -> Result<Vec<u16>> {
    (0..count).map(|_| free_ports_apart(&[0])).collect::<Result<_>>().or(Err(Error::NoPorts { count }))
}

/// A port that is free together with those at the given distances behind it.
///
/// # Errors
/// When there is no such group.
pub fn free_ports_apart(distances: &[u16]) -> Result<u16> {
    let mut taken = TAKEN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    for _ in 0..10_000 {
        let first = rand::random_range(LOW..HIGH);
        let group: Vec<u16> = distances.iter().map(|distance| first + distance).collect();
        // All at once: a port that is bound and let go in turn could be counted twice.
        let free = group.iter().all(|port| !taken.contains(port));
        let bound: Vec<_> = group.iter().filter_map(|port| TcpListener::bind(("127.0.0.1", *port)).ok()).collect();
        if free && bound.len() == group.len() {
            taken.extend(&group);
            return Ok(first);
        }
    }
    Err(Error::NoPorts { count: distances.len() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_distinct_and_can_be_bound() {
        let ports = free_ports(20).unwrap();
        let distinct: BTreeSet<_> = ports.iter().collect();
        assert_eq!(distinct.len(), 20);
        for port in ports {
            TcpListener::bind(("127.0.0.1", port)).unwrap();
        }
    }

    #[test]
    fn a_group_is_free_at_its_distances() {
        let first = free_ports_apart(&[0, 10]).unwrap();
        for port in [first, first + 10] {
            TcpListener::bind(("127.0.0.1", port)).unwrap();
        }
    }

    #[test]
    fn a_port_in_use_is_not_given_out() {
        let listeners: Vec<_> =
            free_ports(5).unwrap().into_iter().map(|p| TcpListener::bind(("127.0.0.1", p)).unwrap()).collect();
        let more = free_ports(50).unwrap();
        for listener in listeners {
            assert!(!more.contains(&listener.local_addr().unwrap().port()));
        }
    }
}
