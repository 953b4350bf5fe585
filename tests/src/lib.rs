//! Clusters made of network namespaces, for tests and for the demo.

pub mod binaries;
pub mod clean;
pub mod cluster;
pub mod command;
pub mod demo;
pub mod fabric;
pub mod image;
pub mod namespace;
pub mod node;
pub mod pod;
pub mod probe;
pub mod room;
pub mod run;
pub mod server;
pub mod tracer;
pub mod wait;
