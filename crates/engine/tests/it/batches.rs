//! The same records, cut into other proposals (rule 3): what must be equal is.

use nova_engine::ids::{Offset, Token};
use nova_engine::input::{Command, Dedupe, EntryBody, Proposal, Record};
use nova_engine::output::{ExecutionEvent, MessageBody};
use nova_engine::state::Shard;
use proptest::prelude::*;

use crate::build::program;
use crate::rig::{Rig, SHARD, checksum};
use crate::tape::{Tape, program_text};

/// Records of submissions and cancels; no worker, so that no slot is filled between them.
fn records(tape: &mut Tape<'_>, rig: &mut Rig) -> Vec<Record> {
    let mut submitted = Vec::new();
    let mut records = Vec::new();
    for offset in 0..1 + tape.below(12) as u64 {
        let mut commands = Vec::new();
        for _ in 0..tape.below(4) {
            if tape.one_in(4)
                && let Some(execution) = tape.pick(&submitted).copied()
            {
                commands.push(Command::Cancel { execution, reason: "stop".into(), reply_to: None });
                continue;
            }
            let mut submit = rig.submission();
            submit.content_hash = [tape.below(2) as u8; 32];
            submit.dedupe = match tape.below(3) {
                0 => Dedupe::None,
                1 => Dedupe::Key(format!("k{}", tape.below(3)).into()),
                _ => Dedupe::Source { source: "s".into(), number: tape.below(9) as u64 },
            };
            submitted.push(submit.execution);
            commands.push(Command::Submit(submit));
        }
        records.push(Record { offset: Offset(offset), checksum: checksum(offset), commands });
    }
    records
}

/// Proposes records in batches that overlap the ones before, are repeated, or leave a gap; rewinds as an owner would.
fn propose(tape: &mut Tape<'_>, rig: &mut Rig, records: &[Record]) {
    loop {
        let next = rig.state.shards[0].next_offset.0 as usize;
        if next == records.len() {
            return;
        }
        let first = match tape.below(4) {
            0 | 1 => next,
            2 => next + 1,
            _ => tape.below(next + 1),
        };
        let end = (next + 1 + tape.below(6)).min(records.len());
        if first >= end {
            continue;
        }
        let before = if first == 0 { 0 } else { checksum(first as u64 - 1) };
        rig.entry(EntryBody::Propose(Proposal {
            first_offset: Offset(first as u64),
            next_offset: Offset(end as u64),
            before,
            records: records[first..end].to_vec(),
            ..rig.proposal(vec![])
        }));
    }
}

/// Events of all executions in their order, however they were gathered into messages.
fn events(rig: &Rig) -> Vec<(u128, u64, ExecutionEvent)> {
    let mut all = Vec::new();
    for message in &rig.state.shards[0].outbox.messages {
        if let MessageBody::Events(events) = &message.body {
            let numbered = events.events.iter().cloned().zip(events.first_number..);
            all.extend(numbered.map(|(event, number)| (events.execution.0, number, event)));
        }
    }
    all.sort_by_key(|(id, number, _)| (*id, *number));
    all
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("WALKS").ok().and_then(|n| n.parse().ok()).unwrap_or(300),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn how_records_are_cut_into_batches_does_not_matter(bytes in proptest::collection::vec(any::<u8>(), 20..300)) {
        let mut tape = Tape::new(&bytes);
        let text = program_text(&mut tape);
        let mut rigs = [Rig::new(program(&text)), Rig::new(program(&text))];
        let records = records(&mut tape, &mut rigs[0]);
        for rig in &mut rigs {
            propose(&mut tape, rig, &records);
        }
        let [one, other] = rigs;
        let without_outbox = |rig: &Rig| Shard { outbox: Default::default(), ..(*rig.state.shards[0]).clone() };
        prop_assert!(without_outbox(&one) == without_outbox(&other));
        prop_assert_eq!(&one.state.queue, &other.state.queue);
        prop_assert_eq!(&one.state.timers, &other.state.timers);
        prop_assert_eq!(&one.state.catalogue, &other.state.catalogue);
        prop_assert_eq!(one.state.next_token, other.state.next_token);
        prop_assert_eq!(events(&one), events(&other));
        prop_assert_eq!(one.state.offers(SHARD, Token(0), 999), other.state.offers(SHARD, Token(0), 999));
    }
}
