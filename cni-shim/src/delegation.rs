//! Delegated address management, as plugin and agent both call it (CNI 1.1, section 4).

use std::path::PathBuf;
use std::process::Output;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{DELEGATE, failure};
use crate::names::Attachment;
use crate::protocol::Failure;

/// For one call of a delegated plugin. An ADD that it fails and the DEL that undoes it take less than others wait for
/// the lock of the attachment.
pub const DELEGATE_TIME_MAX: Duration = Duration::from_secs(20);
/// Of what a plugin says that is no error document.
const EXCERPT_CHARS_MAX: usize = 500;

/// How a delegated plugin was called, so that its lease can be given back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Delegation {
    /// The program.
    pub plugin: PathBuf,
    /// `CNI_PATH`.
    pub path: String,
    /// `CNI_ARGS`.
    pub args: String,
    /// The whole network configuration.
    pub config: Value,
}

impl Delegation {
    /// The environment of a DEL after which no lease of the attachment is left, also when its namespace
    /// is gone.
    pub fn del_environment(&self, attachment: &Attachment) -> [(&'static str, String); 6] {
        [
            ("CNI_COMMAND", "DEL".to_owned()),
            ("CNI_CONTAINERID", attachment.container_id.clone()),
            ("CNI_NETNS", String::new()),
            ("CNI_IFNAME", attachment.ifname.clone()),
            ("CNI_ARGS", self.args.clone()),
            ("CNI_PATH", self.path.clone()),
        ]
    }

    /// What the plugin said, or its error as it is.
    ///
    /// # Errors
    /// When it failed.
    pub fn answer(&self, output: Output) -> Result<Vec<u8>, Failure> {
        if output.status.success() {
            return Ok(output.stdout);
        }
        if let Ok(error) = serde_json::from_slice::<ErrorDocument>(&output.stdout) {
            return Err(failure(error.code, error.msg, error.details));
        }
        let said: String = [&output.stdout, &output.stderr]
            .into_iter()
            .flat_map(|bytes| String::from_utf8_lossy(bytes).chars().collect::<Vec<_>>())
            .take(EXCERPT_CHARS_MAX)
            .collect();
        Err(self.failed(&format!("{}, without an error document: {}", output.status, said.trim())))
    }

    /// The plugin has not answered a verb in [`DELEGATE_TIME_MAX`].
    pub fn late(&self, verb: &str) -> Failure {
        let limit = DELEGATE_TIME_MAX.as_secs();
        self.failed(&format!("its {verb} took more than {limit} s, and was ended"))
    }

    /// The plugin cannot be run, or does not do what a plugin does.
    pub fn failed(&self, details: &str) -> Failure {
        failure(DELEGATE, format!("the IPAM plugin {} failed", self.plugin.display()), details)
    }
}

#[derive(Deserialize)]
struct ErrorDocument {
    code: u32,
    msg: String,
    #[serde(default)]
    details: String,
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::ExitStatus;

    use super::*;

    #[test]
    fn errors_pass_as_they_are() {
        let delegation = Delegation {
            plugin: "/cni/host-local".into(),
            path: "/cni".into(),
            args: String::new(),
            config: Value::Null,
        };
        let answer = |code: i32, stdout: &str| {
            let (stdout, stderr) = (stdout.into(), b"panic: oh".to_vec());
            delegation.answer(Output { status: ExitStatus::from_raw(code << 8), stdout, stderr })
        };
        assert_eq!(answer(0, "{}"), Ok(b"{}".to_vec()));
        let error = answer(1, r#"{"cniVersion":"1.0.0","code":999,"msg":"full","details":"d"}"#);
        assert_eq!(error, Err(failure(999, "full", "d")));
        assert_eq!(answer(1, r#"{"code":7,"msg":"m"}"#), Err(failure(7, "m", "")));
        let error = answer(2, "").expect_err("failed");
        assert_eq!(error.code, DELEGATE);
        assert!(error.details.contains("exit status: 2") && error.details.contains("panic: oh"));
    }
}
