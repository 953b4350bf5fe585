//! The plugin in the hands of others: the CNI project's own library, container runtimes, and chains.

#[path = "net/traces.rs"]
#[expect(dead_code, reason = "shared with the tests of tier net")]
mod traces;

mod runtimes {
    mod chain;
    mod cnitool;
    mod containerd;
    mod left;
    mod libcni;
    mod podman;
    mod several;
    mod story;

    use serde_json::{Value, json};
    use tests::node::Node;

    /// A network of ours that other plugins follow.
    fn list(node: &Node, version: &str, others: &[Value]) -> Value {
        let mut first = node.cni_configuration();
        for key in ["cniVersion", "name"] {
            first.as_object_mut().expect("an object").remove(key);
        }
        let plugins = [&[first], others].concat();
        json!({"cniVersion": version, "name": "podwire", "plugins": plugins})
    }

    /// A network of ours that publishes ports.
    fn portmap_list(node: &Node, version: &str) -> Value {
        let portmap = json!({"type": "portmap", "capabilities": {"portMappings": true}});
        list(node, version, &[portmap])
    }
}
