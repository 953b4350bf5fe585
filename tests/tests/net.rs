//! Clusters of network namespaces with real agents, the real plugin, and real sockets.

mod net {
    mod hosts;
    mod matrix;
}
