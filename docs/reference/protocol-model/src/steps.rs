//! What an action does.

use super::*;

fn insert<T: Ord>(set: &mut Vec<T>, item: T) {
    if let Err(at) = set.binary_search(&item) {
        set.insert(at, item)
    }
}

pub(super) const UNSEEKED: u8 = u8::MAX;
pub(super) const NO_LEADER: Leader =
    Leader { term: 0, heard: [0; WORKERS], losing: [0; WORKERS], waiting: vec![], round: vec![], agreed: false };
pub(super) const NO_WORKER: Worker =
    Worker { session: 0, last: 0, asked: None, opened: None, lapsed: false, pos: 0, high: 0, running: None };

impl Nova {
    pub(super) fn ttl_of_worker(&self) -> u8 {
        if self.bug == Bug::NoMargin { TTL } else { TTL - MARGIN }
    }

    fn lapsed_renews(&self) -> bool {
        matches!(self.bug, Bug::LapsedSessionRenews | Bug::LapsedRenewsWhileLosing)
    }

    pub(super) fn deposed_matters(&self) -> bool {
        matches!(self.bug, Bug::AnswerUnconfirmed | Bug::RoundBeforeReceipt | Bug::DeposedLeaderJudges)
    }

    /// Forgets messages that can have no effect any more: fewer states, the same behaviours.
    pub(super) fn tidy(&self, s: &mut State) {
        let State { asks, renewals, answers, leader, worker, coord, .. } = s;
        if !matches!(self.bug, Bug::RegisterRepeats | Bug::RepeatedAskRenews) {
            asks.retain(|a| a.after == coord.session[a.w as usize]);
        }
        renewals.retain(|r| r.session == coord.session[r.w as usize]);
        if matches!(self.bug, Bug::ValidFromAnswer | Bug::RoundBeforeReceipt) {
            return;
        }
        // Of those that could tell their sender nothing new, one: it still makes a leader patient.
        let news = |r: &Renewal| r.session == worker[r.w as usize].session && r.sent > worker[r.w as usize].last;
        let old = renewals.iter().rfind(|r| !news(r)).copied();
        renewals.retain(|r| news(r) || Some(*r) == old);
        answers.retain(news);
        for l in leader {
            l.waiting.retain(news);
            l.round.retain(news);
            l.agreed &= !l.round.is_empty();
        }
    }

    /// The true time at which a worker has stopped at the latest.
    fn worker_end(&self, sent: u8) -> u8 {
        sent + self.ttl_of_worker() + DRIFT
    }

    pub(super) fn to_inbox(out: Out) -> bool {
        matches!(out, Out::Assign { .. } | Out::Revoke { .. })
    }

    pub(super) fn held(s: &State, i: usize) -> u8 {
        if s.sched[i].epoch == s.coord.epoch { s.coord.out.len() as u8 } else { s.sched[i].has }
    }

    fn send(s: &mut State, p: Proposal) {
        insert(&mut s.net, p);
    }

    fn fly(s: &mut State, c: Cmd) {
        insert(&mut s.flying, c);
    }

    /// By its own clock a worker stops everything at once; a session that has lapsed never comes back.
    fn lapse(&self, w: &mut Worker) {
        if self.lapsed_renews() {
            w.running = None;
            w.lapsed = true;
        } else {
            *w = NO_WORKER;
        }
    }

    pub(super) fn take(&self, s: &mut State, i: usize) {
        let old = s.coord.owner as usize;
        s.sched[old].has = s.coord.out.len() as u8; // at most this much it had received
        s.coord.epoch += 1;
        s.coord.owner = i as u8;
        s.sched[i] = Sched { epoch: s.coord.epoch, sent: s.coord.applied, published: s.coord.acked, has: 0 };
    }

