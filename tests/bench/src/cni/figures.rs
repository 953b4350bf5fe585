//! What a contender took in many rounds.

use serde_json::{Value, json};
use tests::series::Series;

/// What one contender took.
#[derive(Clone, Debug, Default)]
pub(super) struct Figures {
    pub(super) add: Series,
    /// Those of them during which the host of this machine is not known to have taken a processor.
    pub(super) add_undisturbed: Series,
    pub(super) check: Series,
    pub(super) del: Series,
    /// Processor time of the plugin and of what it ran, user and system.
    pub(super) add_cpu: Series,
    pub(super) del_cpu: Series,
}

impl Figures {
    pub(super) fn to_json(&self) -> Value {
        json!({
            "add_ms": self.add.to_json(),
            "add_undisturbed_ms": self.add_undisturbed.to_json(),
            "check_ms": self.check.to_json(),
            "del_ms": self.del.to_json(),
            "add_cpu_ms": self.add_cpu.to_json(),
            "del_cpu_ms": self.del_cpu.to_json(),
        })
    }
}
