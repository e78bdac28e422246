//! Talks to the coordinators.
//!
//! Owns: connections to the members, finding the leader, how often and how long to try.
//! Must not know: what a request means. A request that may have been taken is never repeated here unless its caller says
//! that a repeat is harmless.

pub mod load;
mod transport;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use nova_host::Dialer;
use nova_wire::v1::coordinator_client::CoordinatorClient;
use nova_wire::v1::coordinator_server::{Coordinator, CoordinatorServer};
use parking_lot::Mutex;
use tokio::time::Instant;
use tonic::transport::Endpoint;
use tonic::{Code, Status};

pub use transport::Transport;

/// Metadata of a refusal that names the leader: `<id>@<address>`.
pub const LEADER_METADATA: &str = "nova-leader";

/// Largest message to or from a coordinator.
pub const MAX_MESSAGE_BYTES: usize = 64 << 20;

/// Pause between two tries when nobody leads.
const PAUSE: Duration = Duration::from_millis(50);

/// Longest wait for one member before the others are asked: about what an election takes.
const TRY: Duration = Duration::from_secs(1);

/// The address of a member in this process.
const HERE: &str = "here";

/// A client of one member.
pub type Member = CoordinatorClient<Transport>;

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Certainly not taken by anybody in the time given.
    #[error("no coordinator leads or can be reached: {last}")]
    Unavailable {
        /// What the last try came to.
        last: String,
    },
    /// It may or may not have been taken.
    #[error("outcome unknown: {0}")]
    OutcomeUnknown(String),
    /// It is wrong.
    #[error("refused: {}", .0.message())]
    Refused(Status),
}

/// Whether a request may be sent again when nobody knows if it was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// It changes nothing, so it does not matter whether it was taken.
    Read,
    /// It changes the same thing twice.
    Harmless,
    /// Once at most.
    Never,
}

/// Talks to a group of coordinators. Clones share their connections.
#[derive(Clone)]
pub struct Coordinators(Arc<Inner>);

struct Inner {
    addresses: Vec<String>,
    dialer: Dialer,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    members: BTreeMap<String, Member>,
    leader: Option<String>,
    next: usize,
}

impl Coordinators {
    /// A client of the group with these members (`http://host:port`); some of them are enough.
    #[must_use]
    pub fn new(addresses: Vec<String>) -> Self {
        Self::dialing(addresses, Dialer::Tcp)
    }

    /// The same, with connections that this makes.
    #[must_use]
    pub fn dialing(addresses: Vec<String>, dialer: Dialer) -> Self {
        Self(Arc::new(Inner { addresses, dialer, state: Mutex::new(State::default()) }))
    }

    /// A client of the one member of a group that runs in this process: nothing between them goes through the system.
    #[must_use]
    pub fn here<S: Coordinator>(member: CoordinatorServer<S>) -> Self {
        let own = Self::new(vec![HERE.into()]);
        own.0.state.lock().members.insert(HERE.into(), limited(CoordinatorClient::new(Transport::here(member))));
        own
    }

    /// The member that was last seen to lead, else the next one in turn.
    fn candidate(&self) -> Result<(String, Member), String> {
        let mut state = self.0.state.lock();
        let address = match &state.leader {
            Some(leader) => leader.clone(),
            None => {
                state.next += 1;
                let all = &self.0.addresses;
                all.get(state.next % all.len().max(1)).cloned().ok_or("no coordinator is configured")?
            }
        };
        if let Some(member) = state.members.get(&address) {
            return Ok((address, member.clone()));
        }
        let endpoint = Endpoint::from_shared(address.clone()).map_err(|error| format!("{address}: {error}"))?;
        let endpoint = endpoint
            .connect_timeout(Duration::from_secs(1))
            .http2_keep_alive_interval(Duration::from_secs(2))
            .keep_alive_timeout(Duration::from_secs(2))
            .keep_alive_while_idle(true);
        let member = limited(CoordinatorClient::new(Transport::Network(self.0.dialer.channel(endpoint))));
        state.members.insert(address.clone(), member.clone());
        Ok((address, member))
    }

