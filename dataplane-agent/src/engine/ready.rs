//! STATUS of the plugin: would an ADD be served?

use cni_shim::error::{NOT_AVAILABLE, failure};
use cni_shim::protocol::{Failure, ReadyCall};

use super::Engine;
use crate::failure;
use crate::ipam::Usage;
use crate::kernel::Kernel;

impl<K: Kernel> Engine<K> {
    /// Refuses what ADD refuses for everybody.
    pub(super) fn ready(&mut self, call: &ReadyCall) -> Result<(), Failure> {
        self.check_ready()?;
        self.kernel.program_ids().map_err(|error| failure::kernel(&error))?;
        self.store.try_to_write().map_err(|error| failure::store(&error))?;
        if call.pools { check_pools(&self.ipam.usage()) } else { Ok(()) }
    }
}

/// An ADD takes an address of each family that has a pool.
fn check_pools(usage: &[Usage]) -> Result<(), Failure> {
    for ipv4 in [true, false] {
        let pools: Vec<&Usage> =
            usage.iter().filter(|usage| usage.cidr.addr().is_ipv4() == ipv4).collect();
        let is_full = |usage: &&Usage| usage.used as u128 >= usage.capacity;
        if !pools.is_empty() && pools.iter().all(is_full) {
            let cidrs: Vec<String> = pools.iter().map(|usage| usage.cidr.to_string()).collect();
            return Err(failure(
                NOT_AVAILABLE,
                "no pod address is free",
                format!(
                    "all addresses of {} are in use: remove pods, or give the node a larger pod \
                     network",
                    cidrs.join(", ")
                ),
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_full_family_is_enough_and_one_free_pool_too() {
        let usage = |cidr: &str, used| Usage { cidr: cidr.parse().unwrap(), used, capacity: 5 };
        assert_eq!(check_pools(&[]), Ok(()));
        assert_eq!(check_pools(&[usage("10.0.0.0/29", 4), usage("fd00::/125", 0)]), Ok(()));
        assert_eq!(check_pools(&[usage("10.0.0.0/29", 5), usage("10.1.0.0/29", 4)]), Ok(()));
        let full = check_pools(&[usage("10.0.0.0/29", 0), usage("fd00::/125", 5)]).unwrap_err();
        assert_eq!(full.code, NOT_AVAILABLE);
        assert!(full.details.contains("fd00::/125"), "{full}");
    }
}
