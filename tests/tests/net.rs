//! Clusters of network namespaces with real agents, the real plugin, and real sockets.

mod net {
    mod bad_input;
    mod check;
    mod flows;
    mod forged;
    mod healing;
    mod hosts;
    mod ipam;
    mod killed;
    mod matrix;
    mod parallel;
    mod plugin;
    mod restart;
    mod routed;
    mod service;
    mod status;
    mod traces;
    mod tunnel;
    mod world;
}
