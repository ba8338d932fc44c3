//! Streams set up: over which transport, to which ports.

use std::time::Instant;

use super::describe::aggregate;
use super::{Agent, Ask, Carriage, Connection, Play, Request, Session, Spec, Step, Target, client_id_of};
use crate::asf::{Selection, StreamSet};
use crate::rtsp::message::StreamToken;
use crate::rtsp::sdp::Control;
use crate::rtsp::transport::{Lower, Mode, Switch, Thinning};
use crate::viewing::{Flow, UdpPorts};

/// The type of bodies that switch streams.
pub(super) const SWITCH: &str = "application/x-wms-streamswitch";
/// Datagrams below this are too small to be worth it. Source: RFC 2326 12.7.
const SMALLEST_BLOCK: u32 = 1200;

/// A SETUP that waits for ports.
#[derive(Debug)]
pub(super) struct Leasing {
    token: StreamToken,
    stream: Option<u8>,
    /// What is asked for.
    spec: Spec,
    /// What would be taken instead.
    instead: Option<Spec>,
}

/// How a stream is to travel.
enum Choice {
    /// On the connection.
    Interleaved(Spec),
    /// To ports that are leased already.
    Leased(Spec),
    /// To ports that are still to be leased.
    Lease {
        spec: Spec,
        instead: Option<Spec>,
    },
    Refused,
}

impl Connection {
    /// Source: MS-RTSP 3.2.5.6; RFC 2326 10.4.
    pub(super) fn setup(&mut self, now: Instant, request: Box<Request>) {
        let (target, whole) = match (Target::parse(&request.target), aggregate(&request)) {
            (Ok(target), Ok(whole)) => (target, whole),
            (Err(_), _) => return self.refuse(now, &request, 400),
            (_, Err(status)) => return self.refuse(now, &request, status),
        };
        // Players set up without a description too. A session is of one name.
        let known =
            self.opened.as_ref().is_some_and(|opened| opened.target.same_path(&whole) || opened.target.same_path(&target));
        if !known {
            return match self.session {
                Some(_) if request.headers.get("Session").is_some() => self.refuse(now, &request, 400),
                _ => {
                    self.end_session(now);
                    self.seek_entry(now, request);
                }
            };
        }
        let Some(opened) = &self.opened else { return };
        let token = target.split_stream().filter(|_| !opened.is_whole(&target)).map(|(_, token)| token);
        let Some(token) = token else { return self.refuse(now, &request, 459) };
        let stream = match opened.tracks.find(&token.to_string()) {
            Some(Control::Stream(stream)) => Some(stream),
            Some(Control::Rtx) => None,
            None => return self.refuse(now, &request, 400),
        };
        let specs = match Spec::parse_all(request.headers.all("Transport")) {
            Ok(specs) if !specs.is_empty() || request.headers.get("Transport").is_some() => specs,
            _ => return self.refuse(now, &request, 400),
        };
        if request.headers.get("Session").is_none() && self.session.is_some() {
            // A player that changes from UDP to TCP begins anew, on the same connection.
            self.end_session(now);
        }
        match self.choose(&request, stream, specs) {
            Choice::Interleaved(spec) | Choice::Leased(spec) => self.set_up(now, &request, token, stream, &spec),
            Choice::Lease { spec, instead } => {
                let Some((first, second)) = spec.client_port else { return self.refuse(now, &request, 461) };
                let is_ffmpeg = Agent::of(request.headers.get("User-Agent")) == Agent::Lavf;
                let id = self.session.as_ref().map_or(self.next_id, |session| session.id);
                let ports = UdpPorts {
                    owner: client_id_of(id),
                    flow: if stream.is_some() { Flow::Media } else { Flow::Resends },
                    first,
                    pair: second.is_some(),
                    // FFmpeg takes ports one after the other, and gives up where the next one is refused.
                    then: (stream.is_none() && is_ffmpeg).then(|| first.saturating_add(2)),
                };
                self.wait(now, request, Step::Leased(Box::new(Leasing { token, stream, spec, instead })), Ask::Lease(ports));
            }
            Choice::Refused => self.refuse_transport(now, &request),
        }
    }

    /// The first way that will do.
    fn choose(&self, request: &Request, stream: Option<u8>, specs: Vec<Spec>) -> Choice {
        let session = self.session.as_ref();
        let has_media = session.is_some_and(|session| session.carriage.is_some());
        let leased = session.and_then(|session| session.ports);
        let is_small = request.headers.number::<u32>("Blocksize").is_some_and(|bytes| bytes < SMALLEST_BLOCK);
        let mut specs =
            specs.into_iter().filter(|spec| spec.unicast && spec.mode != Some(Mode::Record) && self.is_for_peer(spec));
        while let Some(spec) = specs.next() {
            match spec.lower {
                // One transport for the whole of a session; and what comes on the connection needs no repetition.
                Lower::Tcp if stream.is_none() || leased.is_some() => {}
                Lower::Tcp => return Choice::Interleaved(spec),
                Lower::Udp if self.udp_refused || self.server_port.is_none() || is_small => {}
                Lower::Udp if has_media && leased.is_none() => {}
                Lower::Udp => {
                    let Some((first, second)) = spec.client_port else { continue };
                    if second.is_some_and(|second| first.checked_add(1) != Some(second)) {
                        continue;
                    }
                    if let (Some(_), Some((ours, _))) = (stream, leased) {
                        // One flow for all streams.
                        if first == ours {
                            return Choice::Leased(spec);
                        }
                        continue;
                    }
                    let instead = specs.find(|spec| spec.lower == Lower::Tcp && stream.is_some());
                    return Choice::Lease { spec, instead };
                }
            }
        }
        Choice::Refused
    }

