//! Single datagrams to one viewer: packets sent again, pieces of the header, and what its path takes.

use std::io::IoSlice;
use std::sync::Arc;

use super::broadcast::{Framing, Link};
use super::conn::{Conn, Opened, Place};
use super::rtp::flow_of;
use super::seat::Title;
use super::stage::push_rtp;
use super::state::State;
use crate::mms::media::{HEAD_LEN, Next, RESEND_WINDOW, Sent, Track};
use crate::relay::Batch;
use crate::rtsp::media::{Carriage, Facts, Packets, fragments};
use crate::settings::Oversize;

impl State {
    /// Sends a packet again, byte for byte as the first time, to the leased port.
    pub(super) fn resend(&mut self, key: usize, sequence: u32) {
        let result = self.try_resend(key, sequence).unwrap_or("unknown");
        self.counters.resent(result, 1);
    }

    fn try_resend(&mut self, key: usize, sequence: u32) -> Option<&'static str> {
        let conn = self.conns.get(key).filter(|conn| !conn.is_mute())?;
        let (route, opened) = (conn.resend_path.as_ref().map(|path| path.route).or(conn.route)?, conn.opened.as_ref()?);
        let (framing, next, track) = self.numbering(conn, opened)?;
        let datagram = match framing {
            Framing::Rtp(_) => self.rtp_again(conn, opened, next, track, sequence),
            _ => self.mms_again(conn, opened, track.lookup(next, sequence)?),
        };
        let Some(datagram) = datagram else { return Some("expired") };
        let stride = datagram.len();
        let outcome = self.origins.send(&route, &[IoSlice::new(&datagram)], stride);
        // What single datagrams tell of the path holds for media too.
        if outcome.too_big {
            self.fragment(key);
        }
        self.tally.udp_calls += u64::from(outcome.calls);
        self.tally.icmp_pending |= outcome.errors_pending;
        if outcome.bytes != stride || outcome.failed != 0 {
            return Some("failed");
        }
        self.tally.udp_packets += 1;
        self.tally.udp_bytes += stride as u64;
        Some("sent")
    }

    /// How packets of a session are framed and numbered, and what of them it was sent.
    fn numbering<'a>(&'a self, conn: &'a Conn, opened: &Opened) -> Option<(Framing, &'a Next, &'a Track)> {
        let viewer = match &conn.place {
            Place::Seat(index) => {
                let viewers = &self.broadcasts.get(opened.channel)?.viewers;
                return Some((viewers.hot(*index)?.framing, &viewers.hot(*index)?.next, &viewers.cold(*index)?.track));
            }
            Place::OnDemand(seat) => &seat.viewer,
            Place::Parked(viewer) => viewer,
            Place::Nowhere | Place::Download(_) => return None,
        };
        Some((viewer.hot.framing, &viewer.hot.next, &viewer.cold.track))
    }

    /// Whether a session was sent the RTP packet with this sequence number as a datagram, among the last that it was sent.
    pub(super) fn has_sent_in_rtp(&self, conn: &Conn, opened: &Opened, sequence: u16) -> bool {
        self.numbering(conn, opened).is_some_and(|(framing, next, track)| {
            matches!(framing, Framing::Rtp(Carriage::Datagrams)) && self.find_in_rtp(opened, next, track, sequence).is_some()
        })
    }

    /// What had an RTP sequence number, and which of its fragments that was.
    fn find_in_rtp(&self, opened: &Opened, next: &Next, track: &Track, sequence: u16) -> Option<(Sent, u16)> {
        let fragments = fragments(opened.packet_size, self.context.max_rtp_datagram());
        let (back, fragment) = opened.flow.before(next.sequence, fragments, sequence);
        if !(1..=RESEND_WINDOW).contains(&back) {
            return None;
        }
        Some((track.lookup(next, next.sequence.wrapping_sub(back))?, fragment))
    }

    /// A packet as it was framed for MMS.
    fn mms_again(&self, conn: &Conn, opened: &Opened, sent: Sent) -> Option<Vec<u8>> {
        let mut datagram = Vec::new();
        let mut frame = |number: u64, packet: &[u8]| {
            datagram.extend_from_slice(&sent.head_of(number, packet.len()).bytes());
            datagram.extend_from_slice(packet);
        };
        match &opened.title {
            Some(Title::File(file)) => {
                file.again(sent.packet, conn.selection, frame);
                crate::asf::padding::settle(datagram.get_mut(HEAD_LEN..).unwrap_or_default());
            }
            Some(Title::Relayed(relayed)) => relayed.again(sent.packet, frame),
            None => {
                let (batch, index) = self.sent_of(opened, sent)?;
                frame(batch.packets.get(index)?.number, batch.packet(index)?);
            }
        }
        (!datagram.is_empty()).then_some(datagram)
    }

    /// The very RTP packet that had a sequence number, of which the low 16 bits count.
    fn rtp_again(&self, conn: &Conn, opened: &Opened, next: &Next, track: &Track, sequence: u32) -> Option<Vec<u8>> {
        let fragments = fragments(opened.packet_size, self.context.max_rtp_datagram());
        let [_, _, n1, n0] = sequence.to_be_bytes();
        let (sent, fragment) = self.find_in_rtp(opened, next, track, u16::from_be_bytes([n1, n0]))?;
        let mut packets = Packets::new(Carriage::Datagrams, fragments);
        match &opened.title {
            Some(Title::File(file)) => {
                file.again(sent.packet, conn.selection, |_, packet| push_rtp(&mut packets, packet, opened.flow, sent.sequence));
            }
            Some(Title::Relayed(relayed)) => {
                relayed.again(sent.packet, |_, packet| push_rtp(&mut packets, packet, opened.flow, sent.sequence));
            }
            None => {
                let (batch, index) = self.sent_of(opened, sent)?;
                let packet = batch.packets.get(index).filter(|_| flow_of(&batch.generation) == opened.flow)?;
                let facts = Facts { packet: sent.sequence, send_time_ms: packet.send_time_ms, key: packet.key };
                packets.push(batch.packet(index)?, batch.generation.packet_size, opened.flow, facts);
            }
        }
        packets.stretch(0, 1).fragment(fragment).map(<[u8]>::to_vec)
    }

    /// A packet of a broadcast, where the window still has it.
    fn sent_of(&self, opened: &Opened, sent: Sent) -> Option<(&Arc<Batch>, usize)> {
        let channel = self.tagged(opened.point.id(), sent.variant)?;
        self.broadcasts.get(channel)?.window.packet(sent.packet)
    }

    /// What an engine makes: a fragment of the header over an MMS funnel, a test of a path. Nobody looks after a lost one here.
    pub(super) fn send_datagram(&mut self, key: usize, packet: &[u8]) {
        let Some(conn) = self.conns.get(key).filter(|conn| !conn.is_mute()) else { return };
        let Some(route) = conn.resend_path.as_ref().map(|path| &path.route).or(conn.route.as_ref()) else { return };
        let sent = self.origins.send(route, &[IoSlice::new(packet)], packet.len());
        self.tally.udp_calls += u64::from(sent.calls);
        self.tally.icmp_pending |= sent.errors_pending;
        if sent.too_big {
            self.fragment(key);
        }
    }

    /// Datagrams of this session are too big for a network on the way: they go as IP fragments from here on.
    pub(super) fn fragment(&mut self, key: usize) {
        if self.context.settings.udp.oversize == Oversize::Refuse {
            return;
        }
        let Some(conn) = self.conns.get_mut(key) else { return };
        if let Some(route) = &mut conn.route {
            route.fragmented = true;
        }
        if let Place::OnDemand(seat) = &mut conn.place
            && let Link::Udp(route) = &mut seat.viewer.hot.link
        {
            route.fragmented = true;
        }
        if let (Some(opened), Place::Seat(index)) = (&conn.opened, &conn.place)
            && let Some(broadcast) = self.broadcasts.get_mut(opened.channel)
            && let Some(Link::Udp(route)) = broadcast.viewers.hot_mut(*index).map(|viewer| &mut viewer.link)
        {
            route.fragmented = true;
        }
    }
}
