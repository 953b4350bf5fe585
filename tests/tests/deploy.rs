//! What is shipped for Kubernetes: the manifest, the Kustomize base and the Helm chart, as the libraries of those
//! programs render them (`tests/go/render`).

mod deploy {
    mod accepted;
    mod documented;
    mod effects;
    mod objects;
    mod refused;
    mod same;
}
