//! Draining: no new viewers, those who are here finish, until a time.
//!
//! No protocol has words that move a viewer while it plays: MMS and HTTP redirect in place of opening a name, and Windows Media RTSP
//! forbids the REDIRECT method (MS-RTSP 3.2.5.4), to which players of plain RTSP answer that they do not know it. So whoever plays
//! plays on.

use std::sync::{Arc, Weak};
use std::time::Instant;

use super::Context;
use super::command::Command;
use super::engine::Engine;
use super::news::FAREWELL;
use super::state::State;
use crate::metrics as names;
use crate::relay::admission::Tickets;
use crate::settings::Elsewhere;
use crate::text::{percent_encode, query_of};
use crate::viewing::{Answer, OpenRefusal, Pass};
use crate::wire::Hresult;

/// Why new viewers are refused.
const DRAINS: &str = "the daemon drains and takes no new viewers";

/// How a drain is to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrainOrder {
    /// Where new viewers are sent; `None`: they are refused.
    pub redirect: Option<Elsewhere>,
    /// When those who still watch get the end of the stream; `None`: never.
    pub until: Option<Instant>,
}

/// A shard that takes no new viewers.
pub(super) struct Draining {
    order: Arc<DrainOrder>,
    /// When those who watched were ended.
    over: Option<Instant>,
}

/// Lets the shards take new viewers, or none.
#[derive(Clone)]
pub struct Drain(Weak<Context>);

impl Drain {
    pub(super) fn new(context: &Arc<Context>) -> Self {
        // Whoever holds it keeps no thread from ending.
        Self(Arc::downgrade(context))
    }

    /// Takes no new viewers from now on, in this way; `None`: takes them again. Those who were sent away do not come back by themselves.
    pub fn set(&self, order: Option<DrainOrder>) {
        let order = order.map(Arc::new);
        for shard in self.0.upgrade().iter().flat_map(|context| &context.shards) {
            shard.send(Command::Drain(order.clone()));
        }
    }
}

impl State {
    /// Obeys an order. What has ended has ended, whatever comes behind it.
    pub(super) fn drain(&mut self, order: Option<Arc<DrainOrder>>) {
        self.draining = order.map(|order| Draining { order, over: None });
    }

    /// Whether a player may have a session now; `None` where that is judged as ever. Who had one before may come back to it until the
    /// time is over.
    pub(super) fn admit_while_draining(&mut self, key: usize, now: Instant) -> Option<Answer> {
        let draining = self.draining.as_ref()?;
        let conn = self.conns.get_mut(key)?;
        if draining.over.is_none() && conn.engine.has_session(&self.http_sessions.borrow()) {
            return None;
        }
        if draining.order.redirect.is_none() {
            metrics::counter!(names::REFUSALS, "cause" => "draining").increment(1);
            tracing::info!(session = conn.session, peer = %conn.peer, cause = "draining", "viewer refused");
            conn.refused_because(DRAINS);
            return Some(Answer::Admitted(Err(Hresult::TOO_MANY_SESSIONS)));
        }
        // It is sent on when it says what it wants, however full it is here. A place that is free it gets, for the drain may be taken
        // back before it asks.
        conn.permit = self.context.relay.admission().connect(now, conn.peer.ip()).ok();
        Some(Answer::Admitted(Ok(())))
    }

