//! Clusters made of network namespaces, for tests, for the demo and for benchmarks.

pub mod binaries;
pub mod clean;
pub mod cluster;
pub mod command;
pub mod demo;
pub mod enclosure;
pub mod fabric;
pub mod flow;
pub mod image;
pub mod memory;
pub mod namespace;
pub mod node;
pub mod pod;
pub mod probe;
pub mod processor;
pub mod ratio;
pub mod render;
pub mod report;
pub mod room;
pub mod run;
pub mod series;
pub mod server;
pub mod supervise;
pub mod tracer;
pub mod wait;
