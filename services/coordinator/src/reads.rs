//! Answers from the applied state.

use nova_engine::State;
use nova_engine::ids::ExecutionId;
use nova_engine::state::{Execution, NodeRecord, Scope};
use nova_wire::v1;

/// An open execution in full.
pub(crate) fn execution(state: &State, id: ExecutionId) -> Option<v1::ExecutionView> {
    let view = state.execution(id)?;
    let execution = &view.execution;
    Some(v1::ExecutionView {
        execution: nova_wire::execution_bytes(id),
        namespace: execution.workflow.namespace.to_string(),
        workflow: execution.workflow.name.to_string(),
        version: execution.workflow.version,
        state: nova_wire::execution_state_to_wire(view.state).into(),
        started_at_ms: execution.started_at.0,
        started_by: execution.started_by.to_string(),
        labels: nova_wire::labels_to_wire(&execution.labels),
        input: Some(nova_wire::payload_to_wire(&execution.input)),
        scopes: scopes(execution),
        events: execution.events,
    })
}

fn scopes(execution: &Execution) -> Vec<v1::ScopeView> {
    let program = &execution.workflow.program;
    let view = |(id, scope): (&nova_engine::ids::ScopeId, &Scope)| {
        let first = program.body(scope.body).nodes.start;
        v1::ScopeView {
            scope: id.0,
            body: scope.body.0,
            parent: scope.parent.map_or(0, |(parent, _)| parent.0),
            nodes: scope.nodes.iter().zip(first..).map(node).collect(),
        }
    };
    execution.scopes.iter().map(view).collect()
}

fn node((record, number): (&NodeRecord, u32)) -> v1::NodeView {
    v1::NodeView {
        node: number,
        state: nova_wire::node_state_to_wire(record.state).into(),
        arrived: record.arrived > 0,
        output: record.output.as_ref().filter(|_| record.ended()).map(nova_wire::payload_to_wire),
        failure: record.failure.as_deref().map(nova_wire::failure_to_wire),
        attempts: record.attempt,
        started_at_ms: record.started_at.map(|at| at.0),
        ended_at_ms: record.ended_at.map(|at| at.0),
        worker: record.worker.map(|worker| worker.0),
    }
}

/// All workers.
pub(crate) fn workers(state: &State) -> Vec<v1::WorkerView> {
    let view = |worker: &nova_engine::state::Worker| v1::WorkerView {
        worker: worker.id.0,
        name: worker.name.to_string(),
        pool: worker.pool.to_string(),
        kinds: worker.kinds.iter().map(ToString::to_string).collect(),
        labels: nova_wire::labels_to_wire(&worker.labels),
        session: worker.open.then_some(worker.session.0),
        capacity: worker.capacity,
        leases: worker.leases.len() as u32,
        draining: worker.draining,
        inbox: worker.inbox,
    };
    state.workers.all.iter().map(view).collect()
}

/// A version of a workflow, without its document.
pub(crate) fn workflow_info(workflow: &nova_engine::state::WorkflowVersion) -> v1::WorkflowInfo {
    v1::WorkflowInfo {
        namespace: workflow.namespace.to_string(),
        name: workflow.name.to_string(),
        version: workflow.version,
        hash: workflow.hash.to_vec().into(),
        created_at_ms: workflow.created_at.0,
    }
}

/// Namespaces, newest versions of workflows, triggers.
pub(crate) fn catalogue(state: &State) -> v1::GetCatalogueResponse {
    let namespace = |record: &nova_engine::state::NamespaceRecord| v1::Namespace {
        name: record.spec.name.to_string(),
        max_open_executions: record.spec.max_open_executions,
        max_keys: record.spec.max_keys,
    };
    let trigger = |it: &std::sync::Arc<nova_engine::input::Trigger>| v1::Trigger {
        namespace: it.namespace.to_string(),
        id: it.id.to_string(),
        workflow: it.workflow.to_string(),
        spec: it.spec.clone(),
    };
    v1::GetCatalogueResponse {
        revision: state.catalogue.revision,
        namespaces: state.catalogue.namespaces.values().map(namespace).collect(),
        workflows: state
            .catalogue
            .workflows
            .values()
            .filter_map(|all| all.last())
            .map(|it| workflow_info(it))
            .collect(),
        triggers: state.catalogue.triggers.values().map(trigger).collect(),
    }
}
