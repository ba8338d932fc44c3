//! How the control plane has the settings read again: by an order to who holds them.

use std::path::PathBuf;

use tokio::sync::{mpsc, oneshot};

use crate::settings::{Difference, Problem};

/// Read the settings again.
#[derive(Debug)]
pub struct ReloadOrder {
    /// Only tell what would change.
    pub dry_run: bool,
    /// Who asks, for the log.
    pub by: String,
    /// Hears what came of it.
    pub reply: oneshot::Sender<ReloadReply>,
}

/// What came of a reload; or all that is wrong with the settings, of which then none is in force.
pub type ReloadReply = Result<Reloaded, Vec<Problem>>;

/// Settings that were read again.
#[derive(Debug, Clone, Default)]
pub struct Reloaded {
    /// What they change.
    pub difference: Difference,
    /// What works but was probably not meant.
    pub warnings: Vec<Problem>,
    /// The files that were read.
    pub files: Vec<PathBuf>,
}

/// Takes orders; several may wait.
pub type ReloadOrders = mpsc::Sender<ReloadOrder>;
