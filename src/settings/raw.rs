//! The settings as a person writes them: names and types only, nothing checked yet.
//!
//! Every field is optional, so that each layer can be read by itself; what is missing keeps its built-in value.

use std::fmt;
use std::path::PathBuf;

use serde::de::{IntoDeserializer, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::fallback::RawFallback;

/// The top level of a settings file.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields, expecting = "a settings file")]
pub(super) struct Raw {
    pub(super) shards: Option<u32>,
    pub(super) source_timeout_s: Option<u32>,
    pub(super) mms: RawMedia,
    pub(super) http: RawMedia,
    pub(super) rtsp: RawRtsp,
    pub(super) admin: RawListen,
    pub(super) control: RawControl,
    pub(super) console: RawListen,
    pub(super) drain: RawDrain,
    pub(super) udp: RawUdp,
    pub(super) delivery: RawDelivery,
    pub(super) on_demand: RawOnDemand,
    pub(super) limits: RawLimits,
    pub(super) window: RawWindow,
    pub(super) publish: RawPublish,
    pub(super) access: RawAccess,
    pub(super) users: RawUsers,
    pub(super) signing: RawSigning,
    pub(super) log: RawLog,
    pub(super) access_log: RawAccessLog,
    pub(super) transcode: RawTranscode,
    pub(super) profile: Vec<RawProfile>,
    pub(super) player_profile: Vec<RawPlayerProfile>,
    pub(super) publishing_point: Vec<RawPoint>,
    pub(super) stations: Vec<RawStations>,
    pub(super) hooks: RawHooks,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields, expecting = "a table with `listen`")]
pub(super) struct RawListen {
    pub(super) listen: Option<List>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub(super) struct RawDrain {
    pub(super) timeout_s: Option<u32>,
    pub(super) redirect: Option<String>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields, expecting = "a table with `listen`")]
pub(super) struct RawControl {
    pub(super) listen: Option<List>,
    pub(super) tls: Option<bool>,
    pub(super) plain_anywhere: Option<bool>,
    pub(super) users_file: Option<PathBuf>,
    pub(super) certificate: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
    pub(super) socket: Option<PathBuf>,
    pub(super) sign_in_s: Option<u32>,
    pub(super) hold_s: Option<u32>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields, expecting = "a table with `listen`")]
pub(super) struct RawMedia {
    pub(super) listen: Option<List>,
    pub(super) protocols: Option<List>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields, expecting = "a table with `listen`")]
pub(super) struct RawRtsp {
    pub(super) listen: Option<List>,
    pub(super) protocols: Option<List>,
    pub(super) server_port: Option<u16>,
    pub(super) tls_listen: Option<List>,
    pub(super) certificate: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub(super) struct RawUdp {
    pub(super) enabled: Option<bool>,
    pub(super) client_ports: Option<List>,
    #[serde(deserialize_with = "word")]
    pub(super) outside_pool: Option<RawOutsidePool>,
    pub(super) refuse_on_nat_mismatch: Option<bool>,
    pub(super) max_datagram: Option<u32>,
    #[serde(deserialize_with = "word")]
    pub(super) oversize: Option<RawOversize>,
    pub(super) remember_s: Option<u32>,
}

#[derive(Debug, Clone, Copy, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum RawOutsidePool {
    Refuse,
    Allow,
}

#[derive(Debug, Clone, Copy, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum RawOversize {
    Recut,
    Fragment,
    Refuse,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub(super) struct RawDelivery {
    pub(super) tick_ms: Option<u32>,
    pub(super) burst_ms: Option<u32>,
    pub(super) burst_rate: Option<u32>,
    #[serde(deserialize_with = "word")]
    pub(super) on_slow: Option<RawOnSlow>,
}

