//! Makes [`KernelError`]s.

use std::error::Error;

use crate::kernel::KernelError;

/// Says what was being done when an error came.
pub(super) trait Context<T> {
    /// Turns the error into a [`KernelError`] with this text in front.
    fn context(self, what: impl FnOnce() -> String) -> Result<T, KernelError>;
}

impl<T, E: Error> Context<T> for Result<T, E> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T, KernelError> {
        self.map_err(|error| refusal(what(), chain(&error)))
    }
}

/// An error found by looking, not by asking the kernel.
pub(super) fn refusal(what: impl Into<String>, why: impl Into<String>) -> KernelError {
    KernelError { what: what.into(), source: why.into().into() }
}

/// The error and its causes in one line: those of aya name the call, only their cause the reason.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let reason = error.to_string();
        if !text.contains(&reason) {
            text = format!("{text}: {reason}");
        }
        cause = error.source();
    }
    text
}
