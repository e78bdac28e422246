//! Coordinators that share one state. A registration is answered as the engine answers it; the rest as told.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::BoxStream;
use nova_client::LEADER_METADATA;
use nova_wire::v1;
use nova_wire::v1::coordinator_server::{Coordinator, CoordinatorServer};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Request, Response, Status, Streaming};

#[derive(Clone, Copy, PartialEq)]
pub enum Mode {
    Leads,
    /// Says that this member leads.
    Follows(usize),
    /// Takes everything and answers nothing.
    Paused,
}

pub struct State {
    pub ttl_ms: u64,
    pub members: Vec<Mode>,
    pub addresses: Vec<String>,
    /// The last session, and whether it is open.
    pub last: u64,
    pub open: bool,
    pub registers: Vec<v1::Register>,
    /// Who received the last renewal, and when.
    pub renewed: Option<(usize, Instant)>,
    pub renewals: Vec<usize>,
    pub renewal_takes: Duration,
    pub drain_hangs: bool,
    pub drains: usize,
    pub closes: usize,
    /// A close is refused while there are some.
    pub leases: u32,
}

pub type Shared = Arc<Mutex<State>>;

struct Fake {
    state: Shared,
    index: usize,
}

pub async fn start(count: usize, ttl_ms: u64) -> (Shared, DropGuard) {
    let stop = CancellationToken::new();
    let state = Arc::new(Mutex::new(State {
        ttl_ms,
        members: (0..count).map(|index| if index == 0 { Mode::Leads } else { Mode::Follows(0) }).collect(),
        addresses: Vec::new(),
        last: 0,
        open: false,
        registers: Vec::new(),
        renewed: None,
        renewals: Vec::new(),
        renewal_takes: Duration::ZERO,
        drain_hangs: false,
        drains: 0,
        closes: 0,
        leases: 0,
    }));
    for index in 0..count {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        state.lock().addresses.push(format!("http://{}", listener.local_addr().unwrap()));
        let fake = Fake { state: Arc::clone(&state), index };
        let server = tonic::transport::Server::builder().add_service(CoordinatorServer::new(fake));
        let serving = server.serve_with_incoming(TcpListenerStream::new(listener));
        let stop = stop.clone();
        tokio::spawn(async move { stop.run_until_cancelled(serving).await });
    }
    (state, stop.drop_guard())
}

impl Fake {
    async fn leads(&self) -> Result<(), Status> {
        loop {
            let mode = self.state.lock().members[self.index];
            match mode {
                Mode::Leads => return Ok(()),
                Mode::Follows(leader) => {
                    let mut status = Status::failed_precondition("this member does not lead");
                    let told = format!("{leader}@{}", self.state.lock().addresses[leader]);
                    status.metadata_mut().insert(LEADER_METADATA, told.parse().unwrap());
                    return Err(status);
                }
                Mode::Paused => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    }
}

fn refusal(kind: v1::refusal::Kind, number: u64) -> v1::Refusal {
    v1::Refusal { kind: kind.into(), number, ..Default::default() }
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Coordinator for Fake {
    async fn register(&self, request: Request<v1::Register>) -> Answer<v1::RegisterResponse> {
        use v1::refusal::Kind;
        use v1::register_response::Result as Answer;
        self.leads().await?;
        let register = request.into_inner();
        let mut state = self.state.lock();
        let result = if state.open && !register.fenced {
            Answer::Refused(refusal(Kind::NameTaken, state.last))
        } else if register.last_session != state.last {
            Answer::Refused(refusal(Kind::NotLastSession, state.last))
        } else {
            state.last += 1;
            state.open = true;
            Answer::Registered(v1::Registered { worker: 1, session: state.last, inbox: 0 })
        };
        state.registers.push(register);
        Ok(Response::new(v1::RegisterResponse { result: Some(result), ttl_ms: state.ttl_ms }))
    }

    async fn renew(
        &self,
        request: Request<Streaming<v1::RenewRequest>>,
    ) -> Answer<BoxStream<'static, Result<v1::RenewResponse, Status>>> {
        self.leads().await?;
        let mut requests = request.into_inner();
        let (sender, receiver) = mpsc::channel(4);
        let fake = Fake { state: Arc::clone(&self.state), index: self.index };
        tokio::spawn(async move {
            while let Some(Ok(request)) = requests.next().await {
                let takes = fake.state.lock().renewal_takes;
                tokio::time::sleep(takes).await;
                let answer = fake.leads().await.map(|()| {
                    let mut state = fake.state.lock();
                    let closed = !(state.open && state.last == request.session);
                    if !closed {
                        state.renewed = Some((fake.index, Instant::now()));
                        state.renewals.push(fake.index);
                    }
                    v1::RenewResponse { worker: request.worker, session: request.session, n: request.n, closed }
                });
                let ends = answer.is_err();
                if sender.send(answer).await.is_err() || ends {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn close_session(&self, request: Request<v1::Close>) -> Answer<v1::CloseResponse> {
        use v1::close_response::Result as Answer;
        self.leads().await?;
        let mut state = self.state.lock();
        let result = if state.leases > 0 {
            Answer::Refused(refusal(v1::refusal::Kind::LeasesOpen, state.leases.into()))
        } else {
            assert_eq!(request.into_inner().session, state.last);
            state.open = false;
            Answer::Done(v1::Nothing {})
        };
        state.closes += 1;
        Ok(Response::new(v1::CloseResponse { result: Some(result) }))
    }

    async fn drain_worker(&self, _: Request<v1::Drain>) -> Answer<v1::DrainResponse> {
        self.leads().await?;
        let hangs = {
            let mut state = self.state.lock();
            state.drains += 1;
            state.drain_hangs
        };
        if hangs {
            std::future::pending::<()>().await;
        }
        Ok(Response::new(v1::DrainResponse { result: Some(v1::drain_response::Result::Done(v1::Nothing {})) }))
    }
}
