//! What is shipped for Kubernetes: the manifest, the Kustomize base and the Helm chart, as the libraries of those
//! programs render them (`tests/go/render`), and the image in a registry (`tests/go/registry`).

mod deploy {
    mod accepted;
    mod commands;
    mod documented;
    mod effects;
    mod image;
    mod objects;
    mod push;
    mod refused;
    mod same;
}
