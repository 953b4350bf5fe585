//! What a call gave.

use std::process::ExitStatus;

use serde_json::Value;

use crate::process::describe;
use crate::stop::{Outcome, ensure, fail};

/// The answer of a plugin.
#[derive(Debug)]
pub struct Reply {
    /// What was called, for messages.
    pub call: String,
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Reply {
    /// Ends the check unless the plugin says that it succeeded.
    ///
    /// # Errors
    /// When it does not.
    pub fn succeeded(&self) -> Outcome {
        ensure(self.status.success(), || format!("{} failed: {}", self.call, self.says()))
    }

    /// The one JSON object that a successful call prints.
    ///
    /// # Errors
    /// When it failed, or printed something else.
    pub fn result(&self) -> Outcome<Value> {
        self.succeeded()?;
        self.object()
    }

    /// Ends the check unless the plugin says that it failed. The document comes back if there is one.
    ///
    /// # Errors
    /// When it says that it succeeded.
    pub fn failed(&self) -> Outcome<Value> {
        ensure(!self.status.success(), || format!("{} succeeded", self.call))?;
        Ok(self.object().unwrap_or_default())
    }

    /// The error of a failed call, which has this code, unless an absent document is asked for elsewhere.
    ///
    /// # Errors
    /// When it succeeded, or has another code.
    pub fn failed_with(&self, codes: &[u64]) -> Outcome<Value> {
        let error = self.failed()?;
        let code = error["code"].as_u64();
        ensure(code.is_some_and(|code| codes.contains(&code)), || {
            format!("{}: the code is not {codes:?}: {}", self.call, self.says())
        })?;
        Ok(error)
    }

    /// The one JSON object on standard output.
    ///
    /// # Errors
    /// When something else is there.
    pub fn object(&self) -> Outcome<Value> {
        let found: Result<Value, _> = serde_json::from_str(&self.stdout);
        match found {
            Ok(value) if value.is_object() => Ok(value),
            Ok(_) | Err(_) => fail(format!(
                "{}: standard output is not one JSON object: {}",
                self.call,
                self.says()
            )),
        }
    }

    /// Status and output in one line.
    pub fn says(&self) -> String {
        let line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let mut text = describe(self.status);
        for (name, output) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            let output = line(output);
            if !output.is_empty() {
                text.push_str(&format!(", {name}: {output}"));
            }
        }
        text
    }
}
