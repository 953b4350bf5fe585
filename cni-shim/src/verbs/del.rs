//! DEL: what is gone is success, and the namespace is never opened: its path may be another's by now.

use std::time::Duration;

use crate::agent;
use crate::error::{TRY_AGAIN, failure};
use crate::kernel::{self, Netlink};
use crate::names::Pins;
use crate::protocol::{Call, DelCall, Failure};
use crate::request::{Config, Environment};

/// How long an agent that is away is waited for: its sweep does later what is not asked of it now.
const PATIENCE: Duration = Duration::from_secs(1);

/// Detaches an interface from a container.
pub(crate) fn del(environment: &Environment, config: &Config) -> Result<(), Failure> {
    let attachment = environment.attachment()?;
    let socket = config.socket();
    let host_ifname = attachment.host_ifname();
    let file = match agent::plugin_file(&socket) {
        Ok(file) => file,
        // No agent has run since the node started, so there is nothing of ours.
        Err(error) if error.code == TRY_AGAIN => return Netlink::open()?.remove(&host_ifname),
        Err(error) => return Err(error),
    };
    let _lock = crate::lock::take(&attachment, &socket)?;
    let asked = agent::ask(&socket, Call::Del(DelCall { attachment }), PATIENCE);
    let removed = Netlink::open()?.remove(&host_ifname);
    let unpinned = kernel::remove_link_pins(&Pins(file.bpffs), &host_ifname);
    let agent_failed = match asked {
        Err(error) if error.code != TRY_AGAIN => Err(error),
        Ok(_) | Err(_) => Ok(()),
    };
    let failed: Vec<Failure> =
        [agent_failed, removed, unpinned].into_iter().filter_map(Result::err).collect();
    match failed.as_slice() {
        [] => Ok(()),
        [first, rest @ ..] => {
            let more: String = rest.iter().map(|error| format!("; {error}")).collect();
            Err(failure(first.code, first.message.clone(), format!("{}{more}", first.details)))
        }
    }
}
