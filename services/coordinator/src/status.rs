//! Refusals as gRPC statuses, in one place.

use nova_client::LEADER_METADATA;
use nova_replication::{MembershipError, ProposeError, ReadError};
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

use crate::proposer::NoVerdict;

pub(crate) fn not_leader(leader: Option<(u64, String)>) -> Status {
    // Both say that certainly nothing was taken.
    let Some((id, address)) = leader else { return Status::failed_precondition("no leader is known") };
    let mut status = Status::failed_precondition("this member does not lead");
    if let Ok(value) = MetadataValue::try_from(format!("{id}@{address}")) {
        status.metadata_mut().insert(LEADER_METADATA, value);
    }
    status
}

pub(crate) fn no_verdict(why: NoVerdict) -> Status {
    match why {
        NoVerdict::NotLeader(leader) => not_leader(leader),
        NoVerdict::Malformed(why) => Status::invalid_argument(why),
        NoVerdict::Unknown(why) => Status::new(Code::DeadlineExceeded, why),
    }
}

pub(crate) fn read(error: ReadError) -> Status {
    match error {
        ReadError::NotLeader { leader } => not_leader(leader),
        ReadError::NoQuorum => Status::unavailable("no quorum"),
    }
}

pub(crate) fn malformed(error: nova_wire::WireError) -> Status {
    Status::invalid_argument(error.to_string())
}

pub(crate) fn membership(error: MembershipError) -> Status {
    match error {
        MembershipError::NotLeader { leader } => not_leader(leader),
        error @ (MembershipError::IdUsed { .. } | MembershipError::Refused(_)) => {
            Status::invalid_argument(error.to_string())
        }
        MembershipError::Timeout => Status::deadline_exceeded(MembershipError::Timeout.to_string()),
    }
}

pub(crate) fn proposed(error: ProposeError) -> Status {
    match error {
        ProposeError::NotLeader { leader } => not_leader(leader),
        ProposeError::OutcomeUnknown { why } => Status::deadline_exceeded(why),
        ProposeError::Stopped { why } => Status::unavailable(why),
    }
}
