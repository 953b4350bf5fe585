//! What the BPF programs and user space share: the layouts of the maps and the decisions.
//!
//! No allocation, no clock, no map look-up, no kernel: small values in, small values out. So the same
//! code runs in the kernel, in property tests and beside the loaded programs in the test suite.

#![no_std]
#![deny(clippy::arithmetic_side_effects)]

pub mod abi;
pub mod answer;
pub mod decide;
pub mod flow;
mod hash;
pub mod ip;
pub mod near;
pub mod outer;
pub mod packet;
pub mod remembered;
pub mod rewrite;
pub mod upper;
