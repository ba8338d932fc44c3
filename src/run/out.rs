//! Standard output of the commands.

use std::io::{self, Write};

/// Nobody reads standard output any more, as with `| head`, which has what it wanted: the end, and no failure.
#[derive(Debug, thiserror::Error)]
#[error("nobody reads standard output any more")]
struct NobodyReads;

/// Standard output. That nobody reads it is an error of its own ([`nobody_reads`]): connections break in the same words.
pub(super) struct Out(());

/// Standard output, for what commands print.
pub(super) fn out() -> Out {
    Out(())
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        io::stdout().write(bytes).map_err(told_apart)
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stdout().flush().map_err(told_apart)
    }
}

fn told_apart(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::BrokenPipe { io::Error::new(error.kind(), NobodyReads) } else { error }
}

/// Whether a command ended because nobody reads what it prints.
pub(super) fn nobody_reads(error: &anyhow::Error) -> bool {
    let mut causes = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>()?.get_ref());
    causes.any(|inner| inner.is::<NobodyReads>())
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn a_reader_who_left_is_no_broken_connection() {
        let broken = || io::Error::from(io::ErrorKind::BrokenPipe);
        let left = Err::<(), _>(told_apart(broken())).context("the report cannot be written").unwrap_err();
        assert!(nobody_reads(&left));
        let connection = Err::<(), _>(broken()).context("the daemon does not answer").unwrap_err();
        assert!(!nobody_reads(&connection));
        assert!(!nobody_reads(&told_apart(io::ErrorKind::StorageFull.into()).into()));
    }
}
