//! What each member says of itself.

use std::time::Duration;

use nova_client::Coordinators;
use nova_wire::v1;

use crate::error::chain;

const PATIENCE: Duration = Duration::from_secs(10);

/// A member that was asked.
pub struct Asked {
    /// Where.
    pub address: String,
    /// Its number, if one that answered named it.
    pub member: Option<u64>,
    /// What it says, or why nothing.
    pub answer: Result<v1::DescribeResponse, String>,
}

/// Asks one member, for all but the hash of its state.
pub async fn ask(address: &str) -> Result<v1::DescribeResponse, String> {
    describe(address, true).await
}

async fn describe(address: &str, without_hash: bool) -> Result<v1::DescribeResponse, String> {
    let mut member = Coordinators::member(address).map_err(|error| chain(&error))?;
    let answer = tokio::time::timeout(PATIENCE, member.describe(v1::DescribeRequest { without_hash })).await;
    let answer = answer.map_err(|_| "no answer in time".to_owned())?;
    answer.map(tonic::Response::into_inner).map_err(|status| status.message().to_owned())
}

/// Asks these, and all that they name.
pub async fn ask_all(addresses: &[String]) -> Vec<Asked> {
    let mut all: Vec<Asked> = Vec::new();
    let mut next: Vec<(Option<u64>, String)> = addresses.iter().map(|address| (None, address.clone())).collect();
    while !next.is_empty() {
        let asking = next.iter().map(|(_, address)| describe(address, false));
        let answers = futures::future::join_all(asking).await;
        for ((member, address), answer) in std::mem::take(&mut next).into_iter().zip(answers) {
            let member = answer.as_ref().ok().map(|answer| answer.member).or(member);
            all.push(Asked { address, member, answer });
        }
        let named = all.iter().filter_map(|it| it.answer.as_ref().ok()).flat_map(|answer| &answer.members);
        for member in named {
            let known = all.iter().any(|it| it.address == member.address);
            if !known && next.iter().all(|(_, address)| *address != member.address) {
                next.push((Some(member.id), member.address.clone()));
            }
        }
    }
    // Under two names it is still one member.
    let mut seen = std::collections::BTreeSet::new();
    all.retain(|it| it.answer.as_ref().map_or(true, |answer| seen.insert((answer.cluster.clone(), answer.member))));
    all
}
