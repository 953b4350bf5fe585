//! The daemon and command line `podwire-agent`.

fn main() {}
