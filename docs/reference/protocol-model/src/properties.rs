//! What must hold in each state, and what must be reached in some.

use super::*;

impl Nova {
    pub(super) fn must_hold(&self) -> Vec<Property<Self>> {
        fn clean(s: &State, flag: u32) -> bool {
            s.seen.bad & flag == 0
        }
        let mut p = vec![
            Property::always("A1 accepted stays", |_: &Nova, s: &State| {
                s.events.iter().all(|&seq| match s.coord.out[seq as usize - 1] {
                    Out::Reply { exec, accepted: true } => !matches!(s.coord.status[exec as usize], Status::Absent | Status::Rejected),
                    _ => true,
                })
            }),
            Property::always("A3 one execution per key", |m: &Nova, s: &State| {
                !m.same_key || s.coord.status.iter().filter(|&&t| t != Status::Absent && t != Status::Rejected).count() <= 1
            }),
            Property::always("B1 A5 one terminal state", |m: &Nova, s: &State| {
                clean(s, B1)
                    && (0..m.kinds.len() as u8).all(|exec| s.coord.out.iter().filter(|&&o| o == Out::Finished { exec }).count() <= 1)
            }),
            Property::always("B3 join rule", |m: &Nova, s: &State| {
                (0..m.kinds.len())
                    .all(|e| matches!(s.coord.node[e][1], Node::Waiting | Node::Skipped) || s.coord.node[e][0] == Node::Done { take: true })
            }),
            Property::always("B4 one outcome per node", |_: &Nova, s: &State| clean(s, B4)),
            Property::always("B6 nothing starts after the end", |_: &Nova, s: &State| {
                s.coord.out.iter().enumerate().all(|(i, o)| match *o {
                    Out::Assign { exec, .. } => !s.coord.out[..i].contains(&Out::Finished { exec }),
                    _ => true,
                })
            }),
            Property::always("B8 attempts bounded", |_: &Nova, s: &State| s.coord.attempts.iter().flatten().all(|&n| n <= MAX_ATTEMPTS)),
            Property::always("C1 tokens grow", |_: &Nova, s: &State| {
                let mut last = 0;
                s.coord.out.iter().all(|o| match *o {
                    Out::Assign { token, .. } => std::mem::replace(&mut last, token) < token,
                    _ => true,
                })
            }),
            Property::always("C2 stale token changes nothing", |_: &Nova, s: &State| clean(s, C2)),
            Property::always("C3 one worker per node", |_: &Nova, s: &State| match (s.worker[0].running, s.worker[1].running) {
                (Some(a), Some(b)) => (a.exec, a.node) != (b.exec, b.node),
                _ => true,
            }),
            Property::always("C4 stops before given away", |_: &Nova, s: &State| {
                s.worker.iter().enumerate().all(|(w, me)| {
                    me.running.is_none_or(|r| {
                        let lease = s.coord.lease(r.exec as usize, r.node as usize);
                        lease.is_some_and(|l| l.token == r.token && l.worker as usize == w)
                    })
                })
            }),
            Property::always("C5 a token starts once", |_: &Nova, s: &State| clean(s, C5)),
            Property::always("C7 old epoch has no effect", |_: &Nova, s: &State| clean(s, C7)),
            Property::always("C8 leases only in open sessions", |m: &Nova, s: &State| {
                pairs(m).all(|(e, n)| {
                    s.coord.lease(e, n).is_none_or(|l| s.coord.open[l.worker as usize] && s.coord.session[l.worker as usize] == l.session)
                })
            }),
            Property::always("slots never oversubscribed", |_: &Nova, s: &State| clean(s, SLOTS)),
            Property::always("G1 each command applied once", |_: &Nova, s: &State| {
                clean(s, INPUT) && s.seen.consumed == (1 << s.coord.applied) - 1
            }),
            Property::always("G1 nothing acknowledged is missing", |_: &Nova, s: &State| {
                (1..=s.coord.acked).all(|seq| {
                    s.inbox.contains(&seq) || s.events.contains(&seq) || matches!(s.coord.out[seq as usize - 1], Out::Evaluate { .. })
                })
            }),
            Property::always("G2 nothing uncommitted is published", |m: &Nova, s: &State| {
                (0..m.kinds.len() as u8)
                    .all(|exec| s.seen.early & 1 << exec == 0 || s.coord.out.contains(&Out::Reply { exec, accepted: true }))
            }),
            Property::always("G3 a reader sees committed order", |m: &Nova, s: &State| {
                in_order(&s.coord, &s.inbox, true, m.bug) && in_order(&s.coord, &s.events, false, m.bug)
            }),
            // Reached: the run says something about these situations.
            Property::sometimes("(reached) all executions ended and published", |m: &Nova, s: &State| m.settled(s)),
        ];
        if self.bug == Bug::None {
            // Stronger than C4, so that bounded runs say more; planted bugs must fall to C4 itself.
            p.push(Property::always("C9 a session held is open", |_: &Nova, s: &State| {
                s.worker.iter().enumerate().all(|(w, me)| me.session == 0 || s.coord.open[w] && s.coord.session[w] == me.session)
            }));
        }
        if self.max_epoch > 1 {
            p.push(Property::sometimes("(reached) a zombie repeated an event", |_: &Nova, s: &State| {
                s.events.iter().enumerate().any(|(i, q)| s.events[..i].contains(q))
            }));
        }
        if self.max_term > 1 {
            p.push(Property::sometimes("(reached) an answer of a deposed leader counts", |_: &Nova, s: &State| {
                s.leader.iter().any(|l| 0 < l.term && l.term < s.term && l.agreed && s.worker.iter().any(|w| w.running.is_some()))
            }));
            p.push(Property::sometimes("(reached) renewed by the second leader", |_: &Nova, s: &State| {
                s.worker[0].session == 1 && s.leader[1].term > 1 && s.now >= 3 && s.worker[0].running.is_some()
            }));
        }
        if self.max_time > 0 {
            p.push(Property::sometimes("(reached) lost session, done by the second attempt", |m: &Nova, s: &State| {
                m.settled(s)
                    && s.sched.iter().any(|_| s.coord.open.contains(&false))
                    && s.coord.attempts.iter().flatten().any(|&n| n == 2)
                    && s.coord.status[0] == Status::Succeeded
            }));
        }
        if self.check_finish {
            p.push(Property::always("J2 can always still finish", |m: &Nova, s: &State| m.heals(s, false) && m.heals(s, true)));
        }
        p
    }

