//! Errors as the plugin passes them on: the codes of the CNI specification (1.1, section 5) and ours.

use cni_shim::error::{
    ALREADY_ATTACHED, DECODE, IO, KERNEL, NOT_AVAILABLE, PROTOCOL, TRY_AGAIN, failure,
};
use cni_shim::protocol::{Failure, PROTOCOL_VERSION};

use crate::ipam::Exhausted;
use crate::kernel::KernelError;
use crate::store::StoreError;

/// The kernel refused.
pub(crate) fn kernel(error: &KernelError) -> Failure {
    failure(KERNEL, "the kernel refused", error.to_string())
}

/// The state directory failed.
pub(crate) fn store(error: &StoreError) -> Failure {
    failure(IO, "the agent's state directory failed", error.to_string())
}

/// The request is not of this protocol.
pub(crate) fn bad_request(details: &str) -> Failure {
    failure(DECODE, "the agent does not understand the request", details)
}

/// It will work later.
pub(crate) fn try_again(message: &str, details: &str) -> Failure {
    failure(TRY_AGAIN, message, format!("{details}; try again later"))
}

/// No address is left.
pub(crate) fn exhausted(error: &Exhausted) -> Failure {
    let details = format!("{error}: remove pods, or give the node a larger pod network");
    failure(NOT_AVAILABLE, "no pod address is free", details)
}

/// Plugin and agent are too far apart.
pub(crate) fn version(theirs: u64) -> Failure {
    let details = format!(
        "the agent speaks version {PROTOCOL_VERSION} of the protocol, the request is of version \
         {theirs}: install plugin and agent of the same release"
    );
    failure(PROTOCOL, "plugin and agent do not match", details)
}

/// The attachment exists with another interface.
pub(crate) fn conflict(details: &str) -> Failure {
    failure(ALREADY_ATTACHED, "the interface exists", details)
}
