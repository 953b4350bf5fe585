//! Every type that crosses between the BPF programs and user space.
//!
//! All are `repr(C)`, have their padding written out and their size asserted, and hold no `bool`,
//! `enum`, `Option` or `usize`: a map's value can hold any bytes.

pub mod address;
pub mod config;
pub mod counter;
pub mod event;
pub mod names;
pub mod node;
pub mod pod;
pub mod remembered;

pub use address::{Addr, Mac};
pub use config::Config;
pub use counter::{Counter, DropReason, Path, Stats};
pub use event::Event;
pub use node::NodeEntry;
pub use pod::{Near, PodEntry};
pub use remembered::{KnownNode, NextHop};

/// Version of all pinned layouts. Rises with every change in `abi`; the agent refuses to mix versions.
pub const ABI_VERSION: u32 = 4;

/// Lets aya copy the layouts in and out of maps.
#[cfg(feature = "user")]
mod user {
    // SAFETY (all): `repr(C)`, `Copy`, no implicit padding (asserted beside each type), and every bit
    // pattern is a valid value, as all fields are integers or arrays of them.
    macro_rules! pod {
        ($($t:ty),* $(,)?) => { $(
            // SAFETY: see the comment above the macro.
            unsafe impl aya::Pod for $t {}
        )* };
    }
    pod!(super::Addr, super::Config, super::Event, super::Near, super::NodeEntry, super::PodEntry);
    pod!(super::Stats);
}
