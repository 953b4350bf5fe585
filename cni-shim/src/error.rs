//! Error codes of the CNI specification (1.1, section 5) and ours.

use crate::protocol::Failure;

/// The configuration asks for a version that is not supported.
pub const INCOMPATIBLE_VERSION: u32 = 1;
/// A field of the configuration asks for what the plugin cannot do.
pub const UNSUPPORTED_FIELD: u32 = 2;
/// The container is unknown or does not exist.
pub const UNKNOWN_CONTAINER: u32 = 3;
/// An environment variable is missing or wrong.
pub const INVALID_ENVIRONMENT: u32 = 4;
/// Reading or writing failed.
pub const IO: u32 = 5;
/// Something is not the JSON that it should be.
pub const DECODE: u32 = 6;
/// The network configuration is wrong.
pub const INVALID_CONFIG: u32 = 7;
/// Try again later.
pub const TRY_AGAIN: u32 = 11;
/// The plugin cannot serve ADD.
pub const NOT_AVAILABLE: u32 = 50;
/// Nor can it, and containers that it has attached may lose connectivity.
pub const LIMITED: u32 = 51;
/// Ours: the kernel refused a step.
pub const KERNEL: u32 = 100;
/// Ours: the interface is there already.
pub const ALREADY_ATTACHED: u32 = 101;
/// Ours: CHECK found a difference.
pub const CHECK_FAILED: u32 = 102;
/// Ours: plugin and agent are of different versions.
pub const PROTOCOL: u32 = 103;
/// Ours: an address that is asked for is another's.
pub const ADDRESS_IN_USE: u32 = 110;
/// Ours: a delegated plugin is missing, or does not answer as plugins do.
pub const DELEGATE: u32 = 111;

/// An error with its code.
pub fn failure(code: u32, message: impl Into<String>, details: impl Into<String>) -> Failure {
    Failure { code, message: message.into(), details: details.into() }
}

/// Turns any error into a failure that says what was being done.
pub(crate) trait Context<T> {
    fn context(self, code: u32, what: impl FnOnce() -> String) -> Result<T, Failure>;
}

impl<T, E: std::error::Error> Context<T> for Result<T, E> {
    fn context(self, code: u32, what: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|error| {
            let mut details = error.to_string();
            let mut source = error.source();
            while let Some(cause) = source {
                // Some errors repeat their cause.
                let text = cause.to_string();
                if !details.contains(&text) {
                    details = format!("{details}: {text}");
                }
                source = cause.source();
            }
            failure(code, what(), details)
        })
    }
}
