//! The daemon `podwire-agent`: computes what the node's data plane should be, and makes it so.
//!
//! Sources (the node file, the CNI plugin's requests) feed a plain-data model; `compile` turns it into
//! the wanted state; `plan` compares that with what the kernel has; the engine applies the difference.

pub mod advice;
pub mod cli;
pub mod compile;
pub mod doctor;
pub mod engine;
mod failure;
#[cfg(test)]
mod fake;
mod files;
pub mod install;
pub mod ipam;
pub mod kernel;
mod memory;
pub mod model;
pub mod monitor;
pub mod nodes;
mod output;
pub mod plan;
pub mod presence;
pub mod run;
pub mod server;
pub mod settings;
pub mod status;
pub mod store;
pub mod uninstall;
