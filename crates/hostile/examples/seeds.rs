//! Writes what each target begins with, from the examples and from messages as services send them:
//! `cargo run -p nova-hostile --example seeds`. Inputs that were found to break something lie beside them and stay.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use nova_engine::ids::TimeMs;
use nova_engine::input::Entry;
use nova_engine::{Config, State};
use nova_journal::{Journal, Options};
use nova_model::{Format, compile, parse};
use nova_wire::v1::{self, entry_body};
use nova_wire::{ClusterId, raft_v1};
use prost::Message;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn write(target: &str, name: &str, bytes: impl AsRef<[u8]>) {
    let folder = root().join("crates/hostile/corpus").join(target);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(name), bytes).unwrap();
}

fn example(name: &str) -> Vec<u8> {
    fs::read(root().join("examples").join(name)).unwrap()
}

/// Behind its length.
fn long(bytes: &[u8]) -> Vec<u8> {
    let mut all = u16::try_from(bytes.len()).unwrap().to_le_bytes().to_vec();
    all.extend(bytes);
    all
}

fn tiny(text: &str) -> Vec<u8> {
    let mut all = vec![u8::try_from(text.len()).unwrap()];
    all.extend(text.as_bytes());
    all
}

fn inline(json: &'static str) -> v1::Payload {
    v1::Payload { kind: Some(v1::payload::Kind::Inline(Bytes::from_static(json.as_bytes()))) }
}

