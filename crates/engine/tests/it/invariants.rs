//! What must hold between any two entries.

use std::collections::{BTreeMap, BTreeSet};

use nova_engine::State;
use nova_engine::ids::{Seq, Token, WorkerId};
use nova_engine::output::{NodeState, Subject};
use nova_engine::state::{Phase, Timer};
use nova_program::{BodyForm, NodeIx, NodeKind};

/// Recounts everything that the state counts, and looks for what is live twice or not at all.
pub fn check(state: &State) {
    assert!(state.resting.is_empty(), "who may rest is looked at with the entry");
    assert!(state.pending.is_empty(), "events of an entry leave with it");
    workers(state);
    let mut queued = BTreeSet::new();
    let mut leases = BTreeSet::new();
    let mut timers = BTreeSet::new();
    let mut open: BTreeMap<String, u64> = BTreeMap::new();
    for shard in &state.shards {
        let mut offers = BTreeSet::new();
        for (id, execution) in shard.executions.iter(&state.catalogue.versions) {
            let parked = shard.executions.is_parked(id);
            assert!(!parked || execution.offers.is_empty());
            assert_eq!((id, id.shard()), (execution.id, shard.id));
            *open.entry(execution.workflow.namespace.to_string()).or_default() += 1;
            timers.extend(execution.total.filter(|id| state.timers.contains_key(id)));
            offers.extend(execution.offers.iter().copied());
            let program = &*execution.workflow.program;
            let mut offered = BTreeSet::new();
            let mut children: BTreeMap<_, u32> = BTreeMap::new();
            for parent in execution.scopes.values().filter_map(|scope| scope.parent) {
                *children.entry(parent).or_default() += 1;
            }
            for (scope_id, scope) in &execution.scopes {
                let body = program.body(scope.body);
                assert_eq!(scope.nodes.len(), body.nodes.len());
                let live = scope.nodes.iter().filter(|node| node.state != NodeState::Pending && !node.ended()).count();
                assert_eq!(scope.live as usize, live, "living nodes of scope {scope_id}");
                if body.form == BodyForm::Graph {
                    let left = scope.nodes.iter().filter(|node| !node.ended()).count();
                    assert_eq!(scope.left as usize, left, "nodes left in scope {scope_id}");
                }
                let held: BTreeSet<_> = scope.held.iter().collect();
                assert_eq!(held.len(), scope.held.len(), "a node is held once");
                if body.parallel > 0 {
                    assert!(scope.live <= body.parallel, "no more at once than allowed");
                }
                if let Phase::Output(token) = scope.phase {
                    offered.insert(token);
                }
                for (record, ix) in scope.nodes.iter().zip(body.nodes.clone().map(NodeIx)) {
                    timers.extend(record.timer);
                    // The total timer has fired and something else ends the node.
                    timers.extend(record.total.filter(|id| state.timers.contains_key(id)));
                    let under = children.get(&(*scope_id, ix)).copied().unwrap_or(0);
                    assert_eq!(record.children, under, "child scopes of node {}", ix.0);
                    assert_eq!(record.held, scope.held.contains(&ix), "held as node {} says", ix.0);
                    let at = (id, *scope_id, ix);
                    let runs = !matches!(record.state, NodeState::Pending | NodeState::Waiting | NodeState::Retrying);
                    assert!(!parked || !runs || record.ended(), "nothing of a parked execution runs");
                    match record.state {
                        NodeState::Running | NodeState::Cancelling => {
                            let worker = record.worker.expect("a running node has a worker");
                            let lease = state.worker(worker).expect("a worker").leases.get(&record.token);
                            let lease = lease.expect("the worker has the lease of a running node");
                            assert_eq!((lease.execution, lease.scope, lease.node), at);
                            assert_eq!(lease.revoking, record.state == NodeState::Cancelling);
                            assert_eq!(record.after_stop.is_some(), lease.revoking);
                            leases.insert((worker, record.token));
                        }
                        NodeState::Queued => {
                            queued.insert((record.queued.expect("a place in the queue"), at));
                        }
                        NodeState::Evaluating => {
                            offered.insert(record.token);
                        }
                        NodeState::Retrying => assert!(record.timer.is_some(), "a retry has a timer"),
                        NodeState::Waiting => {
                            let scope = matches!(program.node(ix).kind, NodeKind::Scope(_) | NodeKind::Choose);
                            assert!(record.timer.is_some() != scope, "a wait has a timer, a scope has bodies");
                            assert!(!scope || record.children > 0, "a waiting scope has bodies");
                        }
                        _ => {
                            assert!(record.timer.is_none() && record.queued.is_none() && record.total.is_none());
                            assert_eq!(record.children, 0);
                        }
                    }
                    assert!(record.token < Token(state.next_token));
                    if let Some(retry) = &program.node(ix).retry {
                        assert!(record.attempt <= retry.max_attempts, "no more attempts than allowed");
                    }
                }
            }
            assert_eq!(offered, execution.offers, "offers of an execution are those that its scopes wait for");
        }
        assert_eq!(offers, shard.offers.keys().copied().collect(), "offers of a shard");
        for (token, offer) in &shard.offers {
            assert!(*token < Token(state.next_token) && offer.execution.shard() == shard.id);
            if let Subject::ScopeOutput(body) = offer.subject {
                assert_eq!(
                    shard.executions.live(offer.execution).expect("it is not parked").scopes[&offer.scope].body,
                    body
                );
            }
        }
        for (message, seq) in shard.outbox.messages.iter().zip(shard.outbox.acked.0 + 1..) {
            assert_eq!(message.seq, Seq(seq), "the outbox has no gaps");
        }
        assert!(!shard.outbox.messages.is_empty() || shard.outbox.bytes == 0, "an empty outbox weighs nothing");
    }
    let held: BTreeSet<(WorkerId, Token)> =
        state.workers.all.iter().flat_map(|worker| worker.leases.keys().map(|token| (worker.id, *token))).collect();
    assert_eq!(leases, held, "each lease has its node, each node at most one lease");
    let in_queue: BTreeSet<_> = state
        .queue
        .iter()
        .map(|(class, namespace, key, it)| {
            let execution = state.shards[usize::from(it.execution.shard().0)].executions.live(it.execution);
            let workflow = &execution.expect("who is queued is not parked").workflow;
            let NodeKind::Work { pool, kind, .. } = &workflow.program.node(it.node).kind else { panic!("no work") };
            assert_eq!((&**namespace, &class.0, &class.1), (&*workflow.namespace, pool, kind));
            assert_eq!(key.rank, 9 - workflow.program.priority);
            (key, (it.execution, it.scope, it.node))
        })
        .collect();
    assert_eq!(queued, in_queue, "the queue is what its nodes say");
    assert_eq!(state.queue.len() as usize, in_queue.len());
    let oldest = state.queue.iter().map(|(_, _, _, it)| it.since).min();
    assert_eq!(state.queue.oldest(), oldest, "nobody has waited longer");
    let mut anew = state.clone();
    anew.rebuild_indexes();
    assert!(anew.queue == state.queue, "whose turn it is follows from the leases and the nodes that wait");
    let set: BTreeSet<_> =
        state.timers.iter().filter(|(_, it)| !matches!(it, Timer::Key(..))).map(|(id, _)| id).collect();
    assert_eq!(timers, set, "each timer belongs to somebody");
    for (name, record) in &state.catalogue.namespaces {
        assert_eq!(record.open, open.get(&**name).copied().unwrap_or(0), "open executions of {name}");
        let keys = state.shards.iter().flat_map(|shard| shard.keys.keys()).filter(|(ns, _)| **ns == **name).count();
        assert_eq!(record.keys, keys as u64, "keys of {name}");
    }
}

