//! DEL: what is gone is success, and the namespace is never opened: its path may be another's by now.

use std::time::Duration;

use crate::agent;
use crate::error::{PROTOCOL, TRY_AGAIN, failure};
use crate::grace::Expedited;
use crate::ipam::{self, Ipam};
use crate::kernel::{self, Netlink};
use crate::names::Pins;
use crate::protocol::{Call, DelCall, Failure};
use crate::request::{Config, Environment};

/// How long an agent that is away is waited for: its sweep does later what is not asked of it now.
const PATIENCE: Duration = Duration::from_secs(1);

/// Detaches an interface from a container.
///
/// Whatever is wrong with the agent or its files, the interface goes; the agent sees that, and frees the
/// addresses by itself. A lease of a delegated plugin is given back when the interface is gone: nobody
/// has the address any more.
pub(crate) fn del(environment: &Environment, config: &Config) -> Result<(), Failure> {
    let attachment = environment.attachment()?;
    let socket = config.socket();
    let host_ifname = attachment.host_ifname();
    let lock = crate::lock::take_if_there(&attachment, &socket);
    if lock.as_ref().is_err_and(|error| error.code == TRY_AGAIN) {
        // Another call works on this interface.
        return lock.map(drop);
    }
    let file = agent::plugin_file(&socket);
    let expedite = file.as_ref().is_ok_and(|file| file.expedite);
    let pins = file.map(|file| Pins(file.bpffs));
    let mut lease_freed = false;
    let remove = || {
        let _expedited = Expedited::begin(expedite);
        remove(&host_ifname, pins.as_ref().ok())
    };
    let (mut removed, mut lease) = (Ok(()), Ok(()));
    match ipam::of_del(environment, config) {
        Ok(Ipam::Pools(_)) => {}
        Ok(ipam @ Ipam::Delegate(_)) => {
            removed = remove();
            if let Ok(Some(lock)) = &lock {
                crate::lock::share_with_children(lock)?;
            }
            // Not while somebody has the address: the agent keeps the lease for another try.
            if removed.is_ok() {
                lease = ipam.give_back().map(|()| lease_freed = true);
            }
        }
        Err(error) => lease = Err(error),
    }
    let patience = if pins.is_ok() { PATIENCE } else { Duration::ZERO };
    let call = Call::Del(DelCall { attachment, lease_freed });
    let asked = agent::ask(&socket, call, patience);
    let asked = match asked {
        Err(error) if !matches!(error.code, TRY_AGAIN | PROTOCOL) => Err(error),
        Ok(_) | Err(_) => Ok(()),
    };
    if !lease_freed && removed.is_ok() {
        removed = remove();
    }
    let unpinned = match &pins {
        Ok(pins) => kernel::remove_link_pins(pins, &host_ifname),
        Err(_) => Ok(()),
    };
    let failed: Vec<Failure> = [lease, lock.map(drop), asked, removed, unpinned]
        .into_iter()
        .filter_map(Result::err)
        .collect();
    match failed.as_slice() {
        [] => Ok(()),
        [first, rest @ ..] => {
            let more: String = rest.iter().map(|error| format!("; {error}")).collect();
            Err(failure(first.code, first.message.clone(), format!("{}{more}", first.details)))
        }
    }
}

/// Removes the interface, also where somebody has renamed it.
fn remove(host_ifname: &str, pins: Option<&Pins>) -> Result<(), Failure> {
    let netlink = Netlink::open()?;
    if netlink.remove(host_ifname)? {
        return Ok(());
    }
    match pins.and_then(|pins| kernel::renamed(pins, host_ifname)) {
        Some(name) => netlink.remove(&name).map(drop),
        None => Ok(()),
    }
}
