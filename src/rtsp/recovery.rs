//! What is asked for again, what a player says it received, and the packets by which it tests its path.

mod compound;
mod nack;
mod packet_pair;
mod receiver_report;

pub use nack::{MAX_NACKS, MAX_SEQUENCES, Nack};
pub use packet_pair::{
    PairSizes, TCP_PAIR_BYTES, TCP_PAIR_RANDOM_BYTES, UDP_PAIR_RANDOM_BYTES, tcp_packet_pair, udp_packet_pair,
};
pub use receiver_report::{MAX_REPORT_BLOCKS, ReceiverReport, ReportBlock};
