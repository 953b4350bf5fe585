//! Names that the plugin, the agent and an operator derive from nothing but the request.

use dataplane_core::abi::config;
use std::path::{Path, PathBuf};

use data_encoding::{Encoding, Specification};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Where the agent listens unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/podwire/agent.sock";
/// Where programs, maps and links are pinned unless told otherwise.
pub const DEFAULT_BPFFS: &str = "/sys/fs/bpf/podwire";
/// File beside the socket in which the agent tells the plugin where its pins are.
pub const PLUGIN_FILE: &str = "plugin.json";
/// Directory beside the socket with one lock file for each of the 256 values of the hash's first byte.
pub const LOCK_DIRECTORY: &str = "locks";

/// Gateway of every pod, IPv4 (RFC 3927 link-local; no interface has it).
pub const GATEWAY_IPV4: std::net::Ipv4Addr =
    std::net::Ipv4Addr::from_bits(u32::from_be_bytes(config::GATEWAY_IPV4));
/// Gateway of every pod, IPv6 link-local.
pub const GATEWAY_IPV6: std::net::Ipv6Addr =
    std::net::Ipv6Addr::from_bits(u128::from_be_bytes(config::GATEWAY_IPV6));

/// One interface of one container: the identity of the CNI specification (1.1, section 2).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attachment {
    /// `CNI_CONTAINERID`.
    pub container_id: String,
    /// `CNI_IFNAME`.
    pub ifname: String,
}

/// Every alias of a host side begins so.
const ALIAS_START: &str = "podwire ";

/// The network in the alias of a host side.
pub fn network_of_alias(alias: &str) -> Option<&str> {
    alias.strip_prefix(ALIAS_START)?.split(' ').next()
}

impl Attachment {
    /// Name of the host side of the veth: `pw` and 13 base32 digits of a SHA-256 over both parts,
    /// 15 bytes, the most that the kernel takes.
    pub fn host_ifname(&self) -> String {
        let mut alphabet = Specification::new();
        alphabet.symbols.push_str("abcdefghijklmnopqrstuvwxyz234567");
        let base32: Encoding = alphabet.encoding().expect("32 distinct symbols are an encoding");
        let mut name = base32.encode(&self.hash()[..10]);
        name.truncate(13);
        format!("pw{name}")
    }

    /// The alias of the host side, for people and for GC.
    pub fn alias(&self, network: &str, who: &str) -> String {
        format!("{ALIAS_START}{network} {} {who}", self.ifname)
    }

    /// The lock file that ADD, DEL and the sweep take for this attachment, beside the agent's socket.
    pub fn lock_file(&self, socket: &Path) -> PathBuf {
        beside(socket, LOCK_DIRECTORY).join(format!("{:02x}", self.hash()[0]))
    }

    fn hash(&self) -> [u8; 32] {
        let mut hasher = Sha256::new();
        hasher.update(self.container_id.as_bytes());
        // Neither part can hold a NUL, so no two attachments give the same bytes.
        hasher.update([0]);
        hasher.update(self.ifname.as_bytes());
        hasher.finalize().into()
    }
}

/// Whether an interface has a name as [`Attachment::host_ifname`] makes them.
pub fn is_pod_interface(name: &str) -> bool {
    name.len() == 15
        && name.starts_with("pw")
        && name.bytes().skip(2).all(|b| matches!(b, b'a'..=b'z' | b'2'..=b'7'))
}

/// A file in the directory of the agent's socket.
pub fn beside(socket: &Path, file: &str) -> PathBuf {
    socket.parent().unwrap_or(Path::new("/")).join(file)
}

/// What the agent writes to [`PLUGIN_FILE`] once its programs are pinned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PluginFile {
    /// [`PROTOCOL_VERSION`](crate::protocol::PROTOCOL_VERSION) of the agent.
    pub protocol: u32,
    /// Root of the pins: `programs/<name>`, `maps/<name>`, `links/<interface>-ingress|-egress`.
    pub bpffs: PathBuf,
    /// Whether grace periods are expedited while the plugin waits for some ([`grace`](crate::grace)).
    #[serde(default)]
    pub expedite: bool,
    /// What is set at both ends of a pod's veth when it is made.
    #[serde(default, skip_serializing_if = "BigTcp::is_off")]
    pub big_tcp: BigTcp,
}

/// How long an aggregate of a pod may be, in bytes; none: as the kernel has it, up to 65,536.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BigTcp {
    /// Of IPv4.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<u32>,
    /// Of IPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<u32>,
}

impl BigTcp {
    /// Nothing is set.
    pub fn is_off(&self) -> bool {
        *self == Self::default()
    }
}

/// Pins below the root that [`PluginFile::bpffs`] names.
#[derive(Clone, Debug)]
pub struct Pins(
    /// The root.
    pub PathBuf,
);

impl Pins {
    /// The pin of a program.
    pub fn program(&self, name: &str) -> PathBuf {
        self.0.join("programs").join(name)
    }

    /// The pin of a map.
    pub fn map(&self, name: &str) -> PathBuf {
        self.0.join("maps").join(name)
    }

    /// The pin of the link of a program at a hook of an interface.
    pub fn link(&self, ifname: &str, hook: Hook) -> PathBuf {
        let hook = match hook {
            Hook::Ingress => "ingress",
            Hook::Egress => "egress",
        };
        // bpffs refuses names with a dot, and an interface's name may have one.
        self.0.join("links").join(format!("{}-{hook}", ifname.replace('.', "_")))
    }
}

/// The two TCX hooks of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hook {
    /// Packets that the interface receives.
    Ingress,
    /// Packets that it sends.
    Egress,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_are_fit_for_the_kernel_and_differ() {
        let name = |id: &str, ifname: &str| {
            Attachment { container_id: id.into(), ifname: ifname.into() }.host_ifname()
        };
        let one = name("abc", "eth0");
        // An interface: it must not change between versions, or DEL would not find what ADD made.
        assert_eq!(one, "pw3cd42kdiph6uo");
        assert_eq!(one.len(), 15);
        assert!(is_pod_interface(&one));
        for other in ["podwire0", "podwire0p", "podwire-vxlan", "pw0", "pwABCDEFGHIJKLM", "eth0"] {
            assert!(!is_pod_interface(other), "{other}");
        }
        assert_ne!(one, name("abc", "eth1"));
        assert_ne!(name("ab", "ceth0"), name("abc", "eth0"));
    }

    #[test]
    fn aliases_name_the_network() {
        let attachment = Attachment { container_id: "abc".into(), ifname: "eth0".into() };
        let alias = attachment.alias("pods", "default/web");
        assert_eq!(alias, "podwire pods eth0 default/web");
        assert_eq!(network_of_alias(&alias), Some("pods"));
        assert_eq!(network_of_alias("somebody's"), None);
    }

    #[test]
    fn pins_have_no_dots() {
        let pins = Pins("/sys/fs/bpf/podwire".into());
        let path = pins.link("eth0.100", Hook::Ingress);
        assert_eq!(path, Path::new("/sys/fs/bpf/podwire/links/eth0_100-ingress"));
    }
}
