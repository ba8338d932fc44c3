//! A publisher's connection: its socket, its engine, its feed or what it has of an encoder's session.

use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Duration, Instant, sleep, sleep_until, timeout};
use tracing::{Instrument as _, debug, info, info_span, warn};

use super::encoders::{Encoders, Lease};
use super::feed::{Ended, Feed, FeedError, Flow, Tally};
use super::gate::{self, Denial, Gate};
use super::now;
use super::stop::Stop;
use crate::asf::StreamError;
use crate::http::push::PushId;
use crate::http::{Answer, CloseReason, Connection, Input, Output, PublishRequest, Refusal, Status, Timeouts};
use crate::relay::admission::canonical;
use crate::relay::{PublishError, PublisherId};
use crate::shard::Handed;

/// Bytes read at once. Few, as a source that runs ahead is held back by not reading.
const READ_BYTES: usize = 16 << 10;
/// A response of a few hundred bytes that the peer does not take in this time is given up.
pub(super) const WRITE_TIME: Duration = Duration::from_secs(10);
/// The rest of a body behind the end of its stream, an index mostly, may take so long.
const REST_TIME: Duration = Duration::from_secs(30);
/// Wrong credentials are answered only after this, so that guessing takes long.
pub(super) const GUESS_TIME: Duration = Duration::from_secs(1);
/// After so many wrong ones the connection closes; a person who mistypes has a new one at once.
pub(super) const MAX_GUESSES: u8 = 3;

/// Serves a connection until it is closed.
pub(super) async fn serve(handed: Handed, gate: Arc<Gate>, encoders: Arc<Encoders>, stop: Stop) {
    let Handed { stream, peer, head, .. } = handed;
    let peer = SocketAddr::new(canonical(peer.ip()), peer.port());
    let span = info_span!("publisher", %peer);
    let stream = match TcpStream::from_std(stream) {
        Ok(stream) => stream,
        Err(error) => {
            warn!(parent: &span, %error, "connection of a publisher cannot be taken over");
            return;
        }
    };
    let engine = Connection::new(now(), Timeouts::default());
    let push = Push {
        stream,
        peer,
        gate,
        encoders,
        stop: stop.clone(),
        engine,
        current: None,
        push_id: None,
        lease: None,
        rest_until: None,
        guesses: 0,
    };
    push.run(&head, stop).instrument(span).await;
}

struct Push {
    stream: TcpStream,
    peer: SocketAddr,
    gate: Arc<Gate>,
    encoders: Arc<Encoders>,
    stop: Stop,
    engine: Connection,
    /// The stream of a plain publisher.
    current: Option<Current>,
    /// The session that an encoder's last request named.
    push_id: Option<PushId>,
    /// And what came of it while a body of it comes.
    lease: Option<Lease>,
    /// Set while the rest of a body is thrown away whose stream has ended.
    rest_until: Option<Instant>,
    /// Wrong credentials that came.
    guesses: u8,
}

/// The stream that the connection carries.
struct Current {
    feed: Feed,
    name: String,
    id: PublisherId,
    since: Instant,
}

impl Push {
    async fn run(mut self, head: &[u8], mut stop: Stop) {
        let mut buffer = vec![0; READ_BYTES];
        let mut stopping = false;
        self.engine.handle(now(), Input::Bytes(head));
        let reason = loop {
            // The feed waits while its source runs ahead; that must not hold up the daemon's end.
            let done = tokio::select! {
                biased;
                () = stop.requested(), if !stopping => None,
                done = self.drain() => Some(done),
            };
            match done {
                Some(ControlFlow::Break(reason)) => break reason,
                Some(ControlFlow::Continue(())) => {}
                None => {
                    stopping = true;
                    self.refuse(&Refusal::unavailable("The relay is being stopped.", Duration::from_secs(5)));
                    continue;
                }
            }
            let of_engine = [self.engine.poll_timeout(), self.lease.as_ref().and_then(Lease::deadline)];
            let deadlines = of_engine.into_iter().map(|deadline| deadline.map(Instant::from_std)).chain([self.rest_until]);
            let deadline = deadlines.flatten().min();
            let asleep = async {
                match deadline {
                    Some(deadline) => sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            let evicted = async {
                match &self.lease {
                    Some(lease) => lease.evicted().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                read = self.stream.read(&mut buffer) => match read {
                    Ok(0) | Err(_) => self.engine.handle(now(), Input::End),
                    Ok(count) => self.engine.handle(now(), Input::Bytes(buffer.get(..count).unwrap_or_default())),
                },
                () = asleep => self.timeout(),
                () = evicted => self.give_way(),
                // The next turn sees it.
                () = stop.requested(), if !stopping => {}
            }
        };
        self.end(&match reason {
            CloseReason::Broken => Ended::failed("connection broke"),
            CloseReason::Done | CloseReason::Idle => Ended::failed("connection closed"),
            CloseReason::Refused(_) => Ended::failed("refused"),
        });
        debug!(?reason, "connection of a publisher closed");
    }

    /// Does what the engine wants done.
    async fn drain(&mut self) -> ControlFlow<CloseReason> {
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::Send(bytes) => match timeout(WRITE_TIME, self.stream.write_all(&bytes)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) | Err(_) => return ControlFlow::Break(CloseReason::Broken),
                },
                Output::Ask(request) => match self.answer(&request).await {
                    Ok(answer) => self.engine.handle(now(), Input::Answer(answer)),
                    Err(Denial::WrongCredentials(refusal)) => {
                        self.guesses += 1;
                        sleep(GUESS_TIME).await;
                        self.refuse(&Refusal { last: self.guesses >= MAX_GUESSES, ..refusal });
                    }
                    Err(Denial::Other(refusal)) => {
                        // The first round of Digest is no refusal that anybody needs to hear of.
                        if request.authorization.is_none() && refusal.status == Status::Unauthorized {
                            info!(point = request.name, "publisher is asked for credentials");
                            self.engine.handle(now(), Input::Answer(Answer::Refuse(refusal)));
                        } else {
                            self.refuse(&refusal);
                        }
                    }
                },
                Output::Body(bytes) if self.push_id.is_some() => self.frames(&bytes).await,
                Output::Body(bytes) => self.body(&bytes).await,
                Output::BodyEnd { .. } if self.push_id.is_some() => self.frames_end(),
                Output::BodyEnd { last } => self.body_end(last).await,
                Output::HalfClose => {
                    // Fails where the peer is gone, which the next read tells as well.
                    let _ = self.stream.shutdown().await;
                }
                Output::Close(reason) => return ControlFlow::Break(reason),
            }
        }
        ControlFlow::Continue(())
    }