    /// Learns from a refusal who leads. Gives whether the request was certainly not taken.
    pub fn learn(&self, asked: &str, status: &Status) -> bool {
        let told = status.metadata().get(LEADER_METADATA).and_then(|value| value.to_str().ok());
        let told = told.and_then(|text| text.split_once('@')).map(|(_, address)| address.to_owned());
        let mut state = self.0.state.lock();
        let refused = told.is_some() || status.code() == Code::FailedPrecondition;
        match told {
            Some(leader) if leader != asked => state.leader = Some(leader),
            _ if state.leader.as_deref() == Some(asked) => state.leader = None,
            _ => {}
        }
        refused
    }

    fn leads(&self, address: String) {
        self.0.state.lock().leader = Some(address);
    }

    /// Sends a request to the leader, wherever it is, within `limit`. A member that is silent for a second is left, and the
    /// others are asked, when the request may be repeated.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn call<T, F, R>(&self, limit: Duration, repeat: Repeat, request: F) -> Result<T, ClientError>
    where
        F: Fn(Member) -> R,
        R: Future<Output = Result<tonic::Response<T>, Status>>,
    {
        // Leaving a member early gains nothing when no other may be asked.
        let each = if repeat == Repeat::Never { limit } else { TRY };
        self.tries(limit, each, repeat, request).await
    }

    /// As [`Coordinators::call`], for a request that takes its time to be answered: a member may be silent all along.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn call_slow<T, F, R>(&self, limit: Duration, repeat: Repeat, request: F) -> Result<T, ClientError>
    where
        F: Fn(Member) -> R,
        R: Future<Output = Result<tonic::Response<T>, Status>>,
    {
        self.tries(limit, limit, repeat, request).await
    }

    async fn tries<T, F, R>(
        &self,
        limit: Duration,
        each: Duration,
        repeat: Repeat,
        request: F,
    ) -> Result<T, ClientError>
    where
        F: Fn(Member) -> R,
        R: Future<Output = Result<tonic::Response<T>, Status>>,
    {
        let end = Instant::now() + limit;
        let mut last = String::from("no time");
        // Whether a member may have taken it without our knowing, and it changes something.
        let mut doubtful = false;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(if doubtful {
                    ClientError::OutcomeUnknown(last)
                } else {
                    ClientError::Unavailable { last }
                });
            }
            let (address, member) = self.candidate().map_err(|last| ClientError::Unavailable { last })?;
            let status = match tokio::time::timeout(left.min(each), request(member)).await {
                Ok(Ok(response)) => {
                    self.leads(address);
                    return Ok(response.into_inner());
                }
                Ok(Err(status)) => status,
                Err(_) => Status::deadline_exceeded("no answer in time"),
            };
            let not_taken = self.learn(&address, &status);
            let code = status.code();
            if matches!(code, Code::InvalidArgument | Code::NotFound | Code::Unimplemented | Code::PermissionDenied) {
                return Err(ClientError::Refused(status));
            }
            // A connection that could not be made has carried nothing.
            let unconnected = code == Code::Unavailable && status.message().contains("connect");
            last = format!("{address}: {}", status.message());
            doubtful |= repeat != Repeat::Read && !not_taken && !unconnected;
            if doubtful && repeat == Repeat::Never {
                return Err(ClientError::OutcomeUnknown(last));
            }
            if self.0.state.lock().leader.is_none() {
                tokio::time::sleep(PAUSE.min(left)).await;
            }
        }
    }

    /// The member to open a stream with: the leader, as far as one is known. Who finds that it does not lead calls
    /// [`Coordinators::learn`] and asks again.
    ///
    /// # Errors
    /// When no address is configured or one is not an address.
    pub fn leader(&self) -> Result<(String, Member), ClientError> {
        self.candidate().map_err(|last| ClientError::Unavailable { last })
    }

    /// A client of one member, whatever it is.
    ///
    /// # Errors
    /// When the address is not one.
    pub fn member(address: &str) -> Result<Member, ClientError> {
        let unusable = |error: tonic::transport::Error| ClientError::Unavailable { last: error.to_string() };
        let endpoint = Endpoint::from_shared(address.to_owned()).map_err(unusable)?;
        let channel = endpoint.connect_timeout(Duration::from_secs(1)).connect_lazy();
        Ok(CoordinatorClient::new(Transport::Network(channel)))
    }

    /// The configured addresses.
    #[must_use]
    pub fn addresses(&self) -> &[String] {
        &self.0.addresses
    }
}

fn limited(member: Member) -> Member {
    member.max_decoding_message_size(MAX_MESSAGE_BYTES).max_encoding_message_size(MAX_MESSAGE_BYTES)
}

#[cfg(test)]
mod tests;
