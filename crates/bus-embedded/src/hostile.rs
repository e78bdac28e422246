//! For `nova-hostile` only: a decoder that nobody else has to see.

use bytes::Bytes;

use crate::format;

/// How many records stand in a frame; none where it is not one.
#[must_use]
pub fn records(frame: &[u8]) -> Option<usize> {
    let mut count = 0;
    format::chunks(&Bytes::copy_from_slice(frame), |chunk| {
        count += chunk.records().map_or(0, |records| records.len())
    })?;
    Some(count)
}
