//! What `podwire-agent run` is told: flags, environment, configuration file, in this order.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use cni_shim::names::{DEFAULT_BPFFS, DEFAULT_SOCKET};
use ipnet::IpNet;
use serde::Deserialize;

use crate::install::Directories;
use crate::kernel::live::SYSCTLS;
use crate::model::{BigTcpMode, Encapsulation, Network};
use crate::nodes::cidr_fault;
use crate::nodes::kubernetes::Kubernetes;
use crate::nodes::source::Source;

/// Where the agent keeps its state unless told otherwise.
const DEFAULT_STATE_DIR: &str = "/run/podwire";
/// The VXLAN identifier has 24 bits.
const VNI_MAX: u32 = (1 << 24) - 1;
/// From what every IPv4 host takes (RFC 791) to the largest IP packet.
const MTU_RANGE: RangeInclusive<u32> = 576..=65_535;

/// Options of `run`. Each can stand in the environment and, under its name without dashes in front, in
/// the configuration file.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Options {
    /// Name of this node in the node file or in the Kubernetes API
    #[arg(long, env = "PODWIRE_NODE_NAME", value_name = "NAME")]
    pub node_name: Option<String>,
    /// TOML file with all nodes: [[node]] name, addresses, pod_cidrs; its changes are followed
    #[arg(long, env = "PODWIRE_NODES_FILE", value_name = "FILE")]
    pub nodes_file: Option<PathBuf>,
    /// Nodes from the Kubernetes API, in place of a node file; their changes are followed
    #[arg(
        long, env = "PODWIRE_KUBERNETES", value_name = "BOOL", num_args = 0..=1,
        require_equals = true, default_missing_value = "true"
    )]
    pub kubernetes: Option<bool>,
    /// With --kubernetes: how to reach the API server [default: as a pod of the cluster does]
    #[arg(long, env = "PODWIRE_KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// A pod network of the whole cluster; can be repeated [default: what the nodes have]
    #[arg(long, env = "PODWIRE_CLUSTER_CIDR", value_name = "CIDR", value_delimiter = ',')]
    pub cluster_cidr: Vec<IpNet>,
    /// How packets reach other nodes: as they are, inside VXLAN, or as they are to nodes on the same
    /// link and inside VXLAN to others [default: auto]
    #[arg(long, env = "PODWIRE_ENCAPSULATION", value_enum, value_name = "MODE")]
    pub encapsulation: Option<Encapsulation>,
    /// UDP port of VXLAN, the same on all nodes [default: 8472]
    #[arg(long, env = "PODWIRE_VXLAN_PORT", value_name = "PORT")]
    pub vxlan_port: Option<u16>,
    /// VXLAN network identifier, the same on all nodes [default: 20567]
    #[arg(long, env = "PODWIRE_VXLAN_VNI", value_name = "VNI")]
    pub vxlan_vni: Option<u32>,
    /// A device to other nodes; can be repeated [default: the one that has the node's address]
    #[arg(long, env = "PODWIRE_UPLINK", value_name = "DEVICE", value_delimiter = ',')]
    pub uplink: Vec<String>,
    /// The largest packet that the network between the nodes carries, in bytes, where it is less than
    /// devices and routes say; also what VXLAN makes of a packet counts [default: as devices and routes
    /// say]
    #[arg(long, env = "PODWIRE_MTU", value_name = "BYTES")]
    pub mtu: Option<u32>,
    /// Whether pods may hand the kernel TCP packets of more than 64 KiB, which it segments at the last moment:
    /// as far as all devices on the way take them, or yes and the uplinks are set to take them, or no
    /// [default: auto]
    #[arg(long, env = "PODWIRE_BIG_TCP", value_enum, value_name = "MODE")]
    pub big_tcp: Option<BigTcpMode>,
    /// Unix socket for the CNI plugin and for `status` [default: /run/podwire/agent.sock]
    #[arg(long, env = "PODWIRE_SOCKET", value_name = "FILE")]
    pub socket: Option<PathBuf>,
    /// Directory for pins, in a mounted bpffs [default: /sys/fs/bpf/podwire]
    #[arg(long, env = "PODWIRE_BPFFS", value_name = "DIR")]
    pub bpffs: Option<PathBuf>,
    /// Directory for attachments and the lock [default: /run/podwire]
    #[arg(long, env = "PODWIRE_STATE_DIR", value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Where the values of /proc/sys can be written [default: /proc/sys]
    #[arg(long, env = "PODWIRE_SYSCTL_DIR", value_name = "DIR")]
    pub sysctl_dir: Option<PathBuf>,
    /// Directory of the host's CNI plugins, where the plugin beside this program is put
    #[arg(long, env = "PODWIRE_CNI_BIN_DIR", value_name = "DIR")]
    pub cni_bin_dir: Option<PathBuf>,
    /// Directory of the host's network configurations, where one is put when pods can be made
    #[arg(long, env = "PODWIRE_CNI_CONF_DIR", value_name = "DIR")]
    pub cni_conf_dir: Option<PathBuf>,
    /// Serves /healthz, /readyz and /metrics over HTTP at this address, such as [::]:9869 or
    /// 127.0.0.1:9869 [default: nowhere]
    #[arg(long, env = "PODWIRE_LISTEN", value_name = "ADDRESS:PORT")]
    pub listen: Option<SocketAddr>,
    /// Lets the kernel hurry (`/sys/kernel/rcu_expedited`) for the moments in which programs are attached and
    /// pods' interfaces removed [default: true]
    #[arg(
        long, env = "PODWIRE_EXPEDITE", value_name = "BOOL", num_args = 0..=1,
        require_equals = true, default_missing_value = "true"
    )]
    pub expedite: Option<bool>,
    /// error, warn, info, debug, trace, or a filter per module [default: info]
    #[arg(long, env = "PODWIRE_LOG_LEVEL", value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// TOML file with the same options; flags and environment win
    #[arg(long, env = "PODWIRE_CONFIG", value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
}

