//! Names of maps and programs (the kernel keeps 15 bytes of a name), and sizes of maps.

/// Hash: local [`Addr`](super::Addr) to [`PodEntry`](super::PodEntry).
pub const MAP_PODS: &str = "pw_pods";
/// Array of [`NEAR`] of [`Near`](super::Near).
pub const MAP_NEAR: &str = "pw_near";
/// Longest-prefix trie: prefix to [`NodeEntry`](super::NodeEntry).
pub const MAP_NODES: &str = "pw_nodes";
/// Array of one [`Config`](super::Config).
pub const MAP_CONFIG: &str = "pw_config";
/// Per-CPU array: number of a [`Counter`](super::Counter) to [`Stats`](super::Stats).
pub const MAP_STATS: &str = "pw_stats";
/// Per-CPU array of one: [`KNOWN_NODES`] of [`KnownNode`](super::KnownNode).
pub const MAP_KNOWN_NODES: &str = "pw_known_nodes";
/// Per-CPU array of one: [`HOPS`] of [`NextHop`](super::NextHop).
pub const MAP_HOPS: &str = "pw_hops";
/// Ring buffer of [`Event`](super::Event).
pub const MAP_EVENTS: &str = "pw_events";

/// All maps, in the order in which they are pinned.
pub const MAPS: [&str; 8] =
    [MAP_PODS, MAP_NEAR, MAP_NODES, MAP_CONFIG, MAP_STATS, MAP_KNOWN_NODES, MAP_HOPS, MAP_EVENTS];

/// Most local addresses of one node.
pub const PODS_MAX: usize = 16_384;
/// Places for addresses of this node; a power of two.
pub const NEAR: usize = 16_384;
/// Most prefixes: nodes, single pods outside their node's CIDR, addresses of nodes.
pub const NODES_MAX: usize = 262_144;
/// Addresses of whose nodes each processor remembers; a power of two. The kernel allows 32 KiB for all.
pub const KNOWN_NODES: usize = 512;
/// Next hops that each processor remembers; a power of two.
pub const HOPS: usize = 256;
/// Size of the event ring, in bytes.
pub const EVENTS_BYTES: usize = 262_144;

/// TCX ingress of the host side of a pod's veth.
pub const PROGRAM_FROM_POD: &str = "pw_from_pod";
/// TCX egress of the host side of a pod's veth.
pub const PROGRAM_TO_POD: &str = "pw_to_pod";
/// TCX ingress of the uplinks.
pub const PROGRAM_FROM_NET: &str = "pw_from_net";
/// TCX ingress of the VXLAN device.
pub const PROGRAM_FROM_TUNNEL: &str = "pw_from_tunnel";
/// TCX egress of `podwire0`.
pub const PROGRAM_FROM_HOST: &str = "pw_from_host";

/// All programs; [`Event::program`](super::Event::program) is a position in this list.
pub const PROGRAMS: [&str; 5] =
    [PROGRAM_FROM_POD, PROGRAM_TO_POD, PROGRAM_FROM_NET, PROGRAM_FROM_TUNNEL, PROGRAM_FROM_HOST];

const _: () =
    assert!(NEAR.is_power_of_two() && KNOWN_NODES.is_power_of_two() && HOPS.is_power_of_two());

const _: () = assert!(all_fit(&MAPS) && all_fit(&PROGRAMS));

const fn all_fit(names: &[&str]) -> bool {
    let mut i = 0;
    while i < names.len() {
        if names[i].len() > 15 {
            return false;
        }
        i = i.wrapping_add(1);
    }
    true
}
