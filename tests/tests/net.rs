//! Clusters of network namespaces with real agents, the real plugin, and real sockets.

mod net {
    mod forged;
    mod hosts;
    mod matrix;
    mod routed;
    mod service;
    mod world;
}
