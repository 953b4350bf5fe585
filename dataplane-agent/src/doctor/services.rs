//! Who makes services work, and what that means for the pods behind them.

use super::finding::Finding;
use super::node::Node;
use crate::kernel::live::probe::firewall::Firewall;

/// kube-proxy's nftables table, its first chain with iptables, its device with IPVS.
const NFT_TABLE: &str = "kube-proxy";
const IPTABLES_CHAIN: &str = "KUBE-SERVICES";
const IPVS_DEVICE: &str = "kube-ipvs0";

/// Until services are Podwire's own: what its nftables table masquerades (see `kernel/live/nft.rs`).
const MEANS: &str = "until Podwire has services of its own, a backend sees what pods and nodes send to a service as \
    from an address of their node, not of the pod; connections to the address of a pod keep the pod's";

pub(super) fn examine(node: &Node) -> Vec<Finding> {
    let has_ipvs = node.devices.contains_key(IPVS_DEVICE);
    vec![match &node.firewall {
        Ok(firewall) => judge(mode(firewall, has_ipvs), !firewall.legacy.is_empty()),
        Err(_) if has_ipvs => judge(Some("IPVS"), false),
        Err(why) => Finding::unseen("services", why),
    }]
}

fn mode(firewall: &Firewall, has_ipvs: bool) -> Option<&'static str> {
    let has_table = firewall.tables.iter().any(|(_, name)| name == NFT_TABLE);
    let has_chain = firewall.chains.iter().any(|chain| chain.name == IPTABLES_CHAIN);
    match (has_ipvs, has_table, has_chain) {
        (true, _, _) => Some("IPVS"),
        (_, true, _) => Some("nftables"),
        (_, _, true) => Some("iptables"),
        (false, false, false) => None,
    }
}

fn judge(mode: Option<&str>, has_legacy: bool) -> Finding {
    let check = "services";
    match mode {
        Some(mode) => Finding::note(check, format!("kube-proxy, in {mode} mode: {MEANS}")),
        None if has_legacy => Finding::unseen(
            check,
            format!(
                "kube-proxy may use iptables-legacy (`iptables-legacy -t nat -S {IPTABLES_CHAIN}`): {MEANS}"
            ),
        ),
        None => Finding::note(
            check,
            "there is nothing of kube-proxy: services of a cluster have no addresses until it runs",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::live::probe::firewall::Chain;

    #[test]
    fn each_mode_is_known_by_what_it_makes() {
        let nftables =
            Firewall { tables: vec![("ip".into(), "kube-proxy".into())], ..Firewall::default() };
        let chain = Chain { name: "KUBE-SERVICES".into(), ..Chain::default() };
        let iptables = Firewall { chains: vec![chain], ..Firewall::default() };
        assert_eq!(mode(&nftables, false), Some("nftables"));
        assert_eq!(mode(&iptables, false), Some("iptables"));
        assert_eq!(mode(&iptables, true), Some("IPVS"));
        assert_eq!(mode(&Firewall::default(), false), None);
        assert!(judge(Some("nftables"), false).found.contains("address of their node"));
        assert!(judge(None, true).found.contains("iptables-legacy"));
    }
}
