//! Asks the other members what time it is (rule 6).

use std::collections::BTreeMap;
use std::time::Duration;

use metrics::gauge;
use nova_client::{Coordinators, Repeat};
use nova_host::Dialer;
use nova_replication::Group;
use nova_wire::v1;
use tonic::Response;

use crate::clock::{SharedClock, boot_ms};
use crate::machine::EngineMachine;
use crate::metrics::CLOCK_OFF;

const EVERY: Duration = Duration::from_secs(2);
/// Longest wait for one answer.
const PATIENCE: Duration = Duration::from_millis(500);
/// A clock that is as far off the others is worth a word, in milliseconds.
const OFF_MS: i64 = 500;

pub(crate) async fn run(group: Group<EngineMachine>, own: u64, dialer: Dialer, clock: SharedClock) {
    let status = group.status();
    let mut clients: BTreeMap<(u64, String), Coordinators> = BTreeMap::new();
    let mut told = false;
    loop {
        let members: Vec<(u64, String)> =
            status.borrow().members.iter().filter(|it| it.id != own).map(|it| (it.id, it.address.clone())).collect();
        clients.retain(|member, _| members.contains(member));
        clock.keep(&members.iter().map(|(id, _)| *id).collect::<Vec<_>>());
        for member in members {
            let address = vec![member.1.clone()];
            clients.entry(member).or_insert_with(|| Coordinators::dialing(address, dialer.clone()));
        }
        let asking = clients.iter().map(|((member, _), client)| ask(*member, client, &clock));
        futures::future::join_all(asking).await;
        let off_ms = clock.off_ms();
        gauge!(CLOCK_OFF).set(off_ms as f64 / 1_000.0);
        let off = off_ms.abs() > OFF_MS;
        if off && !told {
            tracing::warn!(off_ms, "the wall clock of this member is off those of the others");
        }
        told = off;
        tokio::time::sleep(EVERY).await;
    }
}

async fn ask(member: u64, client: &Coordinators, clock: &SharedClock) {
    let asking = client.call(PATIENCE, Repeat::Read, |mut one| async move {
        let asked = boot_ms();
        let answer = one.get_clock(v1::GetClockRequest {}).await?.into_inner();
        Ok(Response::new((answer.wall_ms, asked, boot_ms())))
    });
    // Who does not answer is asked again.
    if let Ok((wall_ms, asked, answered)) = asking.await {
        clock.told(member, wall_ms, asked, answered);
    }
}
