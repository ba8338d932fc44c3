//! The engines of viewers, by the protocol of the URL.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use md5::{Digest as _, Md5};

use super::viewer::Shared;
use crate::client::engine::Engine;
use crate::mms::client::ClientTransport;
use crate::wire::Guid;
use crate::{http, mms, rtsp};

/// Servers of version 9 turn away whoever claims to be version 9 or later over MMS, hoping for RTSP.
const PLAYER: &str = "NSPlayer/7.1.0.3055";
/// Over HTTP the engine speaks as version 9 does.
const HTTP_PLAYER: &str = "NSPlayer/9.0.0.3171";

/// Where the media of a viewer goes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Path {
    Tcp,
    /// To this port, and of RTSP what is sent again to another one.
    Udp {
        address: IpAddr,
        port: u16,
        resends: Option<u16>,
    },
}

/// An engine on a connection that has just come about; `local`: where media comes to.
///
/// # Errors
/// The system has no random numbers.
pub(super) fn engine(now: Instant, shared: &Shared, local: SocketAddr, path: Path) -> io::Result<Engine> {
    let (url, guid, stays) = (&shared.url, guid_of(shared.identity, local), shared.start.is_some());
    if url.scheme.is_rtsp() {
        let transport = match path {
            Path::Tcp => rtsp::client::ClientTransport::Tcp,
            Path::Udp { port, resends, .. } => {
                rtsp::client::ClientTransport::Udp { media: (port, None), resends: (resends.unwrap_or(port), None) }
            }
        };
        let mut config = rtsp::client::ClientConfig::new(url.rtsp_url(), transport);
        config.player = format!("{} guid/{guid}", rtsp::client::PULLING_SERVER);
        config.login.clone_from(&url.login);
        getrandom::fill(&mut config.salt).map_err(io::Error::other)?;
        (config.count_only, config.counts_plain, config.stays) = (true, true, stays);
        return Ok(Engine::Rtsp(Box::new(rtsp::client::Client::new(now, config))));
    }
    if url.scheme.is_mms() {
        let transport = match path {
            Path::Tcp => ClientTransport::Tcp,
            Path::Udp { address, port, .. } => ClientTransport::Udp { address, port },
        };
        let player = format!("{PLAYER}; {{{guid}}}");
        let config = mms::client::ClientConfig::new(url.host.clone(), url.name.clone(), transport, player);
        let config = mms::client::ClientConfig { count_only: true, stays, ..config };
        return Ok(Engine::Mms(Box::new(mms::client::Client::new(now, config))));
    }
    let mut config = http::client::ClientConfig::new(url.host_field(), url.target.clone(), HTTP_PLAYER.into(), guid);
    if let Some(login) = &url.login {
        config.login = Some(login.clone());
        getrandom::fill(&mut config.salt).map_err(io::Error::other)?;
    }
    (config.count_only, config.stays) = (true, stays);
    Ok(Engine::Http(Box::new(http::client::Client::new(now, config))))
}

/// One player each, since a server may tell them apart by nothing else; and the same for the same port in the next run, so that a
/// server that lets a freed port rest gives it back to its last owner at once.
fn guid_of(identity: Guid, local: SocketAddr) -> Guid {
    let mut digest = Md5::new();
    digest.update(identity.0);
    digest.update(local.to_string());
    Guid(digest.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_viewer_is_a_player_of_its_own_and_known_again() {
        let guid = |address: &str| guid_of(Guid([7; 16]), address.parse().unwrap());
        assert_eq!(guid("127.0.0.2:1024"), guid("127.0.0.2:1024"));
        assert_ne!(guid("127.0.0.2:1024"), guid("127.0.0.2:1025"));
        assert_ne!(guid("127.0.0.2:1024"), guid("127.0.0.3:1024"));
        assert_ne!(guid("127.0.0.2:1024"), guid_of(Guid([8; 16]), "127.0.0.2:1024".parse().unwrap()));
    }
}
