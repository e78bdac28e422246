//! Who may do what: all that may happen next in a state.

use super::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Action {
    Cancel,
    /// Scheduler: becomes owner with the next epoch, reads applied offset and watermark.
    Take(u8),
    Propose {
        s: u8,
        next: u8,
    },
    /// Scheduler: an answer is missing or says "gap": go back to the applied offset.
    Rewind(u8),
    Evaluate {
        s: u8,
        exec: u8,
        node: u8,
    },
    /// Network: a proposal arrives, is committed and applied. It may come again.
    Deliver(Proposal),
    /// Scheduler, also a superseded one: next outbox entry to its topic, acknowledged by the bus.
    Publish(u8),
    PublishTwoSwapped(u8),
    /// Scheduler: the watermark reaches the coordinator.
    Ack(u8),
    /// Coordinator: the other member wins an election and its first entry is committed. Who led before does not know.
    Elect,
    /// Member that leads, or believes so: a renewal arrives, perhaps again, perhaps by way of another member.
    Receive {
        m: u8,
        r: Renewal,
    },
    /// It begins a round of confirmation for all that waits ...
    Begin(u8),
    /// ... a quorum takes part in it, which it does only for the leader of the newest term ...
    Agree(u8),
    /// ... and the leader, perhaps paused meanwhile, answers.
    Return(u8),
    JudgeLost {
        m: u8,
        w: u8,
    },
    /// Coordinator's leader: an attempt passes its time limit.
    AttemptTimeout {
        exec: u8,
        node: u8,
    },
    Register(u8),
    Seek(u8),
    TwinRegisters(u8),
    Crash(u8),
    /// Worker: asks for a session; the request may be applied late or twice.
    AskSession {
        w: u8,
        after: u8,
    },
    Open(Ask),
    Adopt(u8),
    /// Worker: the answer to a renewal arrives.
    Accept(Renewal),
    /// Worker: stops everything by its own clock and forgets the session.
    Lapse(u8),
    Read(u8),
    Stop(u8),
    Finish {
        w: u8,
        ok: bool,
    },
    /// Bus: a worker's record reaches the command log; `again` keeps a repeat in flight.
    Append {
        cmd: Cmd,
        again: bool,
    },
    Tick,
}

impl Nova {
    pub(super) fn possible(&self, s: &State, a: &mut Vec<Action>) {
        if self.cancel && !s.log.contains(&Cmd::Cancel { exec: 0 }) {
            a.push(Action::Cancel);
        }
        if s.now < self.max_time {
            a.push(Action::Tick);
        }
        a.extend(s.net.iter().map(|&p| Action::Deliver(p)));
        for &cmd in &s.flying {
            a.push(Action::Append { cmd, again: false });
            if s.repeats < self.repeats {
                a.push(Action::Append { cmd, again: true });
            }
        }
        for i in 0..if self.eager { 0 } else { s.sched.len() } {
            let (s8, me) = (i as u8, &s.sched[i]);
            if s.coord.epoch < self.max_epoch {
                a.push(Action::Take(s8));
            }
            if me.epoch == 0 {
                continue;
            }
            let held = Self::held(s, i);
            if me.published < held {
                a.push(Action::Publish(s8));
            }
            if self.bug == Bug::PublisherSkipsAhead && me.published + 1 < held {
                a.push(Action::PublishTwoSwapped(s8));
            }
            if me.epoch != s.coord.epoch {
                continue;
            } // what a zombie proposed before is still in the network
            let end = s.log.len() as u8;
            for next in me.sent + 1..=if self.calm_log { end } else { end.min(me.sent + 2) } {
                if next == end || !self.calm_log {
                    a.push(Action::Propose { s: s8, next });
                }
            }
            if me.sent > s.coord.applied && !self.calm_log {
                a.push(Action::Rewind(s8));
            }
            if s.coord.acked < me.published {
                a.push(Action::Ack(s8));
            }
            for (e, n) in pairs(self) {
                if matches!(s.coord.node[e][n], Node::Evaluating { .. }) && self.bug != Bug::LocalWorkInOutbox {
                    a.push(Action::Evaluate { s: s8, exec: e as u8, node: n as u8 });
                }
            }
        }
        if s.term < self.max_term {
            a.push(Action::Elect);
        }
        for (m, me) in (0..).zip(&s.leader).filter(|(_, me)| me.term > 0) {
            let leads = me.term == s.term;
            for &r in s.renewals.iter().filter(|_| leads || self.deposed_matters()) {
                a.push(Action::Receive { m, r });
            }
            if !me.waiting.is_empty() && me.round.is_empty() {
                a.push(Action::Begin(m));
            }
            if !me.round.is_empty() && !me.agreed && (leads || self.bug == Bug::AnswerUnconfirmed) {
                a.push(Action::Agree(m));
            }
            if me.agreed {
                a.push(Action::Return(m));
            }
            for w in 0..self.mortal {
                if s.coord.open[w] && s.now >= me.heard[w] + TTL && (leads || self.bug == Bug::DeposedLeaderJudges) {
                    a.push(Action::JudgeLost { m, w: w as u8 });
                }
            }
        }
        a.extend(s.answers.iter().map(|&r| Action::Accept(r)));
        a.extend(s.asks.iter().map(|&ask| Action::Open(ask)));
        for (e, n) in pairs(self) {
            if matches!(s.coord.node[e][n], Node::Leased(_)) && s.timeouts < self.timeouts {
                a.push(Action::AttemptTimeout { exec: e as u8, node: n as u8 });
            }
        }
        for w in 0..WORKERS {
            let (w8, me) = (w as u8, &s.worker[w]);
            if me.session == 0 && w < self.mortal {
                let newest = s.coord.session[w]; // as a refusal says
                match me.asked {
                    Some(ask) if ask.sent == s.now && ask.after == newest => {}
                    _ if newest >= self.max_sessions => {}
                    Some(ask) if ask.sent < s.now && ask.after != newest => {
                        a.push(Action::AskSession { w: w8, after: ask.after });
                        a.push(Action::AskSession { w: w8, after: newest });
                    }
                    _ => a.push(Action::AskSession { w: w8, after: newest }),
                }
                if me.opened.is_some() {
                    a.push(Action::Adopt(w8));
                }
                continue;
            }
            if me.session == 0 {
                a.push(Action::Register(w8));
                continue;
            }
            if self.bug == Bug::TwinStealsSession && s.coord.session[w] == 1 {
                a.push(Action::TwinRegisters(w8));
            }
            if s.crashes < self.crashes {
                a.push(Action::Crash(w8));
            }
            if me.lapsed {
                continue;
            }
            if w < self.mortal && s.now >= me.last + self.ttl_of_worker() {
                a.push(Action::Lapse(w8));
            }
            if me.pos == UNSEEKED {
                a.push(Action::Seek(w8));
                continue;
            }
            if (me.pos as usize) < s.inbox.len() {
                a.push(Action::Read(w8));
            }
            if let Some(r) = me.running {
                if r.stopping {
                    a.push(Action::Stop(w8));
                }
                a.push(Action::Finish { w: w8, ok: true });
                if self.failures {
                    a.push(Action::Finish { w: w8, ok: false });
                }
            }
        }
    }
}
