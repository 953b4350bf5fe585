//! What the CNI plugin and the agent agree on: names on the host, and the protocol of their socket.

pub mod names;
pub mod protocol;
