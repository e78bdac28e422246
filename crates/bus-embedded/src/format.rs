//! How appends stand in a frame, little-endian.
//!
//! ```text
//! frame  = chunk*
//! chunk  = name_len(2) name partition(4) first(8) timestamp_ms(8) count(4) body_len(4) record*
//! record = flags(1) [key_len(4) key] headers(2) (name_len(2) name value_len(4) value)* value_len(4) value
//! ```

use bytes::{Buf, BufMut, Bytes, BytesMut};
use nova_bus::{Outgoing, Record, Topic};

const HAS_KEY: u8 = 1;

pub(crate) struct Chunk {
    pub topic: Topic,
    pub partition: u32,
    pub first: u64,
    pub count: u32,
    pub timestamp_ms: u64,
    body: Bytes,
}

pub(crate) fn write(
    out: &mut BytesMut,
    topic: &Topic,
    partition: u32,
    first: u64,
    timestamp_ms: u64,
    records: &[Outgoing],
) {
    put_short(out, topic.name().as_bytes());
    out.put_u32_le(partition);
    out.put_u64_le(first);
    out.put_u64_le(timestamp_ms);
    out.put_u32_le(records.len() as u32);
    let length_at = out.len();
    out.put_u32_le(0);
    for record in records {
        out.put_u8(if record.key.is_some() { HAS_KEY } else { 0 });
        if let Some(key) = &record.key {
            put_long(out, key);
        }
        out.put_u16_le(record.headers.len() as u16);
        for (name, value) in &record.headers {
            put_short(out, name.as_bytes());
            put_long(out, value);
        }
        put_long(out, &record.value);
    }
    let length = (out.len() - length_at - 4) as u32;
    out[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
}

fn put_short(out: &mut BytesMut, bytes: &[u8]) {
    out.put_u16_le(bytes.len() as u16);
    out.put_slice(bytes);
}

fn put_long(out: &mut BytesMut, bytes: &[u8]) {
    out.put_u32_le(bytes.len() as u32);
    out.put_slice(bytes);
}

/// Shows the chunks of a frame; none when it is not one.
pub(crate) fn chunks(frame: &Bytes, mut visit: impl FnMut(Chunk)) -> Option<()> {
    let mut rest = frame.clone();
    while rest.has_remaining() {
        let topic = topic(&take_short(&mut rest)?)?;
        let partition = rest.try_get_u32_le().ok()?;
        let first = rest.try_get_u64_le().ok()?;
        let timestamp_ms = rest.try_get_u64_le().ok()?;
        let count = rest.try_get_u32_le().ok()?;
        let body = take_long(&mut rest)?;
        // Positions behind the last one there can be are damage that its checksum does not show.
        first.checked_add(u64::from(count))?;
        visit(Chunk { topic, partition, first, count, timestamp_ms, body });
    }
    Some(())
}

pub(crate) fn topic(name: &[u8]) -> Option<Topic> {
    let name = std::str::from_utf8(name).ok()?;
    Some(Topic::OWN.into_iter().find(|own| own.name() == name).unwrap_or_else(|| Topic::Named(name.into())))
}

impl Chunk {
    pub(crate) fn records(self) -> Option<Vec<Record>> {
        let mut rest = self.body;
        let read = (self.first..self.first + u64::from(self.count)).map(|offset| {
            let flags = rest.try_get_u8().ok()?;
            let key = if flags & HAS_KEY == 0 { None } else { Some(take_long(&mut rest)?) };
            let count = rest.try_get_u16_le().ok()?;
            let mut headers = Vec::with_capacity(usize::from(count));
            for _ in 0..count {
                let name = take_short(&mut rest)?;
                headers.push((std::str::from_utf8(&name).ok()?.into(), take_long(&mut rest)?));
            }
            Some(Record { offset, timestamp_ms: self.timestamp_ms, key, headers, value: take_long(&mut rest)? })
        });
        read.collect()
    }
}

fn take_short(rest: &mut Bytes) -> Option<Bytes> {
    let length = usize::from(rest.try_get_u16_le().ok()?);
    (length <= rest.len()).then(|| rest.split_to(length))
}

fn take_long(rest: &mut Bytes) -> Option<Bytes> {
    let length = rest.try_get_u32_le().ok()? as usize;
    (length <= rest.len()).then(|| rest.split_to(length))
}
