//! What reaches the log can be read by every member.

use bytes::Bytes;
use nova_wire::{check_entry_body, entry_body_from_wire, v1};
use prost::Message;

fn proposal(commands: Vec<Bytes>) -> v1::EntryBody {
    let record = |(offset, commands)| v1::CommandRecord { offset, checksum: 0, commands };
    let records = (0..).zip(commands).map(record).collect();
    let proposal = v1::Proposal { records, ..v1::Proposal::default() };
    v1::EntryBody { kind: Some(v1::entry_body::Kind::Propose(proposal)) }
}

fn batch(kind: Option<v1::command::Kind>) -> Bytes {
    v1::CommandBatch { commands: vec![v1::Command { kind }] }.encode_to_vec().into()
}

#[test]
fn commands_that_nobody_can_read_are_taken_out_before_the_log() {
    let lease = v1::LeaseRef { execution: vec![0; 16].into(), ..v1::LeaseRef::default() };
    let good = batch(Some(v1::command::Kind::Stopped(v1::Stopped { lease: Some(lease) })));
    // One of a kind that is not known here, and one that is no message at all.
    let mut body = proposal(vec![good.clone(), batch(None), Bytes::from_static(b"\xff\xff\xff")]);
    assert!(entry_body_from_wire(body.clone()).is_err(), "as it is, it would stop every member");
    assert_eq!(check_entry_body(&mut body).unwrap(), 2);
    let Some(v1::entry_body::Kind::Propose(checked)) = &body.kind else { panic!("{body:?}") };
    let commands: Vec<_> = checked.records.iter().map(|record| record.commands.clone()).collect();
    assert_eq!(commands, [good, Bytes::new(), Bytes::new()], "records keep their places");
    assert!(entry_body_from_wire(body).is_ok());
}