    pub(super) fn deliver(&self, s: &mut State, p: Proposal) {
        if let Proposal::SessionLost { term, .. } = p
            && term != s.term
            && self.bug != Bug::DeposedLeaderJudges
        {
            return; // counted in another term than that of the entry
        }
        let before = s.coord.clone();
        s.coord.apply(self, p, &s.log, &mut s.seen);
        if p.epoch().is_some_and(|e| e != before.epoch) && before != s.coord {
            s.seen.bad |= C7;
        }
    }

    pub(super) fn publish(&self, s: &mut State, i: usize) {
        let seq = s.sched[i].published + 1;
        s.sched[i].published = seq;
        match s.coord.out[seq as usize - 1] {
            Out::Evaluate { exec, node, token } => {
                let epoch = s.sched[i].epoch;
                Self::send(s, Proposal::Evaluated { epoch, exec, node, token, take: i == 0 });
            }
            out if Self::to_inbox(out) => s.inbox.push(seq),
            _ => s.events.push(seq),
        }
    }

    /// An owner that does everything at once.
    pub(super) fn serve(&self, s: &mut State) {
        let (i, epoch) = (s.coord.owner as usize, s.coord.epoch);
        loop {
            let (first, next) = (s.coord.applied, s.log.len() as u8);
            let local = pairs(self).find_map(|(e, n)| match s.coord.node[e][n] {
                Node::Evaluating { token } => Some(Proposal::Evaluated { epoch, exec: e as u8, node: n as u8, token, take: true }),
                _ => None,
            });
            if first < next {
                self.deliver(s, Proposal::Batch { epoch, first, next });
            } else if let Some(p) = local {
                self.deliver(s, p);
            } else {
                break;
            }
        }
        while (s.sched[i].published as usize) < s.coord.out.len() {
            self.publish(s, i);
        }
        (s.sched[i].sent, s.coord.acked) = (s.coord.applied, s.sched[i].published);
    }

    pub(super) fn read(&self, s: &mut State, i: usize) {
        let seq = s.inbox[s.worker[i].pos as usize];
        let w = &mut s.worker[i];
        w.pos += 1;
        let seen = seq <= w.high;
        w.high = w.high.max(seq);
        if seen && self.bug != Bug::AssignmentNotDeduped {
            return;
        }
        match s.coord.out[seq as usize - 1] {
            Out::Assign { worker, session, exec, node, token } if worker as usize == i => {
                if session != w.session && self.bug != Bug::SessionIgnoredByWorker {
                    return;
                }
                if w.running.is_some() {
                    s.seen.bad |= SLOTS;
                    return;
                }
                if s.seen.started & 1 << token != 0 {
                    s.seen.bad |= C5;
                }
                s.seen.started |= 1 << token;
                w.running = Some(Running { exec, node, token, stopping: false });
            }
            Out::Revoke { worker, session, token } if worker as usize == i && session == w.session => {
                if let Some(r) = &mut w.running
                    && r.token == token
                {
                    r.stopping = true;
                }
            }
            _ => {}
        }
    }

    pub(super) fn register(&self, s: &mut State, i: usize) {
        let pos = if self.bug == Bug::SeekAfterRegister { UNSEEKED } else { s.inbox.len() as u8 };
        let session = self.open(s, i); // after the seek: nothing meant for it can be behind it
        s.worker[i] = Worker { session, last: s.now, pos, ..NO_WORKER };
    }

    /// The entry that opens a session: every member applies it, and a leader counts from then.
    fn open(&self, s: &mut State, w: usize) -> u8 {
        for l in &mut s.leader {
            if w < self.mortal && (l.term == s.term || self.bug == Bug::NewLeaderImpatient) {
                l.heard[w] = s.now;
            }
        }
        s.coord.open_session(self, w)
    }
}

