//! The CNI plugin, and what it and the agent agree on: names on the host, the protocol of their socket.

pub mod delegation;
pub mod error;
pub mod grace;
pub mod names;
pub mod plugin;
pub mod protocol;

mod agent;
mod fault;
mod ipam;
mod kernel;
mod lock;
mod request;
mod result;
mod spelling;
mod verbs;