/// Slots equal a recount; the index of free slots holds those who may get work, and nobody else.
fn workers(state: &State) {
    let mut free = BTreeSet::new();
    let mut inboxes: BTreeMap<u32, u32> = BTreeMap::new();
    for worker in &state.workers.all {
        assert!(worker.leases.len() <= worker.capacity as usize, "slots are never oversubscribed");
        assert!(worker.open || worker.leases.is_empty(), "a closed session holds nothing");
        if worker.open {
            *inboxes.entry(worker.inbox).or_default() += 1;
            let slots = worker.capacity - worker.leases.len() as u32;
            if !worker.draining && slots > 0 {
                free.insert((worker.pool.to_string(), slots, worker.id));
            }
        }
    }
    let index: BTreeSet<_> = state
        .workers
        .free
        .iter()
        .flat_map(|((pool, kinds), set)| {
            let able = move |id: &WorkerId| state.worker(*id).is_some_and(|worker| worker.kinds == *kinds);
            assert!(set.iter().all(|(_, id)| able(id)) && !set.is_empty());
            set.iter().map(|(slots, id)| (pool.to_string(), *slots, *id))
        })
        .collect();
    assert_eq!(free, index, "free slots are what leases leave");
    assert!(inboxes.values().all(|count| *count <= 8));
    let counted: BTreeMap<_, _> =
        state.workers.inboxes.iter().filter(|(_, n)| **n > 0).map(|(k, n)| (*k, *n)).collect();
    assert_eq!(inboxes, counted);
}
