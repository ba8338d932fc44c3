//! What the daemon tells at two moments, and the rates between them.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::Duration;

use serde_json::{Value, json};

/// The daemon's answers at one moment.
#[derive(Debug, Clone, Default)]
pub(super) struct Sample {
    /// Of `/v1/status`.
    pub(super) status: Value,
    /// Of `/v1/viewers`.
    pub(super) viewers: Value,
    /// Of `/v1/sources`.
    pub(super) sources: Value,
}

/// A session, with what it was sent a second.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    pub(super) session: u64,
    pub(super) peer: String,
    /// `mms/udp`.
    pub(super) by: String,
    pub(super) name: String,
    pub(super) plays: bool,
    pub(super) lasts_s: f64,
    /// Bits a second; of a session that was not there before, since it began.
    pub(super) bit_rate: u64,
    pub(super) packets: u64,
    pub(super) packets_per_s: u64,
    pub(super) resends: u64,
}

/// By what sessions are sorted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Order {
    /// The most a second first.
    #[default]
    Rate,
    /// The latest first.
    Age,
    Name,
    /// The most first.
    Resends,
    /// By number.
    Session,
}

impl Order {
    pub(super) const fn next(self) -> Self {
        match self {
            Self::Rate => Self::Age,
            Self::Age => Self::Name,
            Self::Name => Self::Resends,
            Self::Resends => Self::Session,
            Self::Session => Self::Rate,
        }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Age => "age",
            Self::Name => "name",
            Self::Resends => "resends",
            Self::Session => "session",
        }
    }
}

/// The sessions of the later sample, `apart` after the earlier one.
pub(super) fn rows(before: &Sample, now: &Sample, apart: Duration, order: Order) -> Vec<Row> {
    let number = |viewer: &Value, key: &str| viewer.get(key).and_then(Value::as_u64).unwrap_or_default();
    let listed = |sample: &Sample| sample.viewers.as_array().cloned().unwrap_or_default();
    let earlier = listed(before);
    let earlier: HashMap<u64, &Value> = earlier.iter().map(|viewer| (number(viewer, "session"), viewer)).collect();
    let mut rows: Vec<Row> = listed(now)
        .iter()
        .map(|viewer| {
            let session = number(viewer, "session");
            let lasts_s = viewer.get("lasts_s").and_then(Value::as_f64).unwrap_or_default();
            let was = earlier.get(&session);
            let seconds = if was.is_some() { apart.as_secs_f64() } else { lasts_s.min(apart.as_secs_f64()) };
            let per_s = |key: &str| {
                let more = number(viewer, key).saturating_sub(was.map_or(0, |was| number(was, key)));
                #[expect(
                    clippy::cast_precision_loss,
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "a rate for people, saturating"
                )]
                if seconds > 0.0 { (more as f64 / seconds).round() as u64 } else { 0 }
            };
            Row {
                session,
                peer: text(viewer, "peer"),
                by: format!("{}/{}", text(viewer, "protocol"), text(viewer, "transport")),
                name: text(viewer, "name"),
                plays: viewer.get("plays").and_then(Value::as_bool).unwrap_or_default(),
                lasts_s,
                bit_rate: per_s("bytes").saturating_mul(8),
                packets: number(viewer, "packets"),
                packets_per_s: per_s("packets"),
                resends: number(viewer, "resends_granted"),
            }
        })
        .collect();
    match order {
        Order::Rate => rows.sort_by_key(|row| (Reverse(row.bit_rate), row.session)),
        Order::Age => rows.sort_by_key(|row| Reverse(row.session)),
        Order::Name => rows.sort_by(|one, two| (&one.name, one.session).cmp(&(&two.name, two.session))),
        Order::Resends => rows.sort_by_key(|row| (Reverse(row.resends), row.session)),
        Order::Session => rows.sort_by_key(|row| row.session),
    }
    rows
}

/// All of a look in one value, for programs: the daemon's answers, each session with its rates.
pub(super) fn as_json(before: &Sample, now: &Sample, apart: Duration) -> Value {
    let rows = rows(before, now, apart, Order::Session);
    let by_session: HashMap<u64, &Row> = rows.iter().map(|row| (row.session, row)).collect();
    let mut viewers = now.viewers.clone();
    for viewer in viewers.as_array_mut().into_iter().flatten() {
        let row = viewer.get("session").and_then(Value::as_u64).and_then(|session| by_session.get(&session));
        if let (Some(row), Some(fields)) = (row, viewer.as_object_mut()) {
            fields.insert("bit_rate".into(), row.bit_rate.into());
            fields.insert("packets_per_s".into(), row.packets_per_s.into());
        }
    }
    json!({ "status": now.status, "viewers": viewers, "sources": now.sources })
}

/// A value as one word; what would move the cursor of a terminal is escaped, though the daemon has done so.
pub(super) fn text(value: &Value, key: &str) -> String {
    match value.get(key) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => {
            text.chars().map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() }).collect()
        }
        Some(other) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn viewers(viewers: &[(u64, u64, u64, f64)]) -> Sample {
        let viewers = viewers.iter().map(|(session, bytes, packets, lasts_s)| {
            json!({ "session": session, "bytes": bytes, "packets": packets, "lasts_s": lasts_s, "name": format!("n{}", 9 - session) })
        });
        Sample { viewers: viewers.collect(), ..Sample::default() }
    }

    #[test]
    fn rates_are_between_two_looks() {
        let before = viewers(&[(1, 1000, 10, 60.0), (2, 5000, 50, 60.0)]);
        // The second restarted its count, which nothing should; the third is half a second old.
        let now = viewers(&[(1, 3000, 30, 62.0), (2, 4000, 40, 62.0), (3, 1000, 5, 0.5)]);
        let rates = |order| -> Vec<(u64, u64, u64)> {
            let rows = rows(&before, &now, Duration::from_secs(2), order);
            rows.into_iter().map(|row| (row.session, row.bit_rate, row.packets_per_s)).collect()
        };
        assert_eq!(rates(Order::Rate), [(3, 16_000, 10), (1, 8000, 10), (2, 0, 0)]);
        assert_eq!(rates(Order::Age).iter().map(|row| row.0).collect::<Vec<_>>(), [3, 2, 1]);
        assert_eq!(rates(Order::Name).iter().map(|row| row.0).collect::<Vec<_>>(), [3, 2, 1]);
        assert_eq!(rates(Order::Session).iter().map(|row| row.0).collect::<Vec<_>>(), [1, 2, 3]);
        let json = as_json(&before, &now, Duration::from_secs(2));
        assert_eq!((&json["viewers"][0]["bit_rate"], &json["viewers"][2]["packets_per_s"]), (&json!(8000), &json!(10)));
    }

    #[test]
    fn sorting_comes_round() {
        let mut order = Order::default();
        for _ in 0..5 {
            order = order.next();
        }
        assert_eq!(order, Order::default());
    }
}
