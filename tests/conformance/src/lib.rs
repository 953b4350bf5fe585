//! A black-box conformance kit for plugins of the Container Network Interface (CNI).

pub mod bench;
pub mod checks;
pub mod delegate;
pub mod interrupt;
pub mod kernel;
pub mod known;
pub mod namespace;
pub mod process;
pub mod reply;
pub mod report;
pub mod run;
pub mod setup;
pub mod stop;
pub mod wait;
