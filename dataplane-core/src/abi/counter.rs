//! What the programs count: each packet once, under the way it took or the reason it was dropped.
//!
//! A number is a name that others rely on (metric label, command line, tests): it is never reused.

/// A value of `pw_stats`, one per CPU.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// Packets as the program saw them: an aggregate (GSO, GRO) counts once.
    pub packets: u64,
    /// Their bytes, from the Ethernet header.
    pub bytes: u64,
}

const _: () = assert!(size_of::<Stats>() == 16 && align_of::<Stats>() == 8);

/// Entries of `pw_stats`.
pub const COUNTERS_MAX: u32 = 128;

/// A number of `pw_stats`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Counter {
    /// A way through the data plane.
    Path(Path),
    /// A reason for a drop.
    Drop(DropReason),
}

impl Counter {
    /// All counters, in the order of their numbers.
    pub fn all() -> impl Iterator<Item = Self> {
        Path::ALL
            .iter()
            .copied()
            .map(Self::Path)
            .chain(DropReason::ALL.iter().copied().map(Self::Drop))
    }

    /// Index into `pw_stats`.
    #[inline(always)]
    pub const fn number(self) -> u32 {
        match self {
            Self::Path(path) => path as u32,
            Self::Drop(reason) => reason as u32,
        }
    }

    /// Name as it stands in metrics, in `podwire-agent status` and in tests.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Path(path) => path.name(),
            Self::Drop(reason) => reason.name(),
        }
    }
}

/// Declares one of the two enums with its numbers, names, explanations and the list of all.
macro_rules! counters {
    ($(#[$meta:meta])* $name:ident { $($variant:ident = $number:literal, $text:literal, $help:literal;)* }) => {
        $(#[$meta])*
        #[repr(u32)]
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum $name {
            $( #[doc = $help] $variant = $number, )*
        }

        impl $name {
            /// All, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// Name as it stands in metrics, in `podwire-agent status` and in tests.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text),* }
            }

            /// One sentence for people.
            pub const fn help(self) -> &'static str {
                match self { $(Self::$variant => $help),* }
            }

            /// The one with this number.
            pub fn from_number(number: u32) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

counters! {
    /// The ways of packets that were not dropped.
    Path {
        PodToPod = 1, "pod_to_pod", "From a pod to a pod of the same node.";
        PodToDirect = 2, "pod_to_direct", "From a pod to a pod of another node, plain through the uplink.";
        PodToTunnel = 3, "pod_to_tunnel", "From a pod to a pod of another node, through VXLAN.";
        PodToHost = 4, "pod_to_host", "From a pod to the host stack: the node, other nodes, the world.";
        PodAnswered = 5, "pod_answered", "A pod's question for its gateway (ARP, neighbour solicitation), answered.";
        PodExpired = 6, "pod_expired", "From a pod, TTL at its end: to the host stack, which says so to the sender.";
        PodTooBig = 7, "pod_too_big", "From a pod, larger than the path: to the host stack, which says so to the sender.";
        NetToPod = 8, "net_to_pod", "From another node, plain, to a pod.";
        NetToHost = 9, "net_to_host", "From another node's pods, plain, to this node's address among the pods.";
        NetExpired = 10, "net_expired", "From another node, plain, TTL at its end: to the host stack.";
        NetPassed = 11, "net_passed", "Arrived on an uplink and is not pod to pod: left to the host stack.";
        TunnelToPod = 12, "tunnel_to_pod", "From another node, through VXLAN, to a pod.";
        TunnelToHost = 13, "tunnel_to_host", "From another node's pods, through VXLAN, to this node's address among the pods.";
        TunnelExpired = 14, "tunnel_expired", "From another node, through VXLAN, TTL at its end: to the host stack.";
        HostToPod = 15, "host_to_pod", "From the host stack to a pod of this node.";
        HostToDirect = 16, "host_to_direct", "From the host stack to a pod of another node, plain.";
        HostToTunnel = 17, "host_to_tunnel", "From the host stack to a pod of another node, through VXLAN.";
        DeliveredToPod = 18, "delivered_to_pod", "Left the host side of a pod's veth towards the pod.";
    }
}

counters! {
    /// Why a packet was dropped.
    DropReason {
        Malformed = 32, "malformed", "A header is cut off or contradicts itself.";
        UnknownProtocol = 33, "unknown_protocol", "Neither IPv4 nor IPv6 nor ARP for the gateway.";
        SpoofedSource = 34, "spoofed_source", "A pod used a source address that is not its own.";
        Multicast = 35, "multicast", "Multicast and broadcast are not carried.";
        MappedAddress = 36, "mapped_address", "An IPv6 header with an IPv4-mapped address (::ffff:0:0/96).";
        SourceRoute = 37, "source_route", "An IPv4 source route option (LSRR or SSRR).";
        UnknownPod = 38, "unknown_pod", "A pod address that nobody has.";
        TunnelPort = 39, "tunnel_port", "A pod sent to the VXLAN port of a node.";
        TunnelSource = 40, "tunnel_source", "A VXLAN packet whose sender is not the node of its inner source.";
        TunnelVni = 41, "tunnel_vni", "A VXLAN packet with another network identifier.";
        OwnSource = 42, "own_source", "Arrived from outside with a source that belongs to this node's pods.";
        NotTunnelled = 43, "not_tunnelled", "Arrived plain from pods that are reached through VXLAN only.";
        NotForThisPod = 44, "not_for_this_pod", "Sent by the host to a pod's interface, for an address that is not the pod's.";
        TunnelFailed = 45, "tunnel_failed", "The kernel refused the tunnel key.";
        NoRoute = 46, "no_route", "The host has no route to the node of the pod.";
        NoConfig = 47, "no_config", "No agent has written the configuration yet.";
        RedirectFailed = 48, "redirect_failed", "The kernel refused the redirect.";
        TooBig = 49, "too_big", "From the host stack, larger than the uplink takes.";
    }
}