/// Options that are complete and checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Name of this node.
    pub node_name: String,
    /// Where the nodes come from.
    pub nodes: Source,
    /// What it shares with who only looks at the host.
    pub around: Surroundings,
    /// Whether grace periods are expedited while somebody waits for some.
    pub expedite: bool,
    /// Filter of the log.
    pub log_level: String,
}

/// What of the options a look at the host needs: no node, and no source of nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Surroundings {
    /// How the cluster is connected.
    pub network: Network,
    /// The agent's socket.
    pub socket: PathBuf,
    /// Directory for pins.
    pub bpffs: PathBuf,
    /// Directory for attachments and the lock.
    pub state_dir: PathBuf,
    /// Where the values of `/proc/sys` can be written.
    pub sysctl_dir: PathBuf,
    /// What is put on the host.
    pub install: Directories,
    /// Where health and metrics are served.
    pub listen: Option<SocketAddr>,
}

/// Why options are refused.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The configuration file cannot be read.
    #[error("{}: cannot be read: {source}; correct --config", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is not what it should be.
    #[error("{}: {source}", file.display())]
    Syntax {
        /// The file.
        file: PathBuf,
        /// With line, column and field.
        source: Box<toml::de::Error>,
    },
    /// An option is missing.
    #[error("{0} is missing: {1}")]
    Missing(&'static str, &'static str),
    /// An option makes no sense.
    #[error("{0}: {1}")]
    Bad(&'static str, String),
}

impl Options {
    /// Reads the configuration file, fills in defaults, and checks.
    ///
    /// # Errors
    /// When the file is bad, an option is missing, or makes no sense.
    pub fn complete(self) -> Result<Settings, SettingsError> {
        let given = self.with_file()?;
        let around = given.resolve()?;
        Ok(Settings {
            node_name: given
                .node_name
                .clone()
                .filter(|name| !name.is_empty())
                .ok_or(SettingsError::Missing("--node-name", "say which of the nodes this is"))?,
            nodes: given.source(&around.state_dir)?,
            around,
            expedite: given.expedite.unwrap_or(true),
            log_level: given.log_level.unwrap_or_else(|| "info".to_owned()),
        })
    }

    /// The same for who only looks at the host.
    ///
    /// # Errors
    /// When the file is bad, or an option makes no sense.
    pub fn surroundings(self) -> Result<Surroundings, SettingsError> {
        self.with_file()?.resolve()
    }

    fn with_file(self) -> Result<Self, SettingsError> {
        let file = match &self.config {
            Some(file) => read(file)?,
            None => Self::default(),
        };
        Ok(self.or(file))
    }

