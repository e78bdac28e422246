//! The coordinator's rules, applied in the order of the log.

use super::*;

impl Coord {
    fn reply(&mut self, exec: u8, accepted: bool) {
        self.out.push(Out::Reply { exec, accepted });
    }

    fn token(&mut self) -> u8 {
        self.last_token += 1;
        self.last_token
    }

    fn start(&mut self, m: &Nova, e: usize, n: usize) {
        self.node[e][n] = match m.kinds[e][n] {
            Kind::Task => Node::Queued,
            Kind::Local => {
                let token = self.token();
                if m.bug == Bug::LocalWorkInOutbox {
                    self.out.push(Out::Evaluate { exec: e as u8, node: n as u8, token });
                }
                Node::Evaluating { token }
            }
        };
    }

    fn complete(&mut self, m: &Nova, e: usize, n: usize, take: bool) {
        self.node[e][n] = Node::Done { take };
        if take && n + 1 < NODES { self.start(m, e, n + 1) } else { self.finish(m, e, Status::Succeeded) }
    }

    fn finish(&mut self, m: &Nova, e: usize, status: Status) {
        self.status[e] = status;
        for n in 0..NODES {
            match self.node[e][n] {
                Node::Waiting | Node::Queued | Node::Evaluating { .. } => self.node[e][n] = Node::Skipped,
                Node::Leased(lease) => self.revoke(e, n, lease, false),
                // An end while a revocation is under way also takes back its promise to try again.
                Node::Revoking { lease, .. } => self.node[e][n] = Node::Revoking { lease, requeue: m.bug == Bug::EndForgetsRequeue },
                _ => {}
            }
        }
        self.out.push(Out::Finished { exec: e as u8 });
        if m.bug == Bug::KeyForgottenAtEnd && self.key_of == Some(e as u8) {
            self.key_of = None;
        }
    }

    pub(super) fn revoke(&mut self, e: usize, n: usize, lease: Lease, requeue: bool) {
        self.out.push(Out::Revoke { worker: lease.worker, session: lease.session, token: lease.token });
        self.node[e][n] = Node::Revoking { lease, requeue };
    }

    /// The attempt is over without an outcome: try again while attempts are left.
    pub(super) fn again(&mut self, m: &Nova, e: usize, n: usize) {
        if self.attempts[e][n] < MAX_ATTEMPTS {
            self.node[e][n] = Node::Queued;
        } else {
            self.node[e][n] = Node::Failed;
            self.finish(m, e, Status::Failed);
        }
    }

    /// The worker is known to have stopped: its slot is free, and only now may the work go elsewhere.
    fn stopped(&mut self, m: &Nova, e: usize, n: usize, requeue: bool) {
        if requeue { self.again(m, e, n) } else { self.node[e][n] = Node::Skipped }
    }

    pub(super) fn lease(&self, e: usize, n: usize) -> Option<Lease> {
        match self.node[e][n] {
            Node::Leased(lease) | Node::Revoking { lease, .. } => Some(lease),
            _ => None,
        }
    }

    /// Slots in use are derived from leases and never counted apart.
    fn has_free_slot(&self, m: &Nova, w: usize) -> bool {
        self.open[w]
            && !(0..m.kinds.len()).any(|e| {
                (0..NODES).any(|n| match self.node[e][n] {
                    Node::Leased(l) => l.worker as usize == w,
                    Node::Revoking { lease, .. } => m.bug != Bug::RevokeFreesSlot && lease.worker as usize == w,
                    _ => false,
                })
            })
    }

    pub(super) fn dispatch(&mut self, m: &Nova) {
        // Bug: "free slots" was a count made by the scheduler some time ago, spent anew by each proposal.
        let mut offered = [m.bug == Bug::OffersPerProposal; WORKERS];
        for e in 0..m.kinds.len() {
            for n in 0..NODES {
                if self.node[e][n] != Node::Queued {
                    continue;
                }
                let Some(w) = (0..WORKERS).find(|&w| self.has_free_slot(m, w) || offered[w] && self.open[w]) else { return };
                offered[w] = false;
                let fresh = m.bug != Bug::TokenReused || self.attempts[e][n] == 0;
                let token = if fresh { self.token() } else { self.last_token };
                self.attempts[e][n] += 1;
                let lease = Lease { worker: w as u8, session: self.session[w], token };
                self.node[e][n] = Node::Leased(lease);
                self.out.push(Out::Assign { worker: w as u8, session: lease.session, exec: e as u8, node: n as u8, token });
            }
        }
    }

