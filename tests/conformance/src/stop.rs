//! Why a check ended before its end.

use anyhow::Error;

/// Why a check does not pass.
#[derive(Debug)]
pub enum Stop {
    /// The plugin breaks the rule: what it did.
    Failed(String),
    /// The rule says nothing about this plugin or configuration: why.
    NotApplicable(String),
    /// The kit itself could not go on.
    Broken(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Broken(error)
    }
}

/// What a check returns.
pub type Outcome<T = ()> = Result<T, Stop>;

/// Says that the plugin breaks the rule.
///
/// # Errors
/// Always.
pub fn fail<T>(text: impl Into<String>) -> Outcome<T> {
    Err(Stop::Failed(text.into()))
}

/// Says that the rule does not apply.
///
/// # Errors
/// Always.
pub fn not_applicable<T>(text: impl Into<String>) -> Outcome<T> {
    Err(Stop::NotApplicable(text.into()))
}

/// The plugin breaks the rule unless this holds.
///
/// # Errors
/// When it does not hold.
pub fn ensure(holds: bool, text: impl FnOnce() -> String) -> Outcome {
    if holds { Ok(()) } else { fail(text()) }
}
