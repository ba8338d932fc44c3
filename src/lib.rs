//! wmrelay: a streaming relay for Windows Media-style players.

pub mod access_log;
pub mod archive;
pub mod args;
pub mod asf;
pub mod client;
pub mod console;
pub mod control;
pub mod firewall;
pub mod hooks;
pub mod http;
pub mod ingest;
pub mod logging;
pub mod metrics;
pub mod mms;
pub mod playing;
pub mod relay;
pub mod rtsp;
pub mod run;
pub mod settings;
pub mod shard;
pub mod text;
pub mod viewing;
pub mod wire;
