//! GC: one request to the agent, which knows the attachments and sees the interfaces.

use crate::agent::{self, AGENT_WAIT_MAX};
use crate::error::failure;
use crate::protocol::{Call, Failure, GcCall, Reply};
use crate::request::Config;

/// Removes every attachment of the network that is not in `cni.dev/valid-attachments`.
pub(crate) fn gc(config: &Config) -> Result<(), Failure> {
    let network = config.network()?.to_owned();
    let valid = config.valid_attachments()?;
    let call = Call::Gc(GcCall { network, valid });
    let reply = agent::ask(&config.socket(), call, AGENT_WAIT_MAX)?;
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