    fn command(&mut self, m: &Nova, cmd: Cmd) {
        match cmd {
            Cmd::Submit { exec } => {
                let e = exec as usize;
                if self.status[e] != Status::Absent {
                    return;
                }
                if m.same_key && self.key_of.is_some() {
                    self.status[e] = Status::Rejected;
                    return self.reply(exec, false);
                }
                self.key_of = Some(exec);
                self.status[e] = Status::Open;
                self.reply(exec, true);
                self.start(m, e, 0);
            }
            Cmd::Cancel { exec } => {
                if self.status[exec as usize] == Status::Open {
                    self.finish(m, exec as usize, Status::Cancelled);
                }
            }
            Cmd::Result { exec, node, token, ok } => {
                let (e, n) = (exec as usize, node as usize);
                match self.node[e][n] {
                    Node::Leased(l) if l.token == token => {
                        if ok {
                            self.complete(m, e, n, true)
                        } else {
                            self.again(m, e, n)
                        }
                    }
                    Node::Revoking { lease, requeue } if lease.token == token => self.stopped(m, e, n, requeue),
                    Node::Leased(_) | Node::Queued if m.bug == Bug::StaleTokenAccepted => self.complete(m, e, n, true),
                    _ => {} // stale: changes nothing
                }
            }
            Cmd::Stopped { exec, node, token } => {
                let (e, n) = (exec as usize, node as usize);
                if let Node::Revoking { lease, requeue } = self.node[e][n]
                    && lease.token == token
                {
                    self.stopped(m, e, n, requeue);
                }
            }
        }
    }

    fn close_session(&mut self, m: &Nova, w: usize) {
        self.open[w] = false;
        for e in 0..m.kinds.len() {
            for n in 0..NODES {
                match self.node[e][n] {
                    Node::Leased(l) if l.worker as usize == w => self.again(m, e, n),
                    Node::Revoking { lease, requeue } if lease.worker as usize == w => self.stopped(m, e, n, requeue),
                    _ => {}
                }
            }
        }
    }

    pub(super) fn open_session(&mut self, m: &Nova, w: usize) -> u8 {
        if self.open[w] {
            self.close_session(m, w);
        } // the caller has stopped everything it ran before
        self.session[w] += 1;
        self.open[w] = true;
        self.dispatch(m);
        self.session[w]
    }

    /// One committed entry.
    pub(super) fn apply(&mut self, m: &Nova, p: Proposal, log: &[Cmd], seen: &mut Seen) {
        if p.epoch().is_some_and(|e| e != self.epoch) && m.bug != Bug::EpochUnchecked {
            return;
        }
        match p {
            Proposal::Batch { first, next, .. } => {
                if first > self.applied && m.bug != Bug::NoGapCheck {
                    return;
                } // an earlier batch is missing
                let from = if m.bug == Bug::NoOffsetSkip { first } else { first.max(self.applied) };
                for offset in from..next {
                    let before = self.clone();
                    self.command(m, log[offset as usize]);
                    seen.command(offset, log[offset as usize], &before, self);
                }
                self.applied = self.applied.max(next);
            }
            Proposal::Evaluated { exec, node, token, take, .. } => {
                let (e, n) = (exec as usize, node as usize);
                if self.node[e][n] == (Node::Evaluating { token }) || m.bug == Bug::LocalResultNotDeduped {
                    self.complete(m, e, n, take);
                }
            }
            Proposal::SessionLost { worker, session, .. } => {
                let w = worker as usize;
                if self.open[w] && (self.session[w] == session || m.bug == Bug::LostIgnoresSession) {
                    self.close_session(m, w);
                }
            }
        }
        self.dispatch(m);
    }
}

/// What only a comparison of two states shows. Written apart from the rules that it judges.
impl Seen {
    fn command(&mut self, offset: u8, cmd: Cmd, before: &Coord, after: &Coord) {
        if self.consumed & 1 << offset != 0 {
            self.bad |= INPUT;
        }
        self.consumed |= 1 << offset;
        if let Cmd::Result { exec, node, token, .. } = cmd {
            let live = before.lease(exec as usize, node as usize).map(|l| l.token);
            if live != Some(token) && before != after {
                self.bad |= C2;
            }
        }
    }

    pub(super) fn transition(&mut self, before: &Coord, after: &Coord) {
        for e in 0..2 {
            let (old, new) = (before.status[e], after.status[e]);
            if old != new && old != Status::Open && old != Status::Absent {
                self.bad |= B1;
            }
            for n in 0..NODES {
                let (old, new) = (before.node[e][n], after.node[e][n]);
                if old != new && matches!(old, Node::Done { .. } | Node::Failed) {
                    self.bad |= B4;
                }
            }
        }
    }
}
