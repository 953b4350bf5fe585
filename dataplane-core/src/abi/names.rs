//! Names of maps and programs (the kernel keeps 15 bytes of a name), and sizes of maps.

/// Hash: local [`Addr`](super::Addr) to [`PodEntry`](super::PodEntry).
pub const MAP_PODS: &str = "pw_pods";
/// Longest-prefix trie: prefix to [`NodeEntry`](super::NodeEntry).
pub const MAP_NODES: &str = "pw_nodes";
/// Array of one [`Config`](super::Config).
pub const MAP_CONFIG: &str = "pw_config";
/// Per-CPU array: number of a [`Counter`](super::Counter) to [`Stats`](super::Stats).
pub const MAP_STATS: &str = "pw_stats";
/// Ring buffer of [`Event`](super::Event).
pub const MAP_EVENTS: &str = "pw_events";

/// All maps, in the order in which they are pinned.
pub const MAPS: [&str; 5] = [MAP_PODS, MAP_NODES, MAP_CONFIG, MAP_STATS, MAP_EVENTS];

/// Most local addresses of one node.
pub const PODS_MAX: usize = 16_384;
/// Most prefixes: nodes, single pods outside their node's CIDR, addresses of nodes.
pub const NODES_MAX: usize = 262_144;
/// Flows that each processor remembers; a power of two.
pub const FLOWS: usize = 256;
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

const _: () = assert!(FLOWS.is_power_of_two());

const _: () = {
    let mut i = 0;
    while i < MAPS.len() {
        assert!(MAPS[i].len() <= 15 && PROGRAMS[i].len() <= 15);
        i = i.wrapping_add(1);
    }
};