#[derive(Debug, Clone, Copy, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum RawOnSlow {
    Thin,
    Skip,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub(super) struct RawOnDemand {
    pub(super) cache_bytes: Option<u64>,
    pub(super) readers: Option<u32>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub(super) struct RawLimits {
    pub(super) viewers: Option<u32>,
    pub(super) viewers_per_point: Option<u32>,
    pub(super) viewers_per_address: Option<u32>,
    pub(super) bandwidth_kbps: Option<u64>,
    pub(super) viewer_kbps: Option<u32>,
    pub(super) tls_connections: Option<u32>,
    pub(super) joins_per_s: Option<u32>,
    pub(super) joins_burst: Option<u32>,
    pub(super) handshake_s: Option<u32>,
    pub(super) idle_s: Option<u32>,
    pub(super) max_send_delay_ms: Option<u32>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub(super) struct RawWindow {
    pub(super) seconds: Option<u32>,
    pub(super) bytes: Option<u64>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub(super) struct RawPublish {
    pub(super) create: Option<bool>,
    pub(super) create_limit: Option<u32>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub(super) struct RawAccess {
    #[serde(deserialize_with = "word")]
    pub(super) viewers: Option<RawViewers>,
    pub(super) viewers_allow: Option<List>,
    pub(super) viewers_deny: Option<List>,
    pub(super) publishers_allow: Option<List>,
    pub(super) publishers_deny: Option<List>,
}

#[derive(Debug, Clone, Copy, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum RawViewers {
    All,
    Users,
    Signed,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields, expecting = "a table with `file`")]
pub(super) struct RawUsers {
    pub(super) file: Option<PathBuf>,
    pub(super) viewers_file: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields, expecting = "a table with `key_file`")]
pub(super) struct RawSigning {
    pub(super) key_file: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub(super) struct RawLog {
    #[serde(deserialize_with = "word")]
    pub(super) format: Option<RawLogFormat>,
    pub(super) level: Option<String>,
}

#[derive(Debug, Clone, Copy, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum RawLogFormat {
    Auto,
    Text,
    Json,
    Journald,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub(super) struct RawAccessLog {
    pub(super) file: Option<PathBuf>,
    pub(super) rotate_bytes: Option<u64>,
    pub(super) rotate_daily: Option<bool>,
    pub(super) keep: Option<u32>,
    pub(super) hash_addresses: Option<bool>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub(super) struct RawTranscode {
    pub(super) ffmpeg: Option<String>,
    pub(super) ffprobe: Option<String>,
    pub(super) children: Option<u32>,
    pub(super) nice: Option<u32>,
    pub(super) memory_bytes: Option<u64>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields, expecting = "a [[profile]] table")]
pub(super) struct RawProfile {
    pub(super) name: Option<String>,
    pub(super) video: Option<RawVideo>,
    pub(super) audio: Option<RawAudio>,
    pub(super) packet_size: Option<u32>,
    pub(super) copy: Option<bool>,
    pub(super) arguments: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields, expecting = "a table such as { codec = \"wmv2\" }")]
pub(super) struct RawVideo {
    pub(super) codec: Option<String>,
    pub(super) bit_rate_kbps: Option<u32>,
    pub(super) max_width: Option<u32>,
    pub(super) max_height: Option<u32>,
    pub(super) max_fps: Option<u32>,
    pub(super) key_frame_ms: Option<u32>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields, expecting = "a table such as { codec = \"wmav2\" }")]
pub(super) struct RawAudio {
    pub(super) codec: Option<String>,
    pub(super) bit_rate_kbps: Option<u32>,
    pub(super) sample_rate: Option<u32>,
    pub(super) channels: Option<u32>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields, expecting = "a [[player_profile]] table")]
pub(super) struct RawPlayerProfile {
    pub(super) player: Option<String>,
    pub(super) protocol: Option<String>,
    pub(super) profile: Option<String>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields, expecting = "a [[publishing_point]] table")]
pub(super) struct RawPoint {
    pub(super) name: Option<String>,
    pub(super) title: Option<String>,
    pub(super) source: Option<RawSource>,
    pub(super) source_timeout_s: Option<u32>,
    pub(super) url_commands: Option<bool>,
    pub(super) fallback: Option<RawFallback>,
    pub(super) fallback_after_s: Option<u32>,
    #[serde(deserialize_with = "word")]
    pub(super) access: Option<RawViewers>,
    pub(super) allow: Option<List>,
    pub(super) deny: Option<List>,
    pub(super) at_once: Option<u32>,
    pub(super) hooks: RawCommands,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields, expecting = "a table such as { on_ready = [\"PROGRAM\", \"ARGUMENT\"] }")]
pub(super) struct RawCommands {
    pub(super) on_ready: Option<Vec<String>>,
    pub(super) on_gone: Option<Vec<String>>,
    pub(super) on_first_viewer: Option<Vec<String>>,
    pub(super) on_last_viewer: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub(super) struct RawHooks {
    pub(super) on_ready: Option<Vec<String>>,
    pub(super) on_gone: Option<Vec<String>>,
    pub(super) on_first_viewer: Option<Vec<String>>,
    pub(super) on_last_viewer: Option<Vec<String>>,
    pub(super) timeout_s: Option<u32>,
    pub(super) url: Option<String>,
    pub(super) secret: Option<String>,
    pub(super) ca_file: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields, expecting = "a [[stations]] table with `file`")]
