//! The requests of an encoder on a publisher's connection.

use tokio::time::{Duration, Instant, timeout};
use tracing::info;

use super::{Push, REST_TIME, refusal};
use crate::http::push::Push as Wish;
use crate::http::{Answer, Input, PublishRequest, Refusal, Status};
use crate::ingest::encoders::{Unmet, busy};
use crate::ingest::feed::Ended;
use crate::ingest::gate::Denial;
use crate::ingest::{date, now};

/// A connection that is told to give its session back does so at once, unless it is being written to.
const YIELD_TIME: Duration = Duration::from_secs(1);

impl Push {
    /// Decides about an encoder's request.
    pub(super) async fn admit(&mut self, request: &PublishRequest, wish: &Wish) -> Result<Answer, Denial> {
        self.end(&Ended::wanted("an encoder follows on its connection"));
        self.lease = None;
        let met = match self.meet(request, wish) {
            Err(Unmet::Yields(parked)) => {
                let _ = timeout(YIELD_TIME, parked.notified()).await;
                self.meet(request, wish)
            }
            met => met,
        };
        met.map_err(|unmet| match unmet {
            Unmet::Denied(Denial::WrongCredentials(refusal)) => Denial::WrongCredentials(self.challenge(request, refusal)),
            Unmet::Denied(Denial::Other(refusal)) => Denial::Other(self.challenge(request, refusal)),
            Unmet::Yields(_) => busy().into(),
        })
    }

    fn meet(&mut self, request: &PublishRequest, wish: &Wish) -> Result<Answer, Unmet> {
        let (now, peer) = (now(), self.peer.ip());
        let push_id = match wish {
            Wish::Setup(setup) => {
                let who = self.gate.authorise(now, peer, request).map_err(Unmet::Denied)?;
                let id = self.encoders.set_up(now, peer, request, setup, &who, &self.stop)?;
                let agent = request.user_agent.as_deref().unwrap_or_default();
                info!(point = request.name, id = ?who, agent, auto_destroy = setup.auto_destroy, "encoder sets up a push session");
                id
            }
            Wish::Start => {
                let lease = self.encoders.start(now, peer, request)?;
                info!(point = request.name, "encoder begins to send");
                self.lease = Some(lease);
                request.push_id.clone().ok_or_else(busy)?
            }
        };
        self.push_id = Some(push_id.clone());
        Ok(Answer::Session { push_id, date: date() })
    }

    /// What an encoder can answer of our challenges, with the id of the session that it will have then.
    fn challenge(&self, request: &PublishRequest, mut refusal: Refusal) -> Refusal {
        if refusal.status == Status::Unauthorized {
            refusal.challenges.retain(|challenge| request.takes_basic || !challenge.starts_with("Basic"));
            refusal.push_id = self.encoders.invite(now(), self.peer.ip(), request.push_id.as_ref());
        }
        refusal
    }

    /// Takes a piece of a body with frames.
    pub(super) async fn frames(&mut self, bytes: &[u8]) {
        // Without a session, which the encoder has ended, the rest of the body is thrown away.
        let Some(lease) = &mut self.lease else { return };
        lease.came();
        let mut whole = Vec::with_capacity(bytes.len());
        let Some(stream) = lease.stream() else { return };
        let progress = stream.frames.push(bytes, &mut whole);
        // What came before a fault is good.
        let fed = stream.feed.bytes(&whole).await;
        match (progress, fed) {
            (_, Err(error)) => self.fail(&refusal(&error)),
            (Err(error), Ok(_)) => self.fail(&error.into()),
            (Ok(progress), Ok(_)) => {
                lease.taken(progress.media);
                if let (Some(reason), Some(lease)) = (progress.ended, self.lease.take_if(|_| progress.ended.is_some())) {
                    let text = if reason == 0 { "end of stream" } else { "the encoder tells of a failure" };
                    lease.finish(reason == 0, text);
                    self.rest_until = Some(Instant::now() + REST_TIME);
                }
            }
        }
    }

    /// A body with frames is complete.
    pub(super) fn frames_end(&mut self) {
        self.rest_until = None;
        let straddles = self.lease.as_mut().and_then(|lease| lease.stream()?.frames.end().err());
        if let Some(error) = straddles {
            return self.fail(&error.into());
        }
        if let Some(lease) = self.lease.take() {
            lease.body_end();
        }
        if let Some(push_id) = self.push_id.clone() {
            self.engine.handle(now(), Input::Answer(Answer::Session { push_id, date: date() }));
        }
    }

    /// Ends a session in which nothing comes.
    pub(super) fn expire(&mut self) {
        if self.lease.as_ref().is_some_and(|lease| lease.is_expired()) {
            self.fail(&Refusal::new(Status::RequestTimeout, "No packets came for as long as a push session waits."));
        }
    }

    /// Leaves the session to another connection.
    pub(super) fn give_way(&mut self) {
        self.lease = None;
        let text = "Another connection took over after this one was silent for 2 s.";
        self.refuse(&Refusal::new(Status::Conflict, text));
    }

    /// The session is over by a fault.
    fn fail(&mut self, refusal: &Refusal) {
        if let Some(lease) = self.lease.take() {
            lease.finish(false, &refusal.text);
        }
        self.refuse(refusal);
    }
}