    fn resolve(&self) -> Result<Surroundings, SettingsError> {
        let default = Network::default();
        let network = Network {
            encapsulation: self.encapsulation.unwrap_or(default.encapsulation),
            vxlan_port: self.vxlan_port.unwrap_or(default.vxlan_port),
            vxlan_vni: self.vxlan_vni.unwrap_or(default.vxlan_vni),
            cluster_cidrs: self.cluster_cidr.clone(),
            uplinks: self.uplink.clone(),
            mtu: self.mtu,
            big_tcp: self.big_tcp.unwrap_or(default.big_tcp),
        };
        check(&network)?;
        let path = |option, given: &Option<PathBuf>, default: &str| {
            absolute(option, given.as_deref().unwrap_or(Path::new(default)))
        };
        Ok(Surroundings {
            network,
            socket: path("--socket", &self.socket, DEFAULT_SOCKET)?,
            bpffs: path("--bpffs", &self.bpffs, DEFAULT_BPFFS)?,
            state_dir: path("--state-dir", &self.state_dir, DEFAULT_STATE_DIR)?,
            sysctl_dir: self.sysctl_dir.clone().unwrap_or_else(|| SYSCTLS.into()),
            install: Directories {
                plugins: absolute_if_given("--cni-bin-dir", self.cni_bin_dir.as_deref())?,
                configurations: absolute_if_given("--cni-conf-dir", self.cni_conf_dir.as_deref())?,
            },
            listen: self.listen,
        })
    }

    fn source(&self, state_dir: &Path) -> Result<Source, SettingsError> {
        let bad = |option, what: &str| Err(SettingsError::Bad(option, what.to_owned()));
        match (self.kubernetes.unwrap_or_default(), &self.nodes_file, &self.kubeconfig) {
            (true, Some(_), _) => {
                bad("--kubernetes", "the nodes come from one place: leave out --nodes-file")
            }
            (false, _, Some(_)) => bad("--kubeconfig", "goes with --kubernetes only"),
            (true, None, kubeconfig) => {
                let kubeconfig = absolute_if_given("--kubeconfig", kubeconfig.as_deref())?;
                let state_dir = state_dir.to_owned();
                Ok(Source::Kubernetes(Kubernetes { kubeconfig, state_dir }))
            }
            (false, Some(file), None) => Ok(Source::File(absolute("--nodes-file", file)?)),
            (false, None, None) => Err(SettingsError::Missing(
                "--nodes-file",
                "name the TOML file that lists the nodes of the cluster, or give --kubernetes",
            )),
        }
    }

    fn or(self, other: Self) -> Self {
        Self {
            node_name: self.node_name.or(other.node_name),
            nodes_file: self.nodes_file.or(other.nodes_file),
            kubernetes: self.kubernetes.or(other.kubernetes),
            kubeconfig: self.kubeconfig.or(other.kubeconfig),
            cluster_cidr: if self.cluster_cidr.is_empty() {
                other.cluster_cidr
            } else {
                self.cluster_cidr
            },
            encapsulation: self.encapsulation.or(other.encapsulation),
            vxlan_port: self.vxlan_port.or(other.vxlan_port),
            vxlan_vni: self.vxlan_vni.or(other.vxlan_vni),
            uplink: if self.uplink.is_empty() { other.uplink } else { self.uplink },
            mtu: self.mtu.or(other.mtu),
            big_tcp: self.big_tcp.or(other.big_tcp),
            socket: self.socket.or(other.socket),
            bpffs: self.bpffs.or(other.bpffs),
            state_dir: self.state_dir.or(other.state_dir),
            sysctl_dir: self.sysctl_dir.or(other.sysctl_dir),
            cni_bin_dir: self.cni_bin_dir.or(other.cni_bin_dir),
            cni_conf_dir: self.cni_conf_dir.or(other.cni_conf_dir),
            listen: self.listen.or(other.listen),
            expedite: self.expedite.or(other.expedite),
            log_level: self.log_level.or(other.log_level),
            config: self.config,
        }
    }
}

/// The plugin gets these paths too, and runs elsewhere.
fn absolute(option: &'static str, path: &Path) -> Result<PathBuf, SettingsError> {
    std::path::absolute(path)
        .map_err(|error| SettingsError::Bad(option, format!("{}: {error}", path.display())))
}

fn absolute_if_given(
    option: &'static str,
    path: Option<&Path>,
) -> Result<Option<PathBuf>, SettingsError> {
    path.map(|path| absolute(option, path)).transpose()
}

