//! The border to the kernel: netlink, namespaces and BPF occur nowhere else in the plugin.

mod bpf;
mod facts;
mod namespace;
mod netlink;
mod route;
mod socket;
mod syscall;

pub(crate) use bpf::{
    Program, attach, check_pins, open_program, pod_entry, programs, remove_link_pins, renamed,
};
pub(crate) use facts::{PodFacts, RouteFacts};
pub(crate) use namespace::{inside, open_namespace};
pub(crate) use netlink::{Ends, LinkFacts, Made, Netlink, Pair};
