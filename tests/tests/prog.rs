//! Each program, loaded and run by the kernel (`BPF_PROG_TEST_RUN`) on one packet at a time.
//!
//! Tunnel metadata cannot be given to a test run, so `pw_from_tunnel` is seen refusing here and working
//! in the namespace tier.

mod prog {
    mod agreement;
    mod budget;
    mod encapsulate;
    mod fixture;
    mod limits;
    mod model;
    mod table;
}
