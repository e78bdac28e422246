//! From a workflow to its program and its plan.

mod graph;
mod layout;
mod names;
mod nodes;
mod warnings;

use nova_expression::Template;
use nova_program::{Body, BodyForm, BodyIx, Edge, NodeIx, Program, ScopeOutput, Variable};

use crate::limits;
use crate::plan::{Plan, ScopeValue};
use crate::problem::codes;
use crate::report::Report;
use crate::syntax::Workflow;
use crate::tree::Tree;
use graph::Graph;
use layout::Layout;
use names::{Names, ReadSet, Seat};

/// The program and plan; meaningless when the report has errors afterwards.
pub(crate) fn build(workflow: &Workflow<'_>, report: &mut Report) -> (Program, Plan) {
    let layout = Layout::new(workflow, report);
    let graph = Graph::new(&layout, report);
    let mut builder = Builder { names: Names { layout: &layout, graph: &graph, report } };
    let mut program = Program { timeouts: workflow.timeouts, priority: workflow.priority, ..Program::default() };
    let mut plan = Plan::default();
    program.edges = graph.paths.iter().map(|path| Edge { port: path.port, target: path.target }).collect();
    for ix in (0..layout.nodes.len() as u32).map(NodeIx) {
        let (node, node_plan) = builder.node(ix);
        program.nodes.push(node);
        plan.nodes.push(node_plan);
    }
    for ix in (0..layout.bodies.len() as u32).map(BodyIx) {
        let (body, value) = builder.body(ix);
        program.bodies.push(body);
        plan.bodies.push(value);
    }
    program.variables = builder.variables();
    warnings::tell(workflow, &layout, &graph, &program, &plan, report);
    (program, plan)
}

pub(crate) struct Builder<'a, 'w, 't> {
    names: Names<'a, 'w, 't>,
}

impl Builder<'_, '_, '_> {
    fn body(&mut self, ix: BodyIx) -> (Body, ScopeValue) {
        let layout = self.names.layout;
        let scope = layout.scope(ix);
        let mut reads = ReadSet::default();
        let value = match (scope.body.output, scope.body.form) {
            (Some(tree), _) => {
                let template = self.names.template(tree, Seat::ScopeOutput(ix), &mut reads);
                template.map_or(ScopeValue::LastStep, ScopeValue::Template)
            }
            (None, BodyForm::List) => ScopeValue::LastStep,
            (None, BodyForm::Graph) => {
                let needed = &self.names.graph.needed;
                let finals: Vec<NodeIx> = layout.siblings(ix).filter(|node| !needed[node.0 as usize]).collect();
                reads.nodes.extend(finals.iter().copied());
                ScopeValue::Finals(finals)
            }
        };
        let output = match value {
            ScopeValue::LastStep => ScopeOutput::LastStep,
            _ => ScopeOutput::Evaluated,
        };
        let body = Body {
            form: scope.body.form,
            nodes: scope.nodes.clone(),
            owner: scope.owner,
            case: scope.case,
            vars: scope.vars.clone(),
            output,
            output_reads: reads.into_reads(),
            parallel: scope.body.parallel,
        };
        (body, value)
    }

    fn variables(&mut self) -> Vec<Variable> {
        let layout = self.names.layout;
        let variables = layout.vars.iter().map(|var| {
            let start = self.fixed(var.start, "the start value of a variable").unwrap_or_else(|| b"null".to_vec());
            Variable { name: var.name.text.into(), body: var.body, start: start.into() }
        });
        variables.collect()
    }

    /// The JSON of a value without anything to evaluate.
    fn fixed(&mut self, tree: &Tree, what: &str) -> Option<Vec<u8>> {
        let mut reads = ReadSet::default();
        let template = self.names.template(tree, Seat::ScopeOutput(BodyIx::ROOT), &mut reads)?;
        let Some(value) = template.constant_value() else {
            let message = format!("{what} that is evaluated is not yet supported here");
            self.names.report.error(codes::NEEDS_FEATURE, tree.at, message);
            return None;
        };
        self.small(tree, value.to_json().unwrap_or_default(), what)
    }

    /// The JSON of a constant template.
    fn constant(&mut self, tree: &Tree, template: &Template, what: &str) -> Option<Vec<u8>> {
        let json = template.constant_value()?.to_json().ok()?;
        self.small(tree, json, what)
    }

    fn small(&mut self, tree: &Tree, json: Vec<u8>, what: &str) -> Option<Vec<u8>> {
        if json.len() > limits::CONSTANT_BYTES {
            let message = format!("{what} has {} bytes, at most {} are allowed", json.len(), limits::CONSTANT_BYTES);
            self.names.report.error(codes::LIMIT, tree.at, message);
            return None;
        }
        Some(json)
    }
}