    /// What a viewer is told that wants a name while no new ones are taken; `None` where it is opened as ever.
    ///
    /// The other server judges who may watch: a key goes along, for without it a signed address would open nothing there, and to a
    /// server that has other keys it says nothing. Logins do not; players give them again where they are asked.
    pub(super) fn sent_elsewhere(&mut self, key: usize, name: &str, pass: &Pass) -> Option<OpenRefusal> {
        let draining = self.draining.as_ref()?;
        let conn = self.conns.get(key)?;
        if draining.over.is_none() && conn.engine.has_session(&self.http_sessions.borrow()) {
            return None;
        }
        let order = Arc::clone(&draining.order);
        // As of any other name that is asked for: what was open before is over.
        self.park(key);
        let conn = self.conns.get_mut(key)?;
        (conn.opened, conn.ticket) = (None, None);
        let Some(redirect) = &order.redirect else {
            metrics::counter!(names::REFUSALS, "cause" => "draining").increment(1);
            tracing::info!(session = conn.session, peer = %conn.peer, cause = "draining", "viewer refused");
            conn.refused_because(DRAINS);
            return Some(OpenRefusal::Status(Hresult::TOO_MANY_SESSIONS));
        };
        // A ticket is worth nothing elsewhere.
        let key_shown = pass.key.as_deref().filter(|key| !Tickets::is_ticket(key));
        let query = query_of(key_shown, pass.profile.as_deref());
        let (scheme, name) = match &conn.engine {
            // MMS escapes nothing (MS-MMSP 2.2.4.9), but for what would be taken for an escape.
            Engine::Mms(_) if !name.contains(|sign: char| sign.is_control() || "%#?".contains(sign)) => ("mms", name.to_owned()),
            Engine::Mms(_) => ("mms", percent_encode(name)),
            Engine::Http(_) => ("http", percent_encode(name)),
            Engine::Rtsp(_) if conn.tls => ("rtsps", percent_encode(name)),
            Engine::Rtsp(_) => ("rtsp", percent_encode(name)),
        };
        metrics::counter!(names::REDIRECTS).increment(1);
        tracing::info!(session = conn.session, peer = %conn.peer, to = %redirect, "viewer sent elsewhere");
        let url = redirect.url(scheme, &format!("{name}{query}"));
        // It is no viewer of this server: the drain need not wait for it.
        conn.permit = None;
        Some(OpenRefusal::Redirect(url))
    }

