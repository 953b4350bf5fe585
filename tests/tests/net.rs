//! Clusters of network namespaces with real agents, the real plugin, and real sockets.

mod net {
    mod available;
    mod bad_input;
    mod big_tcp;
    mod calls;
    mod check;
    mod conformance;
    mod delegates;
    mod deleted;
    mod doctor;
    mod documented;
    mod every_call;
    mod flows;
    mod forged;
    mod garbage;
    mod healing;
    mod hosts;
    mod installed;
    mod ipam;
    mod killed;
    mod matrix;
    mod mixed;
    mod monitor;
    mod parallel;
    mod plugin;
    mod reboot;
    mod restart;
    mod routed;
    mod service;
    mod snapshot;
    mod status;
    mod traces;
    mod tunnel;
    mod uninstalled;
    mod ways;
    mod world;
}