    /// Media goes to the peer's own address only.
    fn is_for_peer(&self, spec: &Spec) -> bool {
        spec.destination.as_ref().is_none_or(|address| address.parse() == Ok(self.peer))
    }

    pub(super) fn leased(&mut self, now: Instant, request: Box<Request>, leasing: Leasing, granted: bool) {
        let Leasing { token, stream, spec, instead } = leasing;
        if granted {
            return self.set_up(now, &request, token, stream, &spec);
        }
        match instead {
            Some(spec) => self.set_up(now, &request, token, stream, &spec),
            None => self.refuse_transport(now, &request),
        }
    }

    /// Source: RFC 2326 11.3.14.
    fn refuse_transport(&mut self, now: Instant, request: &Request) {
        // GStreamer's second stream asks for other ports first: that says nothing about UDP.
        self.udp_refused |= self.session.as_ref().is_none_or(|session| session.ports.is_none());
        self.refuse(now, request, 461);
    }

    /// Enters a stream into the session, which begins with the first one.
    fn set_up(&mut self, now: Instant, request: &Request, token: StreamToken, stream: Option<u8>, spec: &Spec) {
        let agent = Agent::of(request.headers.get("User-Agent"));
        let Some(opened) = &self.opened else { return };
        let ssrc = if stream.is_some() { opened.description.ssrc } else { self.client_id };
        let id = self.next_id;
        let session = self.session.get_or_insert_with(|| Session::new(id, &opened.name, agent.is_windows_media()));
        let channels = spec.interleaved.unwrap_or_else(|| {
            // As many as there are streams: the next pair.
            let first = u8::try_from(session.streams.len() * 2).unwrap_or(0);
            (first, first.checked_add(1))
        });
        match (stream, spec.lower) {
            (None, _) => session.resends = true,
            (Some(_), Lower::Udp) => {
                session.ports = spec.client_port.map(|(first, second)| (first, second.is_some()));
                session.carriage = Some(Carriage::Datagrams);
            }
            // All streams are one flow: it travels on the first one's channel.
            (Some(_), Lower::Tcp) => {
                session.carriage.get_or_insert(Carriage::Interleaved { channel: channels.0 });
            }
        }
        if let Some(stream) = stream
            && !session.streams.iter().any(|(_, known)| *known == stream)
        {
            session.streams.push((token, stream));
        }
        if let Some(stream) = stream
            && request.headers.is_type(SWITCH)
            && let Ok(entries) = Switch::parse_all(&request.body)
            && entries.iter().any(|entry| entry.thinning == Thinning::KeyFrames)
        {
            session.thinned = session.thinned.union([stream].into_iter().collect());
        }
        let plays = session.state == Play::Playing;
        let answer = Spec {
            interleaved: (spec.lower == Lower::Tcp).then_some(channels),
            server_port: self.server_port.filter(|_| spec.lower == Lower::Udp).map(|port| (port, port.checked_add(1))),
            source: (spec.lower == Lower::Udp).then(|| self.local.ip().to_canonical().to_string()),
            ssrc: Some(ssrc),
            mode: Some(Mode::Play),
            destination: None,
            ..spec.clone()
        };
        let mut response = self.reply(request, 200);
        response.header("Transport", answer);
        self.respond(now, response);
        if plays {
            self.select();
        }
    }

    /// Tells the relay what is set up. Players outside the dialect need all of it, whatever they set up: they read the mux.
    pub(super) fn select(&mut self) {
        let (Some(session), Some(opened)) = (&self.session, &self.opened) else { return };
        let all = opened.description.streams;
        let set_up: StreamSet = session.streams.iter().map(|(_, stream)| *stream).collect();
        let selection = if session.is_windows_media {
            let streams = all.intersection(set_up);
            Selection { thinned: session.thinned.intersection(streams), ..Selection::all(streams) }
        } else {
            Selection::all(all)
        };
        self.ask(Ask::Select(selection));
    }

    /// Takes a stream out; the last one ends the session.
    pub(super) fn deselect(&mut self, now: Instant, token: StreamToken) {
        let Some(session) = &mut self.session else { return };
        if token == StreamToken::Rtx {
            session.resends = false;
            return;
        }
        // By the URL of its SETUP, whatever was switched to since.
        session.streams.retain(|(known, _)| *known != token);
        self.reselect(now);
    }

    /// The streams have changed.
    pub(super) fn reselect(&mut self, now: Instant) {
        let Some(session) = &self.session else { return };
        if session.streams.is_empty() {
            self.end_session(now);
        } else if session.state == Play::Playing {
            self.select();
        }
    }
}