    /// Ends those who watched until the time was over; a moment later all that was here by then.
    pub(super) fn sweep_drained(&mut self, now: Instant) {
        const WORDS: &str = "the time of those who still watched while the daemon drains is over";
        let Some(Draining { order, over }) = &mut self.draining else { return };
        match *over {
            None if order.until.is_some_and(|until| until <= now) => {
                *over = Some(now);
                self.end_all(now, "drained", WORDS);
            }
            Some(over) if now.saturating_duration_since(over) >= FAREWELL => {
                // Who came since is being told where else to go.
                let left = self.conns.iter().filter(|(_, conn)| conn.accepted <= over && conn.closing.is_none());
                let left: Vec<usize> = left.map(|(key, _)| key).collect();
                left.into_iter().for_each(|key| self.close(key, "drained", WORDS));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::net::SocketAddr;
    use std::rc::Rc;
    use std::time::Duration;

    use crate::relay::Relay;
    use crate::settings::{PublishingPoint, Settings, Source};
    use crate::shard::sniff::Protocol;
    use crate::shard::state::Arrival;
    use crate::viewing::{Ask, Player};
    use crate::wire::Guid;

    /// A shard with one publishing point, and the clock.
    fn shard() -> (State, Instant) {
        let settings = Settings { publishing_points: vec![PublishingPoint::new("cam", Source::Push)], ..Settings::default() };
        let relay = Relay::new(&settings, Box::new(Guid::default), Vec::new());
        let (sender, _) = tokio::sync::mpsc::unbounded_channel();
        (State::new(Arc::new(Context::for_tests(settings, relay, sender)), 0), tokio::time::Instant::now().into_std())
    }

    /// A connection that has come in; its other end must be kept.
    async fn connection(state: &mut State, now: Instant, protocol: Protocol, tls: bool) -> (usize, tokio::net::TcpStream) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, peer) = listener.accept().await.unwrap();
        let local: SocketAddr = stream.local_addr().unwrap();
        let arrival = Arrival { peer, local, at: now, udp: None, protocol, tls, takes_publishers: false };
        (state.admit(now, arrival, Rc::new(stream)), client)
    }

    fn order(redirect: Option<&str>, until: Option<Instant>) -> Option<Arc<DrainOrder>> {
        Some(Arc::new(DrainOrder { redirect: redirect.map(|redirect| redirect.parse().unwrap()), until }))
    }

    fn open(state: &mut State, key: usize, now: Instant, name: &str, pass: Pass) -> Option<Answer> {
        state.answer(key, now, Ask::Open { name: name.into(), pass })
    }

    #[tokio::test]
    async fn each_protocol_is_sent_on_in_its_own_scheme() {
        let (mut state, now) = shard();
        state.drain(order(Some("mms://b.example:1756/old"), None));
        let key = Some("aGVsbG8".to_owned());
        for (protocol, tls, name, pass, expected) in [
            (Protocol::Mms, false, "a b/ö", Pass::default(), "mms://b.example:1756/old/a b/ö"),
            (Protocol::Mms, false, "100%", Pass::default(), "mms://b.example:1756/old/100%25"),
            (
                Protocol::Http,
                false,
                "a b",
                Pass { key: key.clone(), ..Pass::default() },
                "http://b.example:1756/old/a%20b?k=aGVsbG8",
            ),
            (
                Protocol::Rtsp,
                false,
                "cam",
                Pass { profile: Some("wmp64".into()), ..Pass::default() },
                "rtsp://b.example:1756/old/cam?profile=wmp64",
            ),
            (Protocol::Rtsp, true, "cam", Pass::default(), "rtsps://b.example:1756/old/cam"),
        ] {
            let (conn, _client) = connection(&mut state, now, protocol, tls).await;
            let admitted = state.answer(conn, now, Ask::Admit(Player::default()));
            assert!(matches!(admitted, Some(Answer::Admitted(Ok(())))), "{admitted:?}");
            match open(&mut state, conn, now, name, pass) {
                Some(Answer::Opened(Err(OpenRefusal::Redirect(url)))) => assert_eq!(url, expected),
                other => panic!("{expected}: {other:?}"),
            }
            assert!(state.conns[conn].permit.is_none(), "it counts as no viewer here");
        }
        let (conn, _client) = connection(&mut state, now, Protocol::Http, false).await;
        let bytes = state.answer(conn, now, Ask::OpenBytes { name: "cam".into(), pass: Pass::default() });
        assert!(matches!(bytes, Some(Answer::Bytes(Err(OpenRefusal::Redirect(_))))), "{bytes:?}");
    }

    #[tokio::test]
    async fn without_another_place_they_are_refused_until_it_is_taken_back() {
        let (mut state, now) = shard();
        state.drain(order(None, None));
        let (conn, _client) = connection(&mut state, now, Protocol::Mms, false).await;
        let admitted = |state: &mut State| state.answer(conn, now, Ask::Admit(Player::default()));
        assert!(matches!(admitted(&mut state), Some(Answer::Admitted(Err(Hresult::TOO_MANY_SESSIONS)))));
        let opened = open(&mut state, conn, now, "cam", Pass::default());
        assert!(matches!(opened, Some(Answer::Opened(Err(OpenRefusal::Status(Hresult::TOO_MANY_SESSIONS))))), "{opened:?}");
        state.drain(None);
        assert!(matches!(admitted(&mut state), Some(Answer::Admitted(Ok(())))));
        let opened = open(&mut state, conn, now, "cam", Pass::default());
        assert!(matches!(opened, Some(Answer::Opened(Err(OpenRefusal::Status(Hresult::NO_STREAM))))), "as ever: {opened:?}");
    }

    #[tokio::test]
    async fn who_is_here_goes_when_the_time_is_over_and_who_comes_then_is_told() {
        let (mut state, now) = shard();
        let (early, _client) = connection(&mut state, now, Protocol::Mms, false).await;
        let until = now + Duration::from_secs(60);
        state.drain(order(Some("b.example"), Some(until)));
        state.sweep(until - Duration::from_secs(1));
        assert!(state.conns[early].closing.is_none());
        state.sweep(until);
        assert_eq!(state.conns[early].closing.as_ref().unwrap().label, "drained");
        let (late, _client) = connection(&mut state, until + Duration::from_millis(1), Protocol::Mms, false).await;
        state.sweep(until + Duration::from_secs(2));
        assert!(state.conns[late].closing.is_none());
    }
}
