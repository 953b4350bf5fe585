//! The objects of the checks.

use anyhow::Result;
use serde_json::{Value, json};

use super::{MADE_BY, NAMESPACE};
use crate::images;
use crate::view::View;

/// Port of the web server in pods; UDP is one above.
pub(super) const PORT: u16 = 8080;
/// The same in pods on the host's network.
pub(super) const HOST_PORT: u16 = 18080;
/// A port of the nodes that `portmap` hands to a pod; UDP is one above.
pub(super) const MAPPED_PORT: u16 = 18090;
/// A port of the nodes that belongs to a service; UDP is one above.
pub(super) const NODE_PORT: u16 = 30080;
/// The same, answered by pods of the asked node alone.
pub(super) const LOCAL_NODE_PORT: u16 = 30090;
/// What a pod writes to its log.
pub(super) const LOGGED: &str = "logged by a pod";

/// Two pods and one on the host's network per node, one for each way to probe, services.
pub(super) fn all(view: &View<'_>) -> Result<Vec<Value>> {
    let members = view.members;
    let image = images::agnhost()?;
    let mut objects = vec![json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": NAMESPACE, "labels": {MADE_BY: NAMESPACE}},
    })];
    for (number, member) in members.iter().enumerate() {
        let n = number + 1;
        for letter in ["a", "b"] {
            let mut pod = server(&image, &format!("pod{n}{letter}"), &member.name, PORT);
            pod["spec"]["containers"][0]["readinessProbe"] = http_probe(PORT);
            if letter == "b" {
                pod["spec"]["containers"][0]["ports"] = json!([
                    {"containerPort": PORT, "hostPort": MAPPED_PORT},
                    {"containerPort": PORT + 1, "hostPort": MAPPED_PORT + 1, "protocol": "UDP"},
                ]);
            }
            objects.push(pod);
        }
        let mut pod = server(&image, &format!("host{n}"), &member.name, HOST_PORT);
        pod["spec"]["hostNetwork"] = true.into();
        pod["spec"]["dnsPolicy"] = "ClusterFirstWithHostNet".into();
        // A socket of no address answers from the address that is nearest to the pod.
        let listen = format!("--udp-listen-addresses={}", member.addresses.join(","));
        let arguments = pod["spec"]["containers"][0]["args"].as_array_mut();
        arguments.into_iter().for_each(|arguments| arguments.push(listen.clone().into()));
        pod["spec"]["containers"][0]["readinessProbe"] = http_probe(HOST_PORT);
        objects.push(pod);
    }
    objects.extend(probed(&image, &members[0].name));
    // The server is on the last node: a way there from the first one leaves it.
    let last = format!("pod{}a", members.len());
    let policy = if view.families() == 2 { "RequireDualStack" } else { "SingleStack" };
    let service = |name: &str, pod: &str, node_port| service(name, pod, policy, node_port);
    objects.push(service("remote", &last, None));
    objects.push(service("local", "pod1b", None));
    objects.push(service("port", &last, Some(NODE_PORT)));
    let mut of_its_node = service("port-of-its-node", &last, Some(LOCAL_NODE_PORT));
    of_its_node["spec"]["externalTrafficPolicy"] = "Local".into();
    objects.push(of_its_node);
    Ok(objects)
}

fn server(image: &str, name: &str, node: &str, port: u16) -> Value {
    let arguments =
        ["netexec", &format!("--http-port={port}"), &format!("--udp-port={}", port + 1)];
    pod(image, name, node, &arguments)
}

fn pod(image: &str, name: &str, node: &str, arguments: &[&str]) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"pod": name}},
        "spec": {
            // Not by the scheduler: a pod whose port is taken shall fail, not move.
            "nodeName": node,
            "terminationGracePeriodSeconds": 1,
            "containers": [{
                "name": "one",
                "image": image,
                "imagePullPolicy": "IfNotPresent",
                "args": arguments,
            }],
        },
    })
}

fn http_probe(port: u16) -> Value {
    json!({"httpGet": {"path": "/healthz", "port": port}, "periodSeconds": 1})
}

/// Pods that are Ready when the kubelet reaches them in other ways than by HTTP.
fn probed(image: &str, node: &str) -> [Value; 3] {
    let mut tcp = server(image, "probe-tcp", node, PORT);
    tcp["spec"]["containers"][0]["readinessProbe"] =
        json!({"tcpSocket": {"port": PORT}, "periodSeconds": 1});
    let command = format!("echo {LOGGED}; exec /agnhost pause");
    let mut exec = pod(image, "probe-exec", node, &[]);
    exec["spec"]["containers"][0]["command"] = json!(["/bin/sh", "-c", command]);
    exec["spec"]["containers"][0]["readinessProbe"] =
        json!({"exec": {"command": ["/bin/sh", "-c", "true"]}, "periodSeconds": 1});
    let mut grpc = pod(image, "probe-grpc", node, &["grpc-health-checking"]);
    grpc["spec"]["containers"][0]["readinessProbe"] =
        json!({"grpc": {"port": 5000}, "periodSeconds": 1});
    [tcp, exec, grpc]
}

fn service(name: &str, pod: &str, policy: &str, node_port: Option<u16>) -> Value {
    let mut http = json!({"name": "http", "port": 80, "targetPort": PORT});
    let mut udp = json!({"name": "udp", "port": 81, "targetPort": PORT + 1, "protocol": "UDP"});
    if let Some(port) = node_port {
        http["nodePort"] = port.into();
        udp["nodePort"] = (port + 1).into();
    }
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "type": if node_port.is_some() { "NodePort" } else { "ClusterIP" },
            "ipFamilyPolicy": policy,
            "selector": {"pod": pod},
            "ports": [http, udp],
        },
    })
}
