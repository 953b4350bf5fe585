//! The CNI plugin `podwire`.

fn main() {}
