//! GET_PARAMETER and SET_PARAMETER: what keeps a session alive, what players report, the tests of their path.

use std::time::{Duration, Instant};

use super::describe::cache_control;
use super::setup::SWITCH;
use super::{Connection, Output, Request};
use crate::rtsp::recovery::{PairSizes, TCP_PAIR_BYTES, tcp_packet_pair, udp_packet_pair};
use crate::rtsp::sdp::Control;
use crate::rtsp::transport::{Switch, Thinning};

/// Longest report that is kept, bytes.
const LOG_BOUND: usize = 8 << 10;
/// Runs of the UDP test for one session. Source: the daemon's own, against reflection.
const MOST_TESTS: u8 = 3;
/// Between two of them.
const TEST_INTERVAL: Duration = Duration::from_secs(5);

impl Connection {
    pub(super) fn get_parameter(&mut self, now: Instant, request: &Request) {
        if request.headers.is_type("application/x-rtsp-packetpair") {
            return self.packet_pair(now, request);
        }
        if request.headers.is_type("application/x-wms-getcontentinfo") {
            let content = self.opened.as_ref().map(|opened| opened.description.content);
            let value = content.map_or("no-cache", cache_control);
            return self.refuse_with(now, request, 200, &[("Cache-Control", value)]);
        }
        if request.body.is_empty() { self.accept(now, request) } else { self.refuse(now, request, 451) }
    }

    pub(super) fn set_parameter(&mut self, now: Instant, request: &Request) {
        let is = |kind: &str| request.headers.is_type(kind);
        if is(SWITCH) {
            return self.switch(now, request);
        }
        if is("application/x-rtsp-udp-packetpair") {
            return self.udp_packet_pair(now, request);
        }
        if is("application/x-wms-Logplaystats") || is("application/x-wms-Logconnectstats") || is("application/x-wms-sendevent") {
            // What is in it is the player's own affair: no server has ever refused one.
            if is("application/x-wms-Logplaystats") {
                let text = String::from_utf8_lossy(request.body.get(..LOG_BOUND).unwrap_or(&request.body)).into_owned();
                self.report.log = Some(text);
            }
            return self.accept(now, request);
        }
        // What GStreamer makes of our own request at the end of the stream.
        if request.body.is_empty() || is("application/x-wms-extension-cmd") {
            self.reader.expects_echo(false);
            return self.accept(now, request);
        }
        self.refuse(now, request, 451);
    }

    /// Three packets of noise behind the answer, by whose arrival a player knows its bandwidth. Source: MS-RTSP 3.2.5.16.
    fn packet_pair(&mut self, now: Instant, request: &Request) {
        let mut response = self.reply(request, 200);
        response.header("Content-Type", "application/x-rtsp-packetpair");
        let head = response.head_for(TCP_PAIR_BYTES);
        let [first, second, third] = tcp_packet_pair(head.len(), &noise(self.next_id));
        // Head and first packet fill a segment.
        self.send([head.as_ref(), &first].concat().into());
        self.send(second.into());
        self.send(third.into());
        self.heard(now);
    }

    /// The same over UDP, which tells a player that it can be reached: never left out. Source: MS-RTSP 3.2.5.14.
    fn udp_packet_pair(&mut self, now: Instant, request: &Request) {
        let Some(sizes) = PairSizes::parse(&request.body) else { return self.refuse(now, request, 400) };
        if self.session.as_ref().is_none_or(|session| !session.resends) {
            return self.refuse(now, request, 455);
        }
        // Of the connection: who begins session after session gets no more.
        let (tests, last) = self.tests;
        if tests < MOST_TESTS && last.is_none_or(|last| now.saturating_duration_since(last) >= TEST_INTERVAL) {
            self.tests = (tests + 1, Some(now));
            let sequence = u16::from(tests) * 3;
            for packet in udp_packet_pair(sizes, sequence, self.client_id, &noise(self.next_id ^ u64::from(sequence))) {
                self.outputs.push_back(Output::Datagram(packet.into()));
            }
        }
        self.accept(now, request);
    }

    /// Source: MS-RTSP 2.2.7.10.
    pub(super) fn switch(&mut self, now: Instant, request: &Request) {
        if let Err(status) = self.is_about_session(request) {
            return self.refuse(now, request, status);
        }
        let Ok(entries) = Switch::parse_all(&request.body) else { return self.refuse(now, request, 400) };
        let (Some(session), Some(opened)) = (&mut self.session, &self.opened) else { return };
        let (mut streams, mut thinned) = (session.streams.clone(), session.thinned);
        for entry in entries {
            let number = |stream: Option<(u32, _)>| stream.map(|(stream, _)| opened.tracks.find(&format!("stream={stream}")));
            let (old, new) = (number(entry.old), number(entry.new));
            if matches!(old, Some(None)) || matches!(new, Some(None)) {
                return self.refuse(now, request, 400);
            }
            let stream = |control: Option<Option<Control>>| match control.flatten() {
                Some(Control::Stream(stream)) => Some(stream),
                _ => None,
            };
            let (old, new) = (stream(old), stream(new));
            if entry.thinning == Thinning::Nothing || new.is_none() {
                streams.retain(|(_, known)| Some(*known) != new && Some(*known) != old);
                continue;
            }
            if let (Some(old), Some(new)) = (old, new)
                && let Some(place) = streams.iter_mut().find(|(_, known)| *known == old)
            {
                // The URL of the first SETUP stays the stream's name.
                place.1 = new;
            }
            if let Some(new) = new {
                let one = [new].into_iter().collect();
                thinned = if entry.thinning == Thinning::KeyFrames { thinned.union(one) } else { thinned.difference(one) };
            }
        }
        (session.streams, session.thinned) = (streams, thinned);
        self.accept(now, request);
        self.reselect(now);
    }
}

/// Bytes that no link on the way makes smaller. Nothing hangs on their being unknown.
fn noise<const N: usize>(seed: u64) -> [u8; N] {
    let mut state = seed | 1;
    std::array::from_fn(|_| {
        // xorshift64.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[4]
    })
}
