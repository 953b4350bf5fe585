//! The border to the kernel: netlink, namespaces and BPF occur nowhere else in the plugin.

mod bpf;
mod facts;
mod link;
mod namespace;
mod netlink;
mod route;
mod socket;
mod syscall;

pub(crate) use bpf::{
    Program, attach, check_pins, open_program, pod_entry, programs, remove_link_pins, renamed,
};
pub(crate) use facts::{PodFacts, RouteFacts};
pub(crate) use link::LinkFacts;
pub(crate) use namespace::Container;
pub(crate) use netlink::{Ends, Made, Netlink, Pair};