fn documents() {
    let json = r#"{"apiVersion":"nova/v1","kind":"Workflow","metadata":{"name":"j"},"spec":{"input":{"type":"object","required":["n"],
        "properties":{"n":{"type":"integer"}}},"do":[{"id":"a","type":"task","kind":"echo","with":{"n":"${ input.n + 1 }"},
        "retry":{"maxAttempts":3}},{"id":"b","type":"wait","for":"5s"}]}}"#;
    let nested = "apiVersion: nova/v1\nkind: Workflow\nmetadata: { name: s }\nspec:\n  vars: { n: 1 }\n  do:\n    - id: i\n      type: if\n      test: ${ vars.n > 0 }\n      then: [ { id: x, type: task, kind: noop } ]\n      else: [ { id: y, type: task, kind: fail } ]\n    - &a { id: z, type: task, kind: noop, timeout: 5s }\n";
    for (name, format, document) in [
        ("hello", 1, example("hello.yaml")),
        ("order", 1, example("order.yaml")),
        ("lowcode", 2, example("lowcode.json")),
        ("json", 0, json.into()),
        ("nested", 1, nested.into()),
        ("noop", 0, b"{ apiVersion: nova/v1, kind: Workflow, metadata: { name: noop }, spec: { do: [ { id: a, type: task, kind: noop } ] } }".into()),
        ("anchors", 1, b"a: &a [1]\nb: *a\nc: !!str 1\n? [k]\n: v\n".into()),
        ("deep", 2, [b"[".repeat(200), b"]".repeat(200)].concat()),
    ] {
        write("document", name, [&[format], &document[..]].concat());
    }
    let input =
        br#"{"n":3,"list":[1,2.5,"x",null,{"a":[true]}],"text":"\u00e4\ud83d\ude00 b","at":"2026-03-29T01:30:00Z"}"#;
    for (name, source) in [
        ("arithmetic", "input.n * 2 - 7 / (1 + input.n) % 3 == -1 || !(1.5 >= 2)"),
        ("loops", "input.list.map(x, [x, x].filter(y, y != null)).all(z, size(z) < 5)"),
        ("texts", "input.text.upperAscii() + 'a'.replace('a', input.text) + string(1e300)"),
        ("times", "timestamp(input.at) + duration('36h') < now() ? uuid() : string(random())"),
        ("objects", "{'a': input.list[4].a, 'b': has(input.nothing), 'c': input['n'] in [1, 2, 3]}"),
        ("matches", "input.text.matches('^(a|b)*c?$') && input.text.contains('b')"),
        ("nested", "((((((((((input.n))))))))))"),
    ] {
        write("expression", name, [&long(source.as_bytes())[..], input].concat());
    }
    for (pattern, zone) in [
        ("*/10 * * * *", "Europe/Berlin"),
        ("30 2 * * *", "America/New_York"),
        ("0 0 29 2 *", "UTC"),
        ("15 30 2 L * MON#2", "Pacific/Apia"),
        ("0 12 15W * ?", "Asia/Kathmandu"),
        ("@daily", "Africa/Casablanca"),
    ] {
        let name: String = zone.chars().filter(char::is_ascii_alphanumeric).collect();
        write("cron", &name, [tiny(pattern), tiny(zone), 1_774_746_000_000_u64.to_le_bytes().to_vec()].concat());
    }
    write(
        "trigger",
        "cron",
        r#"{"id":"t","workflow":"w","version":2,"type":"cron","schedule":"0 0 * * *","timezone":"Europe/Berlin","catchUp":"all","input":{"a":[1]}}"#,
    );
    write(
        "trigger",
        "kafka",
        r#"{"id":"k","workflow":"w","type":"kafka","topic":"orders","from":"earliest","input":"record"}"#,
    );
    write("trigger", "wrong", r#"{"id":"","workflow":7,"type":"cron","schedule":"* * *","tz":1}"#);
    let cloud_event = r#"{"specversion":"1.0","type":"order.created","source":"/shop","id":"7","time":"2026-01-01T00:00:00Z","datacontenttype":"application/json","data":{"n":18446744073709551615}}"#;
    write("record", "cloud-event", [&[7, 2, 3][..], b"keyceabc", cloud_event.as_bytes()].concat());
    write("record", "bytes", [&[5, 1, 2][..], b"\xff\xfeh\xff\x00", b"[1e400,\"\\ud800\"]"].concat());
    write("record", "empty", [0, 0, 0]);
    write("config", "coordinator", example("cluster/coordinator-1.toml"));
    write("config", "bus", "bootstrap = \"a:9092\"\nprefix = \"p.\"\n[properties]\n\"sasl.password\" = \"x\"\n");
    write(
        "config",
        "flags",
        "listen = \"a:1\"\n+trace.ratio=2\n+labels={ zone = \"b\" }\n+bus.properties={ \"sasl.password\" = \"x\" }\n$MEMBERS=[\"1@http://h:1\"]\n$MAX_BODY_BYTES=1\n$BUS__PREFIX=7",
    );
}

