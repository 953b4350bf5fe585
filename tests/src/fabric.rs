//! The network between the nodes, and the world.

use std::net::IpAddr;

use anyhow::Result;
use serde_json::Value;

use crate::namespace::Namespace;
use crate::run::Run;

/// Address of the host outside.
pub const WORLD: [&str; 2] = ["203.0.113.10", "2001:db8:ffff::10"];

/// How nodes are connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Layout {
    /// All nodes on one LAN; the router to the world knows no pod network.
    #[default]
    OneLan,
    /// The second node is on a LAN of its own. Two routers, which know all pod networks, are between
    /// the LANs, and between them is a link with this MTU.
    Routed {
        /// In bytes.
        middle_mtu: u32,
    },
}

/// Addresses of a node: N is its number, from 1 on.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub(crate) number: u8,
    /// 1 or 2.
    pub(crate) lan: u8,
    /// Whether there is room for 4,000 pods instead of 250.
    pub(crate) is_large: bool,
}

impl Place {
    /// That of a node.
    pub fn new(number: u8, layout: Layout) -> Self {
        let is_apart = matches!(layout, Layout::Routed { .. }) && number == 2;
        Self { number, lan: if is_apart { 2 } else { 1 }, is_large: false }
    }

    /// Its addresses, IPv4 first.
    pub fn addresses(self) -> [IpAddr; 2] {
        let host = u16::from(self.number) + 10;
        let lan = self.lan;
        [
            [192, 168, lan, self.number + 10].into(),
            // The last group is written 11 for node 1.
            [0xfd00, lan.into(), 0, 0, 0, 0, 0, as_written(host)].into(),
        ]
    }

    pub(crate) fn pod_cidrs(self) -> [String; 2] {
        let (n, third) = (self.number, self.third());
        let length = if self.is_large { 20 } else { 24 };
        [format!("10.244.{third}.0/{length}"), format!("fd00:10:244:{n}::/64")]
    }

    /// Third number of the node's IPv4 pod network.
    fn third(self) -> u8 {
        if self.is_large { self.number * 16 } else { self.number }
    }

    /// The node's own addresses among the pods.
    pub(crate) fn gateways(self) -> [IpAddr; 2] {
        let n = self.number;
        [[10, 244, self.third(), 1].into(), [0xfd00, 0x10, 0x244, u16::from(n), 0, 0, 0, 1].into()]
    }
}

/// 11 as 0x11, so that an address looks like the number.
fn as_written(number: u16) -> u16 {
    number / 10 * 16 + number % 10
}

/// LANs, routers and the world.
#[derive(Debug)]
pub struct Fabric {
    /// The bridge of all LANs.
    pub lan: Namespace,
    /// The nodes' default gateway, 192.168.1.1.
    pub router: Namespace,
    /// The gateway of the second LAN.
    pub far_router: Option<Namespace>,
    /// 203.0.113.10.
    pub world: Namespace,
}

impl Fabric {
    /// Makes them, without nodes.
    ///
    /// # Errors
    /// When something cannot be made.
    pub fn new(run: &Run, layout: Layout) -> Result<Self> {
        let make = |what: &str| Namespace::new(&format!("{}-{what}", run.name()), run.is_kept());
        let (lan, router, world) = (make("lan")?, make("router")?, make("world")?);
        lan.ip("link add br1 type bridge mcast_snooping 0\nlink set br1 up\n\
             link add br2 type bridge mcast_snooping 0\nlink set br2 up")?;
        router.sysctls(&[("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1")])?;
        let mut fabric = Self { lan, router, far_router: None, world };
        fabric.plug("router", &fabric.router, 1)?;
        let (router, world) = (&fabric.router, &fabric.world);
        router.ip(&format!(
            "address add 192.168.1.1/24 dev eth0\naddress add fd00:1::1/64 dev eth0\n\
             link add world0 type veth peer name eth0 netns {}\nlink set world0 up\n\
             address add 203.0.113.1/24 dev world0\naddress add 2001:db8:ffff::1/64 dev world0",
            world.name()
        ))?;
        world.ip("link set eth0 up\n\
             address add 203.0.113.10/24 dev eth0\naddress add 2001:db8:ffff::10/64 dev eth0\n\
             route add 192.168.0.0/16 via 203.0.113.1\n\
             route add fd00::/16 via 2001:db8:ffff::1")?;
        if let Layout::Routed { middle_mtu } = layout {
            let far = make("far")?;
            fabric.add_far_router(far, middle_mtu)?;
        }
        Ok(fabric)
    }

