//! For `nova-hostile` only: decoders that nobody else has to see.

use std::io::Read;
use std::path::Path;

use nova_wire::raft_v1 as v1;
use prost::Message;

use crate::codec::{append_from_wire, append_to_wire};
use crate::snapshot::SnapshotDir;

/// A request with entries, read and written again.
#[must_use]
pub fn append(bytes: &[u8]) -> Option<Vec<u8>> {
    let request = v1::AppendRequest::decode(bytes).ok()?;
    let target = request.target.clone().unwrap_or_default();
    let request = append_from_wire(request).ok()?;
    Some(append_to_wire(target, &request).ok()?.encode_to_vec())
}

/// A member that finds this file as its newest snapshot.
///
/// # Panics
/// When what is read is not as long as the file says.
pub fn snapshot_file(folder: &Path, bytes: &[u8]) {
    let file = folder.join("0000000000000001-0000000000000001.snap");
    if std::fs::write(&file, bytes).is_err() {
        return;
    }
    let Ok(dir) = SnapshotDir::open(folder.into(), [7; 16]) else { return };
    let Some(current) = dir.current() else { return };
    let mut read = Vec::new();
    let body = current.body().and_then(|mut body| body.read_to_end(&mut read));
    assert!(body.is_ok_and(|count| count < bytes.len()), "the checksum was right");
}