fn messages() {
    let home = ClusterId::of_name("nova");
    let order = compile(&parse(&example("order.yaml"), "order.yaml", Format::Yaml).unwrap()).unwrap();
    let id = |n: u8| Bytes::from(vec![0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, n]);
    let submit = |n: u8, dedupe| v1::Submit {
        execution: id(n),
        namespace: "default".into(),
        workflow: order.name.clone(),
        version: 1,
        hash: Bytes::copy_from_slice(&order.hash),
        input: Some(inline(r#"{"items":[1,2],"customer":"a"}"#)),
        content_hash: vec![n; 32].into(),
        reply_to: Some(v1::ReplyTo { inbox: 0, boot: 1, request: u64::from(n) }),
        reply_at_end: true,
        started_by: "api".into(),
        labels: vec![v1::Label { name: "a".into(), value: "b".into() }],
        trace: None,
        dedupe,
    };
    let lease = v1::LeaseRef { execution: id(1), token: 1, worker: 1, session: 1 };
    let commands = |kinds: Vec<v1::command::Kind>| {
        let commands = kinds.into_iter().map(|kind| v1::Command { kind: Some(kind) }).collect();
        Bytes::from(v1::CommandBatch { commands }.encode_to_vec())
    };
    let key = Some(v1::submit::Dedupe::Key("k".into()));
    let source = Some(v1::submit::Dedupe::Source(v1::Source { source: "s".into(), number: 1 }));
    let first = commands(vec![
        v1::command::Kind::Submit(submit(1, key)),
        v1::command::Kind::Submit(submit(2, source)),
        v1::command::Kind::Cancel(v1::Cancel { execution: id(2), reason: "why".into(), reply_to: None }),
    ]);
    let second = commands(vec![
        v1::command::Kind::Result(v1::TaskResult {
            lease: Some(lease.clone()),
            trace: None,
            outcome: Some(v1::task_result::Outcome::Completed(inline("1"))),
        }),
        v1::command::Kind::Stopped(v1::Stopped { lease: Some(lease.clone()) }),
        v1::command::Kind::Declined(v1::Declined { lease: Some(lease), reason: "full".into() }),
    ]);
    write("commands", "submits", &first);
    write("commands", "results", &second);
    write("envelope", "commands", nova_wire::seal(home, v1::RecordKind::Commands, 1, second.clone()));
    write("envelope", "changed", [&[1, 0, 1, 40, 0, 3][..], &second].concat());

    let propose = |first_offset: u64, commands: &Bytes, locals| {
        entry_body::Kind::Propose(v1::Proposal {
            shard: 0,
            epoch: 1,
            first_offset,
            next_offset: first_offset + 1,
            before: 0,
            records: vec![v1::CommandRecord { offset: first_offset, checksum: 0, commands: commands.clone() }],
            locals,
            outbox_acked: first_offset,
        })
    };
    let program = Some(nova_wire::program_to_wire(&order.program));
    let kinds = [
        entry_body::Kind::PutWorkflow(v1::PutWorkflow {
            namespace: "default".into(),
            name: order.name.clone(),
            hash: Bytes::copy_from_slice(&order.hash),
            program,
            document: Bytes::from_static(b"{}"),
        }),
        entry_body::Kind::Register(v1::Register {
            name: "w".into(),
            pool: "default".into(),
            kinds: ["echo", "noop", "http", "sleep", "fail"].map(Into::into).into(),
            labels: vec![],
            capacity: 4,
            boot: 1,
            last_session: 0,
            fenced: false,
            inboxes: 4,
        }),
        entry_body::Kind::Grant(v1::Grant { shard: 0, after: 0, owner: 7 }),
        propose(0, &first, vec![]),
        propose(1, &second, vec![]),
        entry_body::Kind::Tick(v1::Tick {}),
        entry_body::Kind::SessionLost(v1::SessionLost { worker: 1, session: 1, counted_in_term: 1 }),
        entry_body::Kind::PutTrigger(v1::Trigger {
            namespace: "default".into(),
            id: "t".into(),
            workflow: order.name.clone(),
            spec: Bytes::from_static(b"{}"),
        }),
    ];
    let mut state = State::new(Config { shards: 2 });
    let mut run = Vec::new();
    for (index, kind) in (1..).zip(kinds) {
        let body = v1::EntryBody { kind: Some(kind) };
        let bytes = body.encode_to_vec();
        run.extend([&long(&bytes)[..2], &[1], &bytes].concat());
        let body = nova_wire::entry_body_from_wire(body).unwrap();
        let verdict = state.apply(&Entry { now: TimeMs(index * 1_000), index, term: 1, body });
        println!("{verdict:?}");
    }
    write("entry", "run", &run);
    let messages: Vec<_> = state.shards[0].outbox.messages.iter().map(|it| nova_wire::message_to_wire(it)).collect();
    println!("{} messages, {} executions", messages.len(), state.shards[0].executions.len());
    write("outbox", "run", v1::OutboxBatch { messages }.encode_to_vec());

    let mut stream = vec![0];
    nova_wire::write_snapshot(&state, &mut stream).unwrap();
    write("snapshot", "stream", &stream);
    let mut chunks = vec![1];
    for chunk in nova_wire::snapshot_to_wire(&state) {
        chunks.extend(long(&chunk.encode_to_vec()));
    }
    write("snapshot", "chunks", &chunks);
    let golden = fs::read(root().join("crates/wire/tests/golden/snapshot-3.bin")).unwrap();
    write("snapshot", "golden", [&[0], &golden[..]].concat());
    let mut rest = &golden[..];
    let mut chunks = vec![1];
    while let Some((head, more)) = rest.split_at_checked(12) {
        let length = u32::from_le_bytes(head[..4].try_into().unwrap()) as usize;
        chunks.extend(long(&more[..length]));
        rest = &more[length..];
    }
    write("snapshot", "golden-chunks", chunks);

    let id = |index| Some(raft_v1::LogId { term: 3, node: 1, index });
    let membership = br#"{"configs":[[1,2,3]],"nodes":{"1":{"addr":"http://a:1"},"2":{"addr":"http://b:1"},"3":{"addr":"http://c:1"}}}"#;
    let payloads = [
        None,
        Some(raft_v1::entry::Payload::Command(Bytes::from_static(b"command"))),
        Some(raft_v1::entry::Payload::Membership(Bytes::from_static(membership))),
    ];
    let entries = (5..).zip(payloads).map(|(index, payload)| raft_v1::Entry { id: id(index), payload }).collect();
    let request = raft_v1::AppendRequest {
        target: Some(raft_v1::Target { cluster: Bytes::copy_from_slice(&home.0), member: 2 }),
        vote: Some(raft_v1::Vote { term: 3, node: 1, committed: true }),
        prev: id(4),
        commit: id(4),
        entries,
    };
    let written = request.encode_to_vec();
    nova_replication::hostile::append(&written).expect("it is read");
    write("raft_append", "three", written);
}

fn files() {
    let options = Options { magic: *b"HOSTILE1", cluster: [7; 16], segment_bytes: 16 << 10 };
    let folder = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(folder.path(), options, |_, _, _| {}).unwrap();
    for frame in ["one", "two", "three"] {
        journal.commit(&[Bytes::from_static(frame.as_bytes())]).unwrap();
    }
    drop(journal);
    let mut file = fs::read(folder.path().join("0000000000000001.log")).unwrap();
    file.truncate(200);
    write("segment", "file", [&[0], &file[..]].concat());
    write("segment", "torn", [&[0], &file[..80]].concat());
    write("segment", "frames", [&[1, 3, 1, 2, 1][..], b"aaaabbbbbbbbcccc", &[70, 0, 1]].concat());
    write("segment", "whole", [&[1, 2, 1, 1][..], b"aaaabbbb"].concat());

    let mut frame = Vec::new();
    frame.extend(long(b"nova.commands"));
    frame.extend(3_u32.to_le_bytes());
    frame.extend(9_u64.to_le_bytes());
    frame.extend(1_u64.to_le_bytes());
    frame.extend(1_u32.to_le_bytes());
    let record = [
        &[1][..],
        &3_u32.to_le_bytes(),
        b"key",
        &1_u16.to_le_bytes(),
        &long(b"h"),
        &1_u32.to_le_bytes(),
        b"v",
        &5_u32.to_le_bytes(),
        b"value",
    ]
    .concat();
    frame.extend((record.len() as u32).to_le_bytes());
    frame.extend(&record);
    assert_eq!(nova_bus_embedded::hostile::records(&frame), Some(1));
    write("bus_frame", "one", &frame);

    let header = br#"{"meta":{"last_log_id":{"leader_id":{"term":1,"node_id":1},"index":1},"last_membership":{"log_id":null,"membership":{"configs":[],"nodes":{}}},"snapshot_id":"a"},"seen":[1]}"#;
    let file = nova_hostile::snapshot_of(header, b"state");
    write("snapshot_file", "one", file);
    write("snapshot_file", "parts", [&long(header)[..], b"state"].concat());
}

fn main() {
    documents();
    messages();
    files();
}
