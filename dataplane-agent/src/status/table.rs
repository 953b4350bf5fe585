//! The status for people.

use std::fmt::{Display, Write as _};

use comfy_table::{Table, presets};

use super::{SourceStatus, Status};

/// The document as tables. Counters at zero are left out.
pub fn render(status: &Status) -> String {
    let mut out = String::new();
    let state = if status.settled { "as it should be" } else { "NOT as it should be" };
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "podwire-agent {} (process {}, map layout {}): the data plane is {state}",
        status.version, status.pid, status.abi_version
    );
    if let Some(source) = &status.source {
        let _ = writeln!(out, "{}", line_of(source));
    }
    if let Some(big_tcp) = &status.node.big_tcp {
        let _ = writeln!(out, "BIG TCP: {big_tcp}");
    }
    section(&mut out, "Node", &node(status));
    section(&mut out, "Pods", &pods(status));
    section(&mut out, "Peers", &peers(status));
    section(&mut out, "Programs", &programs(status));
    section(&mut out, "Counters", &counters(status));
    if !status.drift.is_empty() {
        let mut table = new(&["changed by somebody else", "times put back"]);
        for (kind, count) in &status.drift {
            table.add_row([kind.clone(), count.to_string()]);
        }
        section(&mut out, "Drift", &table);
    }
    out.push_str("\nProblems\n");
    if status.problems.is_empty() {
        out.push_str("  none\n");
    }
    for problem in &status.problems {
        let _ = writeln!(out, "  - {}", problem.replace('\n', "\n    "));
    }
    out
}

fn line_of(source: &SourceStatus) -> String {
    let SourceStatus { name, nodes, current, age_seconds, .. } = source;
    let age = if *current { "as of now".to_owned() } else { format!("as of {age_seconds} s ago") };
    format!("{nodes} nodes from {name}, {age}")
}

fn section(out: &mut String, title: &str, table: &Table) {
    let _ = writeln!(out, "\n{title}");
    if table.row_count() == 0 {
        out.push_str("  none\n");
        return;
    }
    for line in table.to_string().lines() {
        let _ = writeln!(out, "  {}", line.trim_end());
    }
}

fn new(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header.iter().map(|title| title.to_uppercase()));
    if let Some(first) = table.column_mut(0) {
        first.set_padding((0, 1));
    }
    table
}

fn join<T: Display>(list: &[T]) -> String {
    list.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn node(status: &Status) -> Table {
    let node = &status.node;
    let mut table = new(&["name", "addresses", "mode", "uplinks", "pod mtu", "pool", "used", "of"]);
    for (at, pool) in status.pools.iter().enumerate() {
        let once = |text: String| if at == 0 { text } else { String::new() };
        table.add_row([
            once(node.name.clone()),
            once(join(&node.addresses)),
            once(format!("{:?}", node.encapsulation).to_lowercase()),
            once(join(&node.uplinks)),
            once(node.pod_mtu.to_string()),
            pool.cidr.to_string(),
            pool.used.to_string(),
            pool.capacity.to_string(),
        ]);
    }
    table
}

fn pods(status: &Status) -> Table {
    let mut table = new(&["interface", "index", "addresses", "container", "name", "pod"]);
    for pod in &status.pods {
        let gone = if pod.present { "" } else { " (gone)" };
        let container: String = pod.container_id.chars().take(13).collect();
        table.add_row([
            format!("{}{gone}", pod.interface),
            pod.ifindex.to_string(),
            join(&pod.addresses),
            container,
            pod.ifname.clone(),
            pod.pod.clone(),
        ]);
    }
    table
}

fn peers(status: &Status) -> Table {
    let mut table = new(&["name", "pod network", "way", "node", "mtu"]);
    for peer in &status.peers {
        for way in &peer.ways {
            table.add_row([
                peer.name.clone(),
                way.cidr.to_string(),
                way.way.clone(),
                way.node.map(|node| node.to_string()).unwrap_or_default(),
                way.mtu.to_string(),
            ]);
        }
    }
    table
}

fn programs(status: &Status) -> Table {
    let mut table = new(&["name", "id"]);
    for program in &status.programs {
        table.add_row([program.name.clone(), program.id.to_string()]);
    }
    table
}

fn counters(status: &Status) -> Table {
    let mut table = new(&["kind", "name", "packets", "bytes", "meaning"]);
    for counter in status.counters.iter().filter(|counter| counter.packets > 0) {
        table.add_row([
            counter.kind.clone(),
            counter.name.clone(),
            counter.packets.to_string(),
            counter.bytes.to_string(),
            counter.help.clone(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_what_there_is_and_leaves_out_zeros() {
        let counter = |name: &str, packets| {
            serde_json::json!({
                "number": 1, "name": name, "kind": "path", "packets": packets, "bytes": 1, "help": "h."
            })
        };
        let status = serde_json::json!({
            "version": "0.1.0", "pid": 7, "abiVersion": 1, "settled": true,
            "source": { "name": "the node file n", "nodes": 2, "current": false, "ageSeconds": 90 },
            "node": {
                "name": "a", "addresses": ["192.168.1.11"], "podCidrs": ["10.244.1.0/24"],
                "clusterCidrs": ["10.244.0.0/16"], "encapsulation": "auto", "uplinks": ["eth0"],
                "podMtu": 1450, "bigTcp": { "ipv6": 200000, "why": "eth0 takes it" }
            },
            "pools": [{ "cidr": "10.244.1.0/24", "used": 1, "capacity": 253 }],
            "pods": [],
            "peers": [{ "name": "b", "addresses": ["192.168.1.12"], "ways": [
                { "cidr": "10.244.2.0/24", "way": "direct", "node": "192.168.1.12", "mtu": 1500 }
            ] }],
            "programs": [{ "name": "pw_from_pod", "id": 42 }],
            "counters": [counter("pod_to_pod", 3), counter("pod_to_host", 0)],
            "drift": { "route": 2 },
            "problems": ["first\nsecond line"]
        });
        let text = render(&serde_json::from_value(status).unwrap());
        for part in ["process 7", "10.244.1.0/24", "pw_from_pod", "pod_to_pod", "Pods\n  none"] {
            assert!(text.contains(part), "{part} in:\n{text}");
        }
        assert!(text.contains("\n2 nodes from the node file n, as of 90 s ago\n"), "{text}");
        assert!(text.contains("\nBIG TCP: 200000 bytes of IPv6, eth0 takes it\n"), "{text}");
        assert!(text.contains("\n  - first\n    second line\n"), "{text}");
        assert!(text.contains("  route") && !text.contains("pod_to_host"), "{text}");
    }
}
