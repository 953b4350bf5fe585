//! Other networks, and what each makes on a node.

/// A network. A star at the end of a name stands for anything.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) name: &'static str,
    pub(super) devices: &'static [&'static str],
    /// Beginnings of names of iptables chains.
    pub(super) chains: &'static [&'static str],
    /// Of nftables.
    pub(super) tables: &'static [&'static str],
    /// Below the root of the BPF filesystem.
    pub(super) pins: &'static [&'static str],
    /// Beginnings of names of BPF programs.
    pub(super) programs: &'static [&'static str],
}

const NOTHING: Known =
    Known { name: "", devices: &[], chains: &[], tables: &[], pins: &[], programs: &[] };

/// All that are known.
pub(super) const KNOWN: [Known; 10] = [
    Known { name: "a bridge", devices: &["cni0", "cbr0"], ..NOTHING },
    Known {
        name: "Flannel",
        devices: &["flannel.*", "flannel-v6.*", "flannel-wg*"],
        chains: &["FLANNEL-"],
        tables: &["flannel-ipv4", "flannel-ipv6"],
        ..NOTHING
    },
    Known {
        name: "Cilium",
        devices: &["cilium_*", "lxc_health"],
        chains: &["CILIUM_", "OLD_CILIUM_"],
        pins: &["cilium", "tc/globals/cilium_*"],
        programs: &["cil_"],
        ..NOTHING
    },
    Known {
        name: "Calico",
        devices: &[
            "cali*",
            "vxlan.calico",
            "vxlan-v6.calico",
            "wireguard.cali",
            "wg-v6.cali",
            "bpf*.cali",
        ],
        chains: &["cali-"],
        tables: &["calico"],
        pins: &["calico", "tc/globals/cali_*"],
        programs: &["cali_"],
    },
    Known {
        name: "Weave Net",
        devices: &["weave", "datapath", "vethwe-*", "vxlan-6784"],
        chains: &["WEAVE"],
        ..NOTHING
    },
    Known {
        name: "kube-router",
        devices: &["kube-bridge"],
        chains: &["KUBE-ROUTER-", "KUBE-NWPLCY-", "KUBE-POD-FW-"],
        ..NOTHING
    },
    Known { name: "Antrea", devices: &["antrea-*"], chains: &["ANTREA-"], ..NOTHING },
    Known {
        name: "OVN-Kubernetes",
        devices: &["ovn-k8s-*"],
        chains: &["OVN-KUBE-"],
        tables: &["ovn-kubernetes"],
        ..NOTHING
    },
    Known { name: "Kube-OVN", devices: &["ovn0"], ..NOTHING },
    Known { name: "kindnet", chains: &["KIND-MASQ-AGENT"], tables: &["kindnet-ipmasq"], ..NOTHING },
];

/// Whether a name is one of these; a star stands for anything between what is around it.
pub(super) fn matches_one(patterns: &[&str], name: &str) -> bool {
    patterns.iter().any(|pattern| match pattern.split_once('*') {
        Some((start, end)) => {
            name.len() >= start.len().saturating_add(end.len())
                && name.starts_with(start)
                && name.ends_with(end)
        }
        None => *pattern == name,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything() {
        assert!(matches_one(&["flannel.*"], "flannel.1"));
        assert!(matches_one(&["bpf*.cali"], "bpfin.cali"));
        assert!(!matches_one(&["bpf*.cali"], "bpf.1"));
        assert!(!matches_one(&["cni0"], "cni01"));
    }

    #[test]
    fn nothing_of_ours_is_taken_for_another_networks() {
        for known in &KNOWN {
            for name in ["podwire0", "podwire0p", "podwire-vxlan", "pw3cd42kdiph6uo", "eth0"] {
                assert!(!matches_one(known.devices, name), "{} {name}", known.name);
            }
            assert!(!known.tables.contains(&"podwire") && !known.pins.contains(&"podwire"));
            assert!(!known.programs.iter().any(|start| "pw_from_pod".starts_with(start)));
        }
    }
}