    async fn answer(&mut self, request: &PublishRequest) -> Result<Answer, Denial> {
        self.push_id = None;
        match &request.push {
            Some(push) => self.admit(request, push).await,
            None => self.decide(request).map(|()| Answer::Accept),
        }
    }

    fn decide(&mut self, request: &PublishRequest) -> Result<(), Denial> {
        let id = self.gate.authorise(now(), self.peer.ip(), request)?;
        if self.current.as_ref().is_some_and(|current| current.name == request.name && current.id == id) {
            return Ok(());
        }
        if request.empty && self.gate.knows(&request.name) {
            return Ok(());
        }
        self.end(&Ended::wanted("another stream follows on its connection"));
        let publisher = self.gate.claim(now(), &request.name, id.clone(), None)?;
        let agent = request.user_agent.as_deref().unwrap_or_default();
        info!(point = request.name, id = ?id, agent, "publisher begins");
        self.current = Some(Current { feed: Feed::new(publisher), name: request.name.clone(), id, since: Instant::now() });
        Ok(())
    }

    async fn body(&mut self, bytes: &[u8]) {
        // Without a stream the rest of the body is thrown away.
        let Some(current) = &mut self.current else { return };
        match current.feed.bytes(bytes).await {
            Ok(Flow::More) => self.engine.resume(now()),
            Ok(Flow::Ended) => {
                self.end(&Ended::wanted("end of stream"));
                self.rest_until = Some(Instant::now() + REST_TIME);
            }
            Err(error) => self.refuse(&refusal(&error)),
        }
    }

    async fn body_end(&mut self, last: bool) {
        self.rest_until = None;
        if let Some(current) = &mut self.current {
            // Between requests only whole headers and packets are worth waiting for the rest of.
            let short = current.feed.lacks_header() && current.feed.tally.bytes > 0;
            let outcome = if short || last { current.feed.finish().await } else { Ok(Flow::More) };
            match outcome {
                Ok(Flow::More) => {}
                Ok(Flow::Ended) => self.end(&Ended::wanted("end of its request")),
                Err(error) if current.feed.tally.bytes > 0 => return self.refuse(&refusal(&error)),
                Err(_) => self.end(&Ended::failed("nothing was sent")),
            }
        }
        self.engine.handle(now(), Input::Answer(Answer::Accept));
    }

    fn timeout(&mut self) {
        if self.rest_until.is_some_and(|until| until <= Instant::now()) {
            self.rest_until = None;
            self.refuse(&Refusal::new(Status::ContentTooLarge, "Too much follows the end of the stream."));
        }
        self.expire();
        self.engine.handle(now(), Input::Timeout);
    }

    /// Turns the request down and gives the publishing point back.
    fn refuse(&mut self, refusal: &Refusal) {
        gate::count(refusal);
        warn!(status = refusal.status.code(), reason = refusal.text, "publisher refused");
        self.end(&Ended::failed(refusal.text.clone()));
        self.engine.handle(now(), Input::Answer(Answer::Refuse(refusal.clone())));
    }

    /// The stream is over, if there is one.
    fn end(&mut self, ended: &Ended) {
        let Some(Current { feed, name, since, .. }) = self.current.take() else { return };
        ended.note(&feed);
        let reason = &*ended.reason;
        let Tally { bytes, packets, invalid } = feed.tally;
        let seconds = since.elapsed().as_secs();
        info!(point = name, seconds, bytes, packets, invalid, reason, "publisher ended");
    }
}

/// Why a stream cannot go on, as HTTP has it.
pub(super) fn refusal(error: &FeedError) -> Refusal {
    let status = match error {
        FeedError::Publish(PublishError::Superseded | PublishError::Dismissed | PublishError::Expelled) => Status::Conflict,
        FeedError::Publish(_) | FeedError::Stream(_) => Status::UnsupportedMediaType,
    };
    let text = match error {
        FeedError::Stream(StreamError::NoHeader) => "The body ends before its ASF header is whole.".to_owned(),
        _ => format!("{}.", gate::capitalised(&error.to_string())),
    };
    Refusal::new(status, text)
}

mod encoder;
#[cfg(test)]
mod tests;
