//! Decides what a step comes to: reads the state, changes nothing, and says it as events.

mod command;
mod local;
mod node;
mod scope;
mod timer;
mod worker;

pub(crate) use worker::pick;

use crate::event::Event;
use crate::ids::{ShardId, Token};
use crate::input::{Command, EntryBody, Local};
use crate::limits;
use crate::output::{Refusal, Rejection};
use crate::state::{State, Timer, TimerId};
use crate::work::Work;

/// One thing to decide.
#[derive(Clone, Copy, Debug)]
pub enum Step<'a> {
    /// A command of a record in the log of this shard.
    Command(ShardId, &'a Command),
    /// An evaluation, by the owner of this shard.
    Local(ShardId, &'a Local),
    /// A step of a cascade.
    Work(Work),
    /// A timer that is due.
    Timer(TimerId, &'a Timer),
    /// Any entry but a proposal.
    Entry(&'a EntryBody, u64),
    /// A lease that ended with its session.
    LeaseLost(crate::ids::WorkerId, Token),
    /// A lease whose assignment or result was lost in the bus.
    LeaseDropped(crate::ids::WorkerId, Token),
    /// The first queued node that a free slot fits.
    Fill,
}

/// Why a step changed nothing.
#[derive(Clone, Debug, PartialEq)]
pub enum Nothing {
    /// A command was rejected; the rejection itself is an event where somebody wants to hear.
    Rejected(Rejection),
    /// An entry was refused.
    Refused(Refusal),
    /// It came too late, twice, or for something that is no more.
    Stale,
}

/// Appends to `out` what `step` comes to.
///
/// # Errors
/// Why it changes nothing; `out` may still hold answers to those who asked.
pub fn decide(state: &State, step: Step<'_>, out: &mut Vec<Event>) -> Result<(), Nothing> {
    let mut decider = Decider { state, out, tokens: 0, scopes: 0 };
    match step {
        Step::Command(shard, command) => decider.command(shard, command),
        Step::Local(shard, local) => decider.local(shard, local),
        Step::Work(work) => {
            decider.work(work);
            Ok(())
        }
        Step::Timer(id, timer) => {
            decider.timer(id, timer);
            Ok(())
        }
        Step::Entry(body, term) => decider.entry(body, term),
        Step::LeaseLost(worker, token) => decider.lease_lost(worker, token),
        Step::LeaseDropped(worker, token) => decider.lease_dropped(worker, token),
        Step::Fill => decider.fill(),
    }
}

struct Decider<'a> {
    state: &'a State,
    out: &'a mut Vec<Event>,
    /// Tokens given out in this step.
    tokens: u64,
    /// Scope instances made in this step.
    scopes: u32,
}

impl Decider<'_> {
    fn token(&mut self) -> Token {
        let token = Token(self.state.next_token + self.tokens);
        self.tokens += 1;
        token
    }

    fn say(&mut self, event: Event) {
        self.out.push(event);
    }

    fn work(&mut self, work: Work) {
        match work {
            Work::Enter(execution, scope, from) => self.enter(execution, scope, from),
            Work::Begin(at) => self.begin(at),
            Work::Join(at) => self.join(at),
            Work::Ended(at, edge) => self.ended(at, edge),
            Work::Settle(execution, scope) => self.settle(execution, scope),
            Work::Stop(execution, scope, from) => self.stop(execution, scope, from),
        }
    }
}

/// Whether a text that people wrote is within its limit and not empty.
fn text_fits(text: &str) -> bool {
    !text.is_empty() && text.len() <= limits::MAX_TEXT
}
