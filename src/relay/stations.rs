//! The names of a station list, which may change while the daemon runs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::settings::Station;

/// Stations by their names in small letters, as they were read last.
#[derive(Default)]
pub(super) struct Directory(Mutex<Arc<HashMap<String, Station>>>);

impl Directory {
    /// The station of a name, however its ASCII letters are written.
    pub(super) fn station(&self, name: &str) -> Option<Station> {
        self.table().get(&name.to_ascii_lowercase()).cloned()
    }

    /// Other stations than before.
    pub(super) fn set(&self, stations: Vec<Station>) {
        let table = stations.into_iter().map(|station| (station.name.to_ascii_lowercase(), station)).collect();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(table);
    }

    fn table(&self) -> Arc<HashMap<String, Station>> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
