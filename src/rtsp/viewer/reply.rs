//! Answers.

use std::time::Instant;

use super::Connection;
use super::dialect::PLAIN_SERVER;
use crate::rtsp::message::{Request, ResponseWriter};
use crate::viewing::{Denial, OpenRefusal};
use crate::wire::Hresult;

/// What viewers may ask for. VLC asks to be kept alive only where GET_PARAMETER is among them.
pub(super) const METHODS: &str = "OPTIONS, DESCRIBE, SETUP, PLAY, PAUSE, TEARDOWN, GET_PARAMETER, SET_PARAMETER";
/// What comes to that where somebody may publish.
pub(super) const METHODS_OF_PUBLISHERS: &str = ", ANNOUNCE, RECORD";
/// What we do for players that know the dialect. Source: MS-RTSP 2.2.6.10.
const SUPPORTED: &str = "com.microsoft.wm.srvppair, com.microsoft.wm.sswitch, com.microsoft.wm.eosmsg, \
                         com.microsoft.wm.fastcache, com.microsoft.wm.packetpairssrc, com.microsoft.wm.startupprofile";

impl Connection {
    /// The begin of an answer: what is the same in all.
    pub(super) fn reply(&self, request: &Request, status: u16) -> ResponseWriter {
        let mut response = ResponseWriter::new(status);
        if let Some(cseq) = request.headers.number::<u64>("CSeq") {
            response.header("CSeq", cseq);
        }
        if self.is_plain {
            response.header("Server", PLAIN_SERVER);
        } else {
            response.header("Server", &self.config.server).header("Supported", SUPPORTED);
        }
        if let Some(session) = &self.session {
            response.header("Session", format_args!("{};timeout={}", session.id, self.config.idle_told.as_secs()));
        }
        if let Some(opened) = &self.opened {
            response.header("X-Playlist-Gen-Id", opened.entry);
        }
        response
    }

    /// An answer without a body.
    pub(super) fn respond(&mut self, now: Instant, response: ResponseWriter) {
        self.send(response.finish());
        self.heard(now);
    }

    pub(super) fn accept(&mut self, now: Instant, request: &Request) {
        let response = self.reply(request, 200);
        self.respond(now, response);
    }

    /// The connection stays: the player may ask for something else.
    pub(super) fn refuse(&mut self, now: Instant, request: &Request, status: u16) {
        self.refuse_with(now, request, status, &[]);
    }

    pub(super) fn refuse_with(&mut self, now: Instant, request: &Request, status: u16, headers: &[(&str, &str)]) {
        let mut response = self.reply(request, status);
        for (name, value) in headers {
            response.header(name, value);
        }
        self.respond(now, response);
    }
}

/// Why a name does not open, as RTSP has it.
pub(super) const fn status_of(refusal: &OpenRefusal) -> u16 {
    match refusal {
        OpenRefusal::Status(Hresult::FILE_NOT_FOUND | Hresult::INVALID_NAME) | OpenRefusal::NotAFile => 404,
        OpenRefusal::Status(Hresult::ACCESS_DENIED) => 403,
        OpenRefusal::Status(Hresult::INSUFFICIENT_BANDWIDTH) => 453,
        OpenRefusal::Status(_) | OpenRefusal::Denied(Denial::Guesses) => 503,
        OpenRefusal::Denied(Denial::BadLogin) => 400,
        OpenRefusal::Denied(_) => 403,
        OpenRefusal::Login(_) => 401,
        OpenRefusal::Redirect(_) => 302,
    }
}