    /// Every execution ended, everything committed is published and acknowledged, no slot is held.
    fn settled(&self, s: &State) -> bool {
        s.coord.applied as usize == s.log.len()
            && (0..self.kinds.len()).all(|e| !matches!(s.coord.status[e], Status::Absent | Status::Open))
            && pairs(self).all(|(e, n)| s.coord.lease(e, n).is_none())
            && s.coord.acked as usize == s.coord.out.len()
    }

    /// From here both schedulers die and every proposal in flight is lost; then no more faults, and everyone
    /// does its duty in turn. `dead`: worker 0 dies too, for ever, with what was in its producer.
    fn heals(&self, from: &State, dead: bool) -> bool {
        let mut s = from.clone();
        s.net.clear();
        if dead {
            s.worker[0] = NO_WORKER;
            let of_worker_0 = |t| s.coord.out.iter().any(|o| matches!(*o, Out::Assign { worker: 0, token, .. } if token == t));
            s.flying.retain(|c| !matches!(*c, Cmd::Result { token, .. } | Cmd::Stopped { token, .. } if of_worker_0(token)));
        }
        self.take(&mut s, 1);
        for _ in 0..40 {
            if self.settled(&s) {
                return true;
            }
            self.step(&mut s, Action::Rewind(1));
            let (epoch, first, next) = (s.coord.epoch, s.coord.applied, s.log.len() as u8);
            self.deliver(&mut s, Proposal::Batch { epoch, first, next });
            for (e, n) in pairs(self) {
                if self.bug != Bug::LocalWorkInOutbox && matches!(s.coord.node[e][n], Node::Evaluating { .. }) {
                    self.step(&mut s, Action::Evaluate { s: 1, exec: e as u8, node: n as u8 });
                }
            }
            while (s.sched[1].published as usize) < s.coord.out.len() {
                self.publish(&mut s, 1);
            }
            for p in std::mem::take(&mut s.net) {
                self.deliver(&mut s, p);
            }
            self.step(&mut s, Action::Ack(1));
            if dead && s.coord.open[0] {
                // time passes, the others go on beating
                s.now += TTL;
                s.worker[1].last = s.now;
                let (term, session) = (s.term, s.coord.session[0]);
                self.deliver(&mut s, Proposal::SessionLost { term, worker: 0, session });
            }
            for w in dead as usize..WORKERS {
                if s.worker[w].session == 0 || s.worker[w].lapsed {
                    self.register(&mut s, w);
                }
                if s.worker[w].pos == UNSEEKED {
                    self.step(&mut s, Action::Seek(w as u8));
                }
                while (s.worker[w].pos as usize) < s.inbox.len() {
                    self.read(&mut s, w);
                }
                let stop = s.worker[w].running.is_some_and(|r| r.stopping);
                self.step(&mut s, if stop { Action::Stop(w as u8) } else { Action::Finish { w: w as u8, ok: true } });
            }
            for cmd in std::mem::take(&mut s.flying) {
                s.log.push(cmd);
            }
        }
        false
    }
}

/// Every reader of a topic keeps one number per shard and drops what is not above it.
fn in_order(c: &Coord, topic: &[u8], inbox: bool, bug: Bug) -> bool {
    let mut high = 0;
    let read = topic.iter().filter(|&&seq| {
        let new = seq > high || bug == Bug::ConsumerKeepsRepeats;
        high = high.max(seq);
        new
    });
    let committed = (1..).zip(&c.out).filter(|(_, o)| Nova::to_inbox(**o) == inbox).map(|(seq, _)| seq);
    let committed: Vec<u8> = committed.collect();
    read.copied().enumerate().all(|(i, seq)| committed.get(i) == Some(&seq))
}
