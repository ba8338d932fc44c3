//! The client against our own server's engine over a link that loses and delays, and against servers of other makes.

mod joined;
mod seek;
mod servers;
mod world;
