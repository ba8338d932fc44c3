//! Files as they stand on the disk, for whoever asks for bytes and not for media.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::command::Command;
use super::conn::{Opened, Place};
use super::engine::Event;
use super::state::State;
use crate::archive::{AsfFile, OpenError, ReadError};
use crate::metrics as names;
use crate::settings::Source;
use crate::viewing::{Answer, FileFacts, OpenRefusal, Pass};
use crate::wire::Hresult;

/// Bytes that are read at once, and wait for the connection at most.
const PIECE_BYTES: u64 = 64 << 10;

/// A part of a file on its way to one connection.
pub(super) struct Download {
    file: Arc<AsfFile>,
    next: u64,
    end: u64,
    /// A reader has been asked for the next piece.
    reading: bool,
    begin: Instant,
    sent: u64,
    /// When it goes on, where a cap holds it back; kept by who has the clock.
    pub(super) due: Option<Instant>,
}

impl State {
    /// Opens a file for its bytes; the answer comes when a reader has done it.
    pub(super) fn open_bytes(&mut self, key: usize, now: Instant, name: &str, pass: Pass) -> Option<Answer> {
        if let Some(refusal) = self.sent_elsewhere(key, name, &pass) {
            return Some(Answer::Bytes(Err(refusal)));
        }
        let (point, below) = match self.turn_to(key, now, name, pass) {
            Ok(found) => found,
            Err(refusal) => return Some(Answer::Bytes(Err(refusal))),
        };
        let settings = point.settings();
        let Source::Files { root } = &settings.source else {
            return Some(Answer::Bytes(Err(OpenRefusal::NotAFile)));
        };
        let (mailbox, archive) = (self.context.mailbox(self.index).clone(), Arc::clone(&self.context.archive));
        let root = root.clone();
        let conn = self.conns.get_mut(key)?;
        conn.request += 1;
        let (client_id, request) = (conn.entry.client_id(), conn.request);
        conn.opened = Some(Opened::new(point, name));
        archive.open(
            &root,
            &below,
            Box::new(move |result| {
                mailbox.send(Command::BytesOpened { conn: key, client_id, request, result });
            }),
        );
        None
    }

    /// A file was opened for its bytes, or was not.
    pub(super) fn bytes_opened(&mut self, key: usize, now: Instant, request: u64, result: Result<Arc<AsfFile>, OpenError>) {
        if self.conns.get(key).is_none_or(|conn| conn.request != request) {
            return;
        }
        let result = self.bytes_answer(key, result);
        if let (Some(conn), Err(_)) = (self.conns.get_mut(key), &result) {
            conn.opened = None;
        }
        self.drive(key, now, Event::Answer(Answer::Bytes(result)));
    }

    fn bytes_answer(&mut self, key: usize, result: Result<Arc<AsfFile>, OpenError>) -> Result<FileFacts, OpenRefusal> {
        let refused = |hr| Err(OpenRefusal::Status(hr));
        let file = match result {
            Ok(file) => file,
            Err(error) => return refused(self.not_opened(key, &error)),
        };
        let Some(conn) = self.conns.get_mut(key) else { return refused(Hresult::NO_STREAM) };
        let (Some(opened), Some(permit)) = (&mut conn.opened, &mut conn.permit) else {
            return refused(Hresult::INVALID_REQUEST);
        };
        let header = &file.description().header;
        if let Err(refusal) = self.context.relay.admission().open(permit, opened.point.account(), header.bit_rate()) {
            return refused(self.refused(key, refusal));
        }
        let facts = FileFacts {
            len: file.bytes(),
            modified: Some(file.modified_s()),
            identity: file.identity(),
            content_type: if !header.video().is_empty() { "video/x-ms-wmv" } else { "audio/x-ms-wma" },
        };
        opened.download = Some(file);
        Ok(facts)
    }

    /// Begins to send a part of the file that was opened last.
    pub(super) fn send_bytes(&mut self, key: usize, now: Instant, first: u64, len: u64) {
        self.park(key);
        let Some(conn) = self.conns.get_mut(key) else { return };
        let Some(file) = conn.opened.as_ref().and_then(|opened| opened.download.clone()) else { return };
        let end = first.saturating_add(len).min(file.bytes());
        conn.place =
            Place::Download(Box::new(Download { file, next: first, end, reading: false, begin: now, sent: 0, due: None }));
        self.ticket_has_media(key, now);
        // The flush behind this begins it, once the response's head has gone.
    }

    /// Has the next piece read, unless one is on its way or the cap says later.
    pub(super) fn serve_download(&mut self, key: usize, now: Instant) {
        let mailbox = self.context.mailbox(self.index).clone();
        let cap_kbps = u64::from(self.context.settings.limits.viewer_kbps);
        let Some(conn) = self.conns.get_mut(key) else { return };
        let Place::Download(download) = &mut conn.place else { return };
        if download.reading || !conn.out.is_empty() {
            return;
        }
        if download.next >= download.end {
            conn.place = Place::Nowhere;
            self.ticket_rests(key);
            return self.drive(key, now, Event::Answer(Answer::BytesSent));
        }
        // Kilobits a second are bits a millisecond.
        let due = (download.sent * 8).checked_div(cap_kbps).map(|ms| download.begin + Duration::from_millis(ms));
        if let Some(due) = due.filter(|due| *due > now) {
            return self.schedule(key, Some(due));
        }
        download.reading = true;
        let (at, len) = (download.next, PIECE_BYTES.min(download.end - download.next));
        let (client_id, request) = (conn.entry.client_id(), conn.request);
        download.file.read_bytes(
            at,
            usize::try_from(len).unwrap_or_default(),
            Box::new(move |result| {
                mailbox.send(Command::BytesRead { conn: key, client_id, request, result });
            }),
        );
    }

    /// A piece was read, or cannot be.
    pub(super) fn bytes_read(&mut self, key: usize, now: Instant, request: u64, result: Result<Bytes, ReadError>) {
        let Some(conn) = self.conns.get_mut(key).filter(|conn| conn.request == request) else { return };
        let Place::Download(download) = &mut conn.place else { return };
        match result {
            Ok(bytes) => {
                download.reading = false;
                download.next += bytes.len() as u64;
                download.sent += bytes.len() as u64;
                conn.downloaded += bytes.len() as u64;
                self.context.sent_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                conn.out.push(bytes);
                self.flush(key, now);
                if let Some(conn) = self.conns.get(key)
                    && !conn.out.is_empty()
                {
                    conn.wake.notify_one();
                }
            }
            Err(error) => {
                // The length was promised: all that can be said is that it was not kept.
                let text = format!("a download broke off: {error}");
                metrics::counter!(names::REFUSALS, "cause" => "file_unreadable").increment(1);
                self.close(key, "content_broken", text);
            }
        }
    }
}