    fn add_far_router(&mut self, far: Namespace, middle_mtu: u32) -> Result<()> {
        far.sysctls(&[("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1")])?;
        self.plug("far", &far, 2)?;
        self.router.ip(&format!(
            "link add middle mtu {middle_mtu} type veth peer name middle mtu {middle_mtu} netns {}\n\
             link set middle up\n\
             address add 192.168.9.1/24 dev middle\naddress add fd00:9::1/64 dev middle\n\
             route add 192.168.2.0/24 via 192.168.9.2\nroute add fd00:2::/64 via fd00:9::2",
            far.name()
        ))?;
        far.ip("link set middle up\n\
             address add 192.168.9.2/24 dev middle\naddress add fd00:9::2/64 dev middle\n\
             address add 192.168.2.1/24 dev eth0\naddress add fd00:2::1/64 dev eth0\n\
             route add default via 192.168.9.1\nroute add default via fd00:9::1")?;
        self.far_router = Some(far);
        Ok(())
    }

    /// Unplugs a port, whose namespace may be going already.
    ///
    /// # Errors
    /// When it stays.
    pub fn unplug(&self, port: &str) -> Result<()> {
        let removed = self.lan.ip(&format!("link delete {port}"));
        if self.lan.run(&format!("ip link show {port}")).is_ok() { removed } else { Ok(()) }
    }

    /// Connects a namespace to a LAN, as its `eth0`.
    ///
    /// # Errors
    /// When it has one.
    pub fn plug(&self, port: &str, namespace: &Namespace, lan: u8) -> Result<()> {
        self.lan.ip(&format!(
            "link add {port} type veth peer name eth0 netns {}\n\
             link set {port} master br{lan} up",
            namespace.name()
        ))?;
        namespace.ip("link set eth0 up")
    }

    /// Lets every port carry what a wire does: no segment that is larger than the MTU, no checksum that is still to be
    /// made. Only then the other ends put segments together (GRO): what comes from a port that could have sent one large
    /// packet is left as it is (`veth_skb_is_eligible_for_gro`, as of 6.18).
    ///
    /// # Errors
    /// When ethtool cannot.
    pub fn make_wires(&self) -> Result<()> {
        self.ports()?.iter().try_for_each(|port| {
            self.lan.run(&format!("ethtool -K {port} tso off gso off tx off")).map(drop)
        })
    }

    /// Names of the ports, which are in `lan`.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn ports(&self) -> Result<Vec<String>> {
        let links = self.lan.run("ip -json link show type veth")?;
        let links: Value = serde_json::from_str(&links)?;
        let names = links.as_array().into_iter().flatten();
        Ok(names.filter_map(|link| link["ifname"].as_str()).map(str::to_owned).collect())
    }

    /// Connects a node, and gives it its addresses.
    ///
    /// # Errors
    /// When it is connected.
    pub fn add_node(&self, namespace: &Namespace, place: Place) -> Result<()> {
        let lan = place.lan;
        let [ipv4, ipv6] = place.addresses();
        self.plug(&format!("node{}", place.number), namespace, lan)?;
        namespace.ip(&format!(
            "address add {ipv4}/24 dev eth0\naddress add {ipv6}/64 dev eth0\n\
             route add default via 192.168.{lan}.1\nroute add default via fd00:{lan}::1"
        ))?;
        if self.far_router.is_some() {
            self.teach_routers(place)?;
        }
        Ok(())
    }

    fn teach_routers(&self, place: Place) -> Result<()> {
        let [ipv4, ipv6] = place.addresses();
        let [pods4, pods6] = place.pod_cidrs();
        let near = format!("route add {pods4} via {ipv4}\nroute add {pods6} via {ipv6}");
        let (owner, other, via) = match (&self.far_router, place.lan) {
            (Some(far), 2) => (far, &self.router, ["192.168.9.2", "fd00:9::2"]),
            (Some(_), _) => return self.router.ip(&near),
            (None, _) => return Ok(()),
        };
        owner.ip(&near)?;
        other.ip(&format!("route add {pods4} via {}\nroute add {pods6} via {}", via[0], via[1]))
    }
}
