//! Addresses of the cluster. Those of nodes and pods are the harness's (`tests::fabric`).

/// The control plane's, on the first LAN.
pub(crate) const CONTROL: [&str; 2] = ["192.168.1.2", "fd00:1::2"];
/// Service networks.
pub(crate) const SERVICE_CIDRS: &str = "10.96.0.0/16,fd00:10:96::/112";
/// The API server's service address in each of them.
pub(crate) const API_SERVICE: [&str; 2] = ["10.96.0.1", "fd00:10:96::1"];
/// The address of the cluster's DNS.
pub(crate) const DNS: &str = "10.96.0.10";
/// The API server, as everybody reaches it.
pub(crate) const API: &str = "https://192.168.1.2:6443";
