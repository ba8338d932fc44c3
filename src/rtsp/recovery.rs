//! What is asked for again, and the packets by which a player tests its path.

mod nack;
mod packet_pair;

pub use nack::{MAX_NACKS, MAX_SEQUENCES, Nack};
pub use packet_pair::{
    PairSizes, TCP_PAIR_BYTES, TCP_PAIR_RANDOM_BYTES, UDP_PAIR_RANDOM_BYTES, tcp_packet_pair, udp_packet_pair,
};
