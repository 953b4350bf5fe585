//! Looks at the host without changing it: what the kernel can do, and what others have left in it.

pub mod clock;
pub mod devices;
pub mod features;
pub mod firewall;
pub mod pins;
pub mod traffic;

/// What a probe says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is there.
    Yes,
    /// It is not.
    No,
    /// It could not be asked for, and why.
    Unknown(String),
}

/// Something that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// As the kernel calls it.
    pub name: String,
    /// Whether it is there.
    pub answer: Answer,
}
