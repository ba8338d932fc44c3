//! Panics on reader threads: logged, and kept from ending the thread.

use std::panic::{AssertUnwindSafe, catch_unwind};

use tracing::error;

use super::ReadError;

/// Calls what a caller left behind, whose panic must not end the reader.
pub(super) fn shielded(whose: &str, call: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(call)).is_err() {
        error!(whose, "panicked when it was told of a read");
    }
}

/// Calls what somebody waits for, who is told of a panic as of any other failure.
///
/// # Errors
/// [`ReadError::Internal`] where it panics.
pub(super) fn caught<T>(what: &str, call: impl FnOnce() -> T) -> Result<T, ReadError> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|_| {
        error!(what, "panicked");
        ReadError::Internal
    })
}
