//! A real Kubernetes cluster on one machine, and what must hold in it. Nodes and the control plane are
//! namespaces; what runs on them is what runs on any node.

mod addresses;
mod agent;
mod certificates;
mod checks;
mod cli;
mod cluster;
mod containerd;
mod control;
mod dns;
mod existing;
mod images;
mod kubectl;
mod kubelet;
mod life;
mod measure;
mod network;
mod node;
mod pod;
mod programs;
mod proxy;
mod report;
mod strangers;
mod suite;
mod view;
mod watch;

pub use cli::main;
