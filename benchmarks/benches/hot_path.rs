//! What the steps of the hot path cost, each alone.
#![allow(clippy::unwrap_used)]

mod engine;

use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use nova_expression::{Expression, Lazy, Scope};
use nova_journal::{Journal, Options};
use nova_wire::{ClusterId, v1};
use prost::Message;

use crate::engine::Shard;

/// Commands in one record, submissions in one entry.
const BATCH: usize = 256;

fn apply(c: &mut Criterion) {
    let mut group = c.benchmark_group("engine");
    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function("submit and result", |bench| {
        let mut shard = Shard::new();
        bench.iter(|| {
            let entry = shard.submissions(BATCH);
            shard.apply(entry);
            let entry = shard.results();
            black_box(shard.apply(entry))
        });
    });
}

fn record(commands: usize) -> Bytes {
    let submit = |n: usize| v1::Submit {
        execution: vec![n as u8; 16].into(),
        namespace: "default".into(),
        workflow: "noop".into(),
        version: 1,
        hash: vec![7; 32].into(),
        input: Some(v1::Payload { kind: Some(v1::payload::Kind::Inline(Bytes::from_static(b"{\"n\":1}"))) }),
        content_hash: vec![1; 32].into(),
        reply_to: Some(v1::ReplyTo { inbox: 0, boot: 1, request: n as u64 }),
        started_by: "api".into(),
        ..v1::Submit::default()
    };
    let commands = (0..commands).map(|n| v1::Command { kind: Some(v1::command::Kind::Submit(submit(n))) }).collect();
    v1::CommandBatch { commands }.encode_to_vec().into()
}

fn codec(c: &mut Criterion) {
    let mut group = c.benchmark_group("wire");
    group.throughput(Throughput::Elements(BATCH as u64));
    let (cluster, body) = (ClusterId::of_name("bench"), record(BATCH));
    let sealed = nova_wire::seal(cluster, v1::RecordKind::Commands, 0, body.clone());
    group.bench_function("seal", |bench| {
        bench.iter(|| black_box(nova_wire::seal(cluster, v1::RecordKind::Commands, 0, body.clone())));
    });
    group.bench_function("open", |bench| bench.iter(|| black_box(nova_wire::open(&sealed, cluster).unwrap())));
    group.bench_function("decode commands", |bench| {
        bench.iter(|| black_box(nova_wire::commands_from_wire(body.clone()).unwrap()));
    });
}

fn expression(c: &mut Criterion) {
    let mut group = c.benchmark_group("expression");
    let input = br#"{"name": "Ada", "lines": [{"sku": "tea", "quantity": 2}, {"sku": "cup", "quantity": 3}]}"#;
    for (name, source) in [("field", "input.name"), ("sum of a list", "sum(input.lines.map(l, l.quantity * 2))")] {
        let compiled = Expression::compile(source).unwrap();
        group.bench_function(name, |bench| {
            bench.iter(|| {
                let scope = Scope::new(0, 0).with("input", Lazy::json(input));
                black_box(compiled.evaluate(&scope).unwrap())
            });
        });
    }
}

fn journal(c: &mut Criterion) {
    let mut group = c.benchmark_group("journal");
    let dir = tempfile::tempdir().unwrap();
    let options = Options { magic: *b"NOVABNCH", cluster: [1; 16], segment_bytes: 64 << 20 };
    let mut journal = Journal::open(dir.path(), options, |_, _, _| {}).unwrap();
    let frame = Bytes::from(vec![7; 64 << 10]);
    group.throughput(Throughput::Bytes(frame.len() as u64));
    group.bench_function("commit and sync 64 KiB", |bench| {
        bench.iter(|| black_box(journal.commit(std::slice::from_ref(&frame)).unwrap()));
    });
}

criterion_group!(benches, apply, codec, expression, journal);
criterion_main!(benches);
