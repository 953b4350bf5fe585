//! Errors as the plugin passes them on: the codes of the CNI specification (1.1, section 5) and ours.

use cni_shim::error::{
    ADDRESS_IN_USE, ALREADY_ATTACHED, DECODE, INVALID_CONFIG, IO, KERNEL, NOT_AVAILABLE, PROTOCOL,
    TRY_AGAIN, failure,
};
use cni_shim::protocol::{Failure, PROTOCOL_VERSION};

use crate::ipam::IpamError;
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

/// The host has no way to an address.
pub(crate) fn route(address: std::net::IpAddr, why: &str) -> Failure {
    let message = format!("the host route to {address} cannot be set");
    let details = format!("{why}; addresses of the pod networks need none: see \"ipam\"");
    failure(KERNEL, message, details)
}

/// The pools do not give what is wanted.
pub(crate) fn ipam(error: &IpamError) -> Failure {
    match error {
        IpamError::Exhausted { .. } => {
            let details = format!("{error}: remove pods, or give the node a larger pod network");
            failure(NOT_AVAILABLE, "no pod address is free", details)
        }
        IpamError::InUse(_) => {
            let details = format!("{error}: `podwire-agent status` shows by which pod");
            failure(ADDRESS_IN_USE, "an address that is asked for is in use", details)
        }
        IpamError::Outside { .. } | IpamError::Reserved { .. } | IpamError::Twice(..) => failure(
            INVALID_CONFIG,
            "an address is asked for that no pod here can have",
            error.to_string(),
        ),
    }
}

/// A delegated plugin gave what cannot work here.
pub(crate) fn lease(details: &str) -> Failure {
    failure(INVALID_CONFIG, "the IPAM plugin gave an address that no pod here can have", details)
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
