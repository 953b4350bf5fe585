//! GC: one request to the agent, which knows the attachments and sees the interfaces.

use crate::agent::{self, AGENT_WAIT_MAX};
use crate::error::failure;
use crate::ipam;
use crate::protocol::{Call, Failure, GcCall, Reply};
use crate::request::{Config, Environment};

/// Removes every attachment of the network that is not in `cni.dev/valid-attachments`.
///
/// A delegated plugin does the same with its leases, also where the agent could not do all.
pub(crate) fn gc(environment: &Environment, config: &Config) -> Result<(), Failure> {
    let call = GcCall { network: config.network()?.to_owned(), valid: config.valid_attachments()? };
    let collected = collect(config, call);
    let leases = ipam::gc(environment, config);
    let Err(mut error) = collected else { return leases };
    if let Err(more) = leases {
        error.details = format!("{}; {more}", error.details);
    }
    Err(error)
}

fn collect(config: &Config, call: GcCall) -> Result<(), Failure> {
    let reply = agent::ask(&config.socket(), Call::Gc(call), AGENT_WAIT_MAX)?;
    let Reply::Collected(collected) = reply else { return Err(agent::unfit(&reply)) };
    match collected.failures.as_slice() {
        [] => Ok(()),
        [first, rest @ ..] => {
            let more: String = rest.iter().map(|error| format!("; {error}")).collect();
            let removed = collected.removed;
            let details = format!("{}{more}; {removed} others were removed", first.details);
            Err(failure(first.code, first.message.clone(), details))
        }
    }
}