impl Nova {
    pub(super) fn step(&self, s: &mut State, action: Action) {
        match action {
            Action::Cancel => s.log.push(Cmd::Cancel { exec: 0 }),
            Action::Take(i) => self.take(s, i as usize),
            Action::Propose { s: i, next } => {
                let me = &mut s.sched[i as usize];
                let (epoch, first) = (me.epoch, std::mem::replace(&mut me.sent, next));
                if self.bug == Bug::ReplyBeforeCommit {
                    for cmd in &s.log[first as usize..next as usize] {
                        if let Cmd::Submit { exec } = cmd {
                            s.seen.early |= 1 << exec;
                        }
                    }
                }
                Self::send(s, Proposal::Batch { epoch, first, next });
            }
            Action::Rewind(i) => s.sched[i as usize].sent = s.coord.applied,
            Action::Evaluate { s: i, exec, node } => {
                if let Node::Evaluating { token } = s.coord.node[exec as usize][node as usize] {
                    // Two schedulers may disagree (versions): only what is committed counts.
                    Self::send(s, Proposal::Evaluated { epoch: s.sched[i as usize].epoch, exec, node, token, take: i == 0 });
                }
            }
            Action::Deliver(p) => self.deliver(s, p),
            Action::Publish(i) => {
                self.publish(s, i as usize);
                if self.calm_log && i == s.coord.owner {
                    s.coord.acked = s.sched[i as usize].published;
                }
            }
            Action::PublishTwoSwapped(i) => {
                s.sched[i as usize].published += 1;
                self.publish(s, i as usize);
                s.sched[i as usize].published -= 2;
                self.publish(s, i as usize);
                s.sched[i as usize].published += 1;
            }
            Action::Ack(i) => {
                let one_more = (self.bug == Bug::WatermarkOneTooFar) as u8;
                s.coord.acked = (s.sched[i as usize].published + one_more).min(s.coord.out.len() as u8);
            }
            Action::Elect => {
                s.term += 1;
                let (term, now) = (s.term, s.now);
                if !self.deposed_matters() {
                    let old = &mut s.leader[term as usize % 2]; // no quorum will confirm it, so only what is agreed matters
                    let (round, agreed) = if old.agreed { (std::mem::take(&mut old.round), true) } else { (vec![], false) };
                    *old = Leader { term: old.term, round, agreed, ..NO_LEADER };
                }
                let me = &mut s.leader[(term as usize + 1) % 2];
                let mut heard = me.heard;
                if self.bug != Bug::NewLeaderImpatient {
                    heard[..self.mortal].fill(now);
                }
                *me = Leader { term, heard, losing: [0; WORKERS], waiting: vec![], round: vec![], agreed: false };
                if self.bug != Bug::DeposedLeaderJudges {
                    s.net.retain(|p| !matches!(p, Proposal::SessionLost { .. })); // they have no effect any more
                }
            }
            Action::Receive { m, r } => {
                let (w, me) = (r.w as usize, &mut s.leader[m as usize]);
                if r.session == s.coord.session[w] && (r.session != me.losing[w] || self.bug == Bug::LapsedRenewsWhileLosing) {
                    me.heard[w] = s.now;
                    if self.bug == Bug::RoundBeforeReceipt && !me.round.is_empty() {
                        insert(&mut me.round, r);
                    } else if !me.round.contains(&r) {
                        insert(&mut me.waiting, r);
                    }
                }
            }
            Action::Begin(m) => {
                let me = &mut s.leader[m as usize];
                me.round = std::mem::take(&mut me.waiting);
                let (open, session) = (s.coord.open, s.coord.session);
                me.round.retain(|r| open[r.w as usize] && session[r.w as usize] == r.session);
            }
            Action::Agree(m) => s.leader[m as usize].agreed = true,
            Action::Return(m) => {
                let me = &mut s.leader[m as usize];
                me.agreed = false;
                for r in std::mem::take(&mut me.round) {
                    insert(&mut s.answers, r);
                }
            }
            Action::JudgeLost { m, w } => {
                let (me, session) = (&mut s.leader[m as usize], s.coord.session[w as usize]);
                me.losing[w as usize] = session;
                let term = me.term;
                Self::send(s, Proposal::SessionLost { term, worker: w, session });
            }
            Action::AttemptTimeout { exec, node } => {
                let (e, n) = (exec as usize, node as usize);
                s.timeouts += 1;
                if let Node::Leased(lease) = s.coord.node[e][n] {
                    s.coord.revoke(e, n, lease, true);
                    if self.bug == Bug::RequeueBeforeStopped {
                        s.coord.again(self, e, n);
                    }
                    s.coord.dispatch(self);
                }
            }
            Action::Register(w) => self.register(s, w as usize),
            Action::Seek(w) => s.worker[w as usize].pos = s.inbox.len() as u8,
            Action::TwinRegisters(w) => {
                s.coord.open_session(self, w as usize);
            }
            Action::Crash(w) => {
                s.crashes += 1;
                s.worker[w as usize] = NO_WORKER;
            }
            Action::AskSession { w, after } => {
                let ask = Ask { w, after, sent: s.now };
                s.worker[w as usize] = Worker { asked: Some(ask), pos: s.inbox.len() as u8, ..NO_WORKER };
                insert(&mut s.asks, ask);
            }
            Action::Open(ask) => {
                let w = ask.w as usize;
                let mut opened = None;
                if ask.after == s.coord.session[w] || self.bug == Bug::RegisterRepeats {
                    opened = Some(self.open(s, w));
                } else if self.bug == Bug::RepeatedAskRenews && s.coord.open[w] && s.coord.session[w] == ask.after + 1 {
                    opened = Some(s.coord.session[w]); // "yours already"
                }
                let me = &mut s.worker[w];
                if me.asked == Some(ask) && opened.is_some() {
                    me.opened = opened;
                }
                if self.bug != Bug::RegisterRepeats {
                    s.asks.retain(|&a| a != ask); // a repeat would be refused
                }
            }
            Action::Adopt(w) => {
                let (now, me) = (s.now, &s.worker[w as usize]);
                if let (Some(ask), Some(session)) = (me.asked, me.opened) {
                    let last = if self.bug == Bug::ValidFromRegistered { now } else { ask.sent };
                    if now < self.worker_end(last) {
                        s.worker[w as usize] = Worker { session, last, pos: me.pos, ..NO_WORKER };
                        insert(&mut s.renewals, Renewal { w, session, sent: now });
                    }
                }
            }
            Action::Accept(r) => {
                let (me, now) = (&mut s.worker[r.w as usize], s.now);
                if me.session == r.session {
                    let sent = if self.bug == Bug::ValidFromAnswer { now } else { r.sent };
                    me.last = me.last.max(sent);
                    me.lapsed &= now >= me.last + self.ttl_of_worker();
                }
            }
            Action::Lapse(w) => self.lapse(&mut s.worker[w as usize]),
            Action::Read(w) => self.read(s, w as usize),
            Action::Stop(w) => {
                if let Some(r) = s.worker[w as usize].running.take() {
                    Self::fly(s, Cmd::Stopped { exec: r.exec, node: r.node, token: r.token });
                }
            }
            Action::Finish { w, ok } => {
                if let Some(r) = s.worker[w as usize].running.take() {
                    Self::fly(s, Cmd::Result { exec: r.exec, node: r.node, token: r.token, ok });
                }
            }
            Action::Append { cmd, again } => {
                s.log.push(cmd);
                if again { s.repeats += 1 } else { s.flying.retain(|&c| c != cmd) }
            }
            Action::Tick => {
                s.now += 1;
                for (i, w) in s.worker[..self.mortal].iter_mut().enumerate() {
                    if w.session != 0 && s.now >= self.worker_end(w.last) {
                        self.lapse(w)
                    }
                    if w.session != 0 {
                        insert(&mut s.renewals, Renewal { w: i as u8, session: w.session, sent: s.now });
                    }
                }
            }
        }
    }
}