pub(super) struct RawStations {
    pub(super) file: Option<PathBuf>,
    pub(super) at_once: Option<u32>,
    pub(super) linger_s: Option<u32>,
    pub(super) source_timeout_s: Option<u32>,
    #[serde(deserialize_with = "word")]
    pub(super) access: Option<RawViewers>,
    pub(super) allow: Option<List>,
    pub(super) deny: Option<List>,
}

/// All types of source in one struct: serde's tagged enums lose the place of an error, and "this key belongs to
/// another type" says more than "unknown key".
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields, expecting = "a table such as { type = \"push\" }")]
pub(super) struct RawSource {
    #[serde(rename = "type", deserialize_with = "word")]
    pub(super) kind: Option<RawSourceKind>,
    pub(super) path: Option<PathBuf>,
    pub(super) paths: Option<Vec<PathBuf>>,
    pub(super) argv: Option<Vec<String>>,
    pub(super) root: Option<PathBuf>,
    pub(super) url: Option<String>,
    pub(super) input: Option<String>,
    pub(super) input_arguments: Option<Vec<String>>,
    pub(super) profile: Option<String>,
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
    #[serde(deserialize_with = "word")]
    pub(super) transport: Option<RawTransport>,
    #[serde(deserialize_with = "word")]
    pub(super) start: Option<RawStart>,
    pub(super) linger_s: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum RawSourceKind {
    Push,
    File,
    Exec,
    Demo,
    Files,
    Pull,
    Ffmpeg,
    Camera,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum RawTransport {
    Tcp,
    Udp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum RawStart {
    Always,
    Watched,
}

/// One of the words of an enum. By way of a string, for `config` has its own, looser idea of how a word is read.
fn word<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    let text = String::deserialize(deserializer)?;
    T::deserialize(text.into_deserializer()).map(Some)
}

/// A list that may also be written as one string, its items separated by commas: what an environment variable
/// or a flag can say, and the short form of a list of one.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct List(pub(super) Vec<String>);

impl<'de> Deserialize<'de> for List {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Items;

        impl<'de> Visitor<'de> for Items {
            type Value = List;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a list of strings")
            }

            fn visit_str<E>(self, text: &str) -> Result<List, E> {
                Ok(List(text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(String::from).collect()))
            }

            fn visit_i64<E>(self, number: i64) -> Result<List, E> {
                Ok(List(vec![number.to_string()]))
            }

            fn visit_u64<E>(self, number: u64) -> Result<List, E> {
                Ok(List(vec![number.to_string()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<List, A::Error> {
                let mut list = Vec::new();
                while let Some(Item(item)) = items.next_element()? {
                    list.push(item);
                }
                Ok(List(list))
            }
        }

        deserializer.deserialize_any(Items)
    }
}

/// One item of a [`List`]: a string, or a number for those who write ports without quotes.
struct Item(String);

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct One;

        impl Visitor<'_> for One {
            type Value = Item;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_str<E>(self, text: &str) -> Result<Item, E> {
                Ok(Item(text.trim().to_owned()))
            }

            fn visit_i64<E>(self, number: i64) -> Result<Item, E> {
                Ok(Item(number.to_string()))
            }

            fn visit_u64<E>(self, number: u64) -> Result<Item, E> {
                Ok(Item(number.to_string()))
            }
        }

        deserializer.deserialize_any(One)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(toml: &str) -> Vec<String> {
        let raw: Raw = toml::from_str(toml).unwrap();
        raw.mms.listen.unwrap().0
    }

    #[test]
    fn a_list_is_a_string_with_commas_or_an_array() {
        assert_eq!(list("mms.listen = 'a, b,'"), ["a", "b"]);
        assert_eq!(list("mms.listen = ['a', ' b ']"), ["a", "b"]);
        assert_eq!(list("mms.listen = [7000, 'b']"), ["7000", "b"]);
        assert_eq!(list("mms.listen = 7000"), ["7000"]);
        assert!(list("mms.listen = ''").is_empty());
        assert!(list("mms.listen = []").is_empty());
    }

    #[test]
    fn other_types_are_no_list() {
        for bad in ["mms.listen = true", "mms.listen = [true]", "mms.listen = [['a']]", "mms.listen = 1.5"] {
            assert!(toml::from_str::<Raw>(bad).is_err(), "{bad}");
        }
    }
}
