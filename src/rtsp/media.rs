//! ASF packets in RTP: what is sent, what is received, and how both are told apart.
