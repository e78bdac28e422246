//! Talks to the coordinators.
//!
//! Owns: connections to the members, finding the leader, how often and how long to try.
//! Must not know: what a request means. A request that may have been taken is never repeated here unless its caller says
//! that a repeat is harmless.

pub mod load;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nova_wire::v1::coordinator_client::CoordinatorClient;
use parking_lot::Mutex;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

/// Metadata of a refusal that names the leader: `<id>@<address>`.
pub const LEADER_METADATA: &str = "nova-leader";

/// Largest message to or from a coordinator.
pub const MAX_MESSAGE_BYTES: usize = 64 << 20;

/// Pause between two tries when nobody leads.
const PAUSE: Duration = Duration::from_millis(50);

/// A client of one member.
pub type Member = CoordinatorClient<Channel>;

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
    /// It changes nothing, or the same thing twice.
    Harmless,
    /// Once at most.
    Never,
}

/// Talks to a group of coordinators. Clones share their connections.
#[derive(Clone)]
pub struct Coordinators(Arc<Inner>);

struct Inner {
    addresses: Vec<String>,
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
        Self(Arc::new(Inner { addresses, state: Mutex::new(State::default()) }))
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
            .keep_alive_while_idle(true)
            .tcp_nodelay(true);
        let member = CoordinatorClient::new(endpoint.connect_lazy())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
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

    /// Sends a request to the leader, wherever it is, within `limit`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn call<T, F, R>(&self, limit: Duration, repeat: Repeat, request: F) -> Result<T, ClientError>
    where
        F: Fn(Member) -> R,
        R: Future<Output = Result<tonic::Response<T>, Status>>,
    {
        let end = Instant::now() + limit;
        let mut last = String::from("no time");
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ClientError::Unavailable { last });
            }
            let (address, member) = self.candidate().map_err(|last| ClientError::Unavailable { last })?;
            let status = match tokio::time::timeout(left, request(member)).await {
                Ok(Ok(response)) => {
                    self.leads(address);
                    return Ok(response.into_inner());
                }
                Ok(Err(status)) => status,
                Err(_) if repeat == Repeat::Harmless => {
                    return Err(ClientError::Unavailable { last: "no answer".into() });
                }
                Err(_) => return Err(ClientError::OutcomeUnknown("no answer in time".into())),
            };
            let not_taken = self.learn(&address, &status);
            let code = status.code();
            if matches!(code, Code::InvalidArgument | Code::NotFound | Code::Unimplemented | Code::PermissionDenied) {
                return Err(ClientError::Refused(status));
            }
            // A connection that could not be made has carried nothing.
            let unconnected = code == Code::Unavailable && status.message().contains("connect");
            if repeat == Repeat::Never && !not_taken && !unconnected {
                return Err(ClientError::OutcomeUnknown(status.message().to_owned()));
            }
            last = format!("{address}: {}", status.message());
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
        Ok(CoordinatorClient::new(endpoint.connect_timeout(Duration::from_secs(1)).connect_lazy()))
    }

    /// The configured addresses.
    #[must_use]
    pub fn addresses(&self) -> &[String] {
        &self.0.addresses
    }
}
