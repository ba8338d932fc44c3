//! ASF packets in RTP: what is sent, what is received, and how both are told apart.

/// How RTP packets travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carriage {
    /// Each is a datagram.
    Datagrams,
    /// Between the responses on the RTSP connection.
    Interleaved {
        /// The channel of the flow.
        channel: u8,
    },
}