fn read(file: &Path) -> Result<Options, SettingsError> {
    let text = std::fs::read_to_string(file)
        .map_err(|source| SettingsError::Unreadable { file: file.to_owned(), source })?;
    toml::from_str(&text)
        .map_err(|source| SettingsError::Syntax { file: file.to_owned(), source: source.into() })
}

fn check(network: &Network) -> Result<(), SettingsError> {
    let cidrs = &network.cluster_cidrs;
    for (at, cidr) in cidrs.iter().enumerate() {
        if let Some(what) = cidr_fault(cidr) {
            return Err(SettingsError::Bad("--cluster-cidr", what));
        }
        let mut before = cidrs.iter().take(at);
        let overlap = |other: &&IpNet| other.contains(cidr) || cidr.contains(*other);
        if let Some(other) = before.find(overlap) {
            let what = format!("{cidr} overlaps {other}: give each network once");
            return Err(SettingsError::Bad("--cluster-cidr", what));
        }
    }
    if network.vxlan_vni == 0 || network.vxlan_vni > VNI_MAX {
        let what = format!("{} is not within 1 to {VNI_MAX}", network.vxlan_vni);
        return Err(SettingsError::Bad("--vxlan-vni", what));
    }
    if network.vxlan_port == 0 {
        return Err(SettingsError::Bad("--vxlan-port", "0 is not a port".to_owned()));
    }
    if let Some(mtu) = network.mtu.filter(|mtu| !MTU_RANGE.contains(mtu)) {
        let what = format!(
            "{mtu} is not within {} to {}: give the size of the largest IP packet between nodes",
            MTU_RANGE.start(),
            MTU_RANGE.end()
        );
        return Err(SettingsError::Bad("--mtu", what));
    }
    if network.big_tcp == BigTcpMode::On && network.encapsulation != Encapsulation::Direct {
        let what = "\"on\" goes with --encapsulation direct only, as VXLAN takes no packets of more than 64 KiB: \
                    choose that, or leave --big-tcp at \"auto\"";
        return Err(SettingsError::Bad("--big-tcp", what.to_owned()));
    }
    let bad_name = |name: &&String| name.is_empty() || name.len() > 15 || name.contains('/');
    if let Some(name) = network.uplinks.iter().find(bad_name) {
        let what = format!("\"{name}\" is not the name of a device");
        return Err(SettingsError::Bad("--uplink", what));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complete(options: Options) -> Result<Settings, String> {
        options.complete().map_err(|error| error.to_string())
    }

    fn least() -> Options {
        Options {
            node_name: Some("a".to_owned()),
            nodes_file: Some("n.toml".into()),
            ..Options::default()
        }
    }

    #[test]
    fn defaults() {
        let settings = complete(least()).unwrap();
        assert_eq!(settings.around.network, Network::default());
        assert_eq!(settings.around.socket, Path::new("/run/podwire/agent.sock"));
        assert_eq!(settings.around.bpffs, Path::new("/sys/fs/bpf/podwire"));
        assert_eq!(settings.around.state_dir, Path::new("/run/podwire"));
        assert!(settings.expedite);
    }

    #[test]
    fn paths_hold_from_everywhere() {
        let options = Options {
            socket: Some("run/agent.sock".into()),
            bpffs: Some("./pins".into()),
            state_dir: Some("state".into()),
            ..least()
        };
        let settings = complete(options).unwrap();
        let here = std::env::current_dir().unwrap();
        assert_eq!(settings.around.socket, here.join("run/agent.sock"));
        assert_eq!(settings.around.bpffs, here.join("pins"));
        assert_eq!(settings.around.state_dir, here.join("state"));
        assert_eq!(settings.nodes, Source::File(here.join("n.toml")));
        assert!(complete(Options { socket: Some("".into()), ..least() }).is_err());
    }

    #[test]
    fn what_is_missing_is_named() {
        assert!(complete(Options::default()).unwrap_err().contains("--node-name is missing"));
        let error = complete(Options { nodes_file: None, ..least() }).unwrap_err();
        assert!(error.contains("--nodes-file is missing"), "{error}");
    }

    #[test]
    fn nodes_come_from_one_place() {
        let given = |nodes_file: Option<&str>, kubernetes, kubeconfig: Option<&str>| {
            let (nodes_file, kubeconfig) =
                (nodes_file.map(PathBuf::from), kubeconfig.map(PathBuf::from));
            complete(Options { nodes_file, kubernetes, kubeconfig, ..least() })
                .map(|settings| settings.nodes)
        };
        let state_dir = PathBuf::from("/run/podwire");
        let in_cluster = Kubernetes { kubeconfig: None, state_dir: state_dir.clone() };
        assert_eq!(given(None, Some(true), None), Ok(Source::Kubernetes(in_cluster)));
        let by_file = Kubernetes { kubeconfig: Some("/k".into()), state_dir };
        assert_eq!(given(None, Some(true), Some("/k")), Ok(Source::Kubernetes(by_file)));
        assert_eq!(given(Some("/n"), Some(false), None), Ok(Source::File("/n".into())));
        let error = given(Some("/n"), Some(true), None).unwrap_err();
        assert!(error.contains("--kubernetes") && error.contains("--nodes-file"), "{error}");
        assert!(given(Some("/n"), None, Some("/k")).unwrap_err().contains("--kubernetes only"));
        assert!(given(None, None, None).unwrap_err().contains("or give --kubernetes"));
    }

    #[test]
    fn flags_win_over_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("agent.toml");
        let text = "node-name = \"b\"\nvxlan-port = 4789\ncluster-cidr = [\"10.0.0.0/8\"]\n\
                    encapsulation = \"vxlan\"\nuplink = [\"eth7\"]\nmtu = 1400\n";
        std::fs::write(&file, text).unwrap();
        let options =
            Options { config: Some(file.clone()), uplink: vec!["eth1".to_owned()], ..least() };
        let settings = complete(options.clone()).unwrap();
        assert_eq!(settings.node_name, "a");
        assert_eq!(settings.around.network.uplinks, ["eth1"]);
        assert_eq!(settings.around.network.vxlan_port, 4789);
        assert_eq!(settings.around.network.encapsulation, Encapsulation::Vxlan);
        assert_eq!(settings.around.network.mtu, Some(1_400));
        assert_eq!(settings.around.network.cluster_cidrs.len(), 1);
        std::fs::write(&file, "\nvxlan-prot = 1\n").unwrap();
        let error = complete(options).unwrap_err();
        assert!(error.contains("line 2") && error.contains("vxlan-prot"), "{error}");
    }

    #[test]
    fn senseless_values() {
        let bad = |change: fn(&mut Options)| {
            let mut options = least();
            change(&mut options);
            complete(options).unwrap_err()
        };
        assert!(bad(|o| o.vxlan_vni = Some(1 << 24)).contains("--vxlan-vni"));
        assert!(bad(|o| o.vxlan_port = Some(0)).contains("--vxlan-port"));
        assert!(bad(|o| o.mtu = Some(575)).contains("--mtu: 575 is not within 576 to 65535"));
        assert!(bad(|o| o.mtu = Some(65_536)).contains("--mtu"));
        assert!(bad(|o| o.uplink = vec!["a/b".to_owned()]).contains("--uplink"));
        let error = bad(|o| o.cluster_cidr = vec!["10.1.0.0/8".parse().unwrap()]);
        assert!(error.contains("write 10.0.0.0/8"), "{error}");
        let error = bad(|o| o.cluster_cidr = vec!["::ffff:0:0/90".parse().unwrap()]);
        assert!(error.contains("IPv4-mapped"), "{error}");
        let error = bad(|o| {
            o.cluster_cidr = vec!["10.0.0.0/8".parse().unwrap(), "10.1.0.0/16".parse().unwrap()];
        });
        assert!(error.contains("overlaps 10.0.0.0/8"), "{error}");
    }

    #[test]
    fn large_packets_and_a_tunnel_do_not_go_together() {
        let mode = |big_tcp, encapsulation| {
            complete(Options { big_tcp: Some(big_tcp), encapsulation, ..least() })
        };
        for tunnel in [None, Some(Encapsulation::Auto), Some(Encapsulation::Vxlan)] {
            let error = mode(BigTcpMode::On, tunnel).unwrap_err();
            assert!(error.starts_with("--big-tcp") && error.contains("--encapsulation direct"));
            assert!(mode(BigTcpMode::Auto, tunnel).is_ok());
            assert!(mode(BigTcpMode::Off, tunnel).is_ok());
        }
        let settings = mode(BigTcpMode::On, Some(Encapsulation::Direct)).unwrap();
        assert_eq!(settings.around.network.big_tcp, BigTcpMode::On);
    }
}
