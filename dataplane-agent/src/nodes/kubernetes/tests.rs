//! What becomes of what an API server does.

mod server;

use std::path::Path;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::timeout;

use self::server::{Asked, Server, node, status};
use super::*;

const TIME_MAX: Duration = Duration::from_secs(20);

/// A follower, and what it tells.
struct Followed {
    task: JoinHandle<()>,
    news: mpsc::Receiver<News>,
    readiness: watch::Sender<Readiness>,
    directory: tempfile::TempDir,
}

fn follower(server: &Server, directory: &Path) -> Follower {
    Follower::with(server.client(), directory, "a", &Network::default())
}

impl Followed {
    fn start(server: &Server) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (to, news) = mpsc::channel(1);
        let readiness = watch::Sender::default();
        let following = follower(server, directory.path()).follow(to, readiness.subscribe());
        Self { task: tokio::spawn(following), news, readiness, directory }
    }

    /// With the nodes `a` and `b` told.
    async fn with_two(server: &mut Server) -> (Self, Asked) {
        let mut followed = Self::start(server);
        let watch = server.list(&[node('a', 5, ""), node('b', 6, "")], 7).await;
        assert_eq!(followed.names().await, "a b");
        (followed, watch)
    }

    async fn next(&mut self) -> News {
        timeout(TIME_MAX, self.news.recv()).await.unwrap().unwrap()
    }

    /// The names of the nodes that are told next.
    async fn names(&mut self) -> String {
        let News::Nodes(known) = self.next().await else { panic!("not about nodes") };
        let names: Vec<String> = known.nodes.iter().map(|node| node.name.clone()).collect();
        names.join(" ")
    }

    async fn trouble(&mut self) -> String {
        match self.next().await {
            News::Trouble(why) => why,
            News::Nodes(_) | News::Current => panic!("no trouble"),
        }
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test]
async fn nodes_are_added_changed_and_deleted() {
    let mut server = Server::start().await;
    let (mut followed, mut watch) = Followed::with_two(&mut server).await;
    watch.event("ADDED", &node('c', 8, "")).await;
    assert_eq!(followed.names().await, "a b c");
    watch.event("MODIFIED", &node('c', 9, "").replace("192.168.1.13", "192.168.9.13")).await;
    let News::Nodes(known) = followed.next().await else { panic!() };
    assert_eq!(known.nodes[2].addresses, ["192.168.9.13".parse::<std::net::IpAddr>().unwrap()]);
    // A heartbeat is no news.
    watch.event("MODIFIED", &node('b', 10, "")).await;
    watch.event("DELETED", &node('c', 11, "")).await;
    assert_eq!(followed.names().await, "a b");
    // Under the same name, with another network.
    watch.event("DELETED", &node('b', 12, "")).await;
    assert_eq!(followed.names().await, "a");
    watch.event("ADDED", &node('b', 13, "").replace("10.244.2.", "10.244.22.")).await;
    let News::Nodes(known) = followed.next().await else { panic!() };
    assert_eq!(known.nodes[1].pod_cidrs[0].to_string(), "10.244.22.0/24");
}

#[tokio::test]
async fn this_node_waits_for_its_network_and_is_deleted() {
    let mut server = Server::start().await;
    let mut followed = Followed::start(&server);
    let young = node('a', 5, "").replace("\"10.244.1.0/24\"", "");
    let mut watch = server.list(&[young, node('b', 6, "")], 7).await;
    let News::Nodes(known) = followed.next().await else { panic!() };
    assert!(known.waiting.unwrap().contains("no pod network yet"));
    watch.event("MODIFIED", &node('a', 8, "")).await;
    let News::Nodes(known) = followed.next().await else { panic!() };
    assert_eq!((known.waiting, known.nodes.len()), (None, 2));
    watch.event("DELETED", &node('a', 9, "")).await;
    let News::Nodes(known) = followed.next().await else { panic!() };
    assert!(known.waiting.unwrap().contains("was deleted"));
    assert_eq!(known.nodes.len(), 2, "its pods keep their network");
}

#[tokio::test]
async fn a_watch_that_ends_goes_on_where_it_ended() {
    let mut server = Server::start().await;
    let (mut followed, mut watch) = Followed::with_two(&mut server).await;
    watch.bookmark(20, "").await;
    watch.end().await;
    let mut watch = server.asked(&["watch=true", "resourceVersion=20"]).await;
    assert!(!watch.line.contains("sendInitialEvents"), "{}", watch.line);
    watch.begin(200).await;
    watch.event("ADDED", &node('c', 21, "")).await;
    assert_eq!(followed.names().await, "a b c");
    // Broken off in the middle of a line.
    drop(watch);
    let mut watch = server.asked(&["watch=true", "resourceVersion=21"]).await;
    watch.begin(200).await;
    watch.event("DELETED", &node('c', 22, "")).await;
    assert_eq!(followed.names().await, "a b");
}

#[tokio::test]
async fn a_server_that_is_away_costs_nothing_but_news() {
    let mut server = Server::start().await;
    let (mut followed, watch) = Followed::with_two(&mut server).await;
    let mut server = server
        .restart_after(async {
            drop(watch);
            let why = followed.trouble().await;
            assert!(why.contains("Connection refused"), "{why}");
        })
        .await;
    let mut watch = server.asked(&["watch=true", "resourceVersion=7"]).await;
    watch.begin(200).await;
    // Without any change, it is known to be as new as can be.
    assert_eq!(followed.next().await, News::Current);
    watch.event("ADDED", &node('c', 8, "")).await;
    assert_eq!(followed.names().await, "a b c");
}

#[tokio::test]
async fn what_happened_too_long_ago_is_listed_again() {
    let mut server = Server::start().await;
    let (mut followed, mut watch) = Followed::with_two(&mut server).await;
    watch.event("ERROR", &status(410, "too old resource version")).await;
    assert!(followed.trouble().await.contains("it answers 410: too old"));
    let _watch = server.list(&[node('a', 5, ""), node('c', 30, "")], 31).await;
    assert_eq!(followed.names().await, "a c");
}

#[tokio::test]
async fn garbage_is_said_and_made_up_for() {
    let mut server = Server::start().await;
    let (mut followed, mut watch) = Followed::with_two(&mut server).await;
    watch.event("MODIFIED", r#"{ "metadata": { "name": 5 }, "spec": [] }"#).await;
    assert!(followed.trouble().await.contains("neither a node nor an error"));
    let mut watch = server.list(&[node('a', 5, ""), node('c', 30, "")], 31).await;
    assert_eq!(followed.names().await, "a c");
    watch.line("<html>a proxy</html>").await;
    followed.trouble().await;
    let asked = server.asked(&["sendInitialEvents=true"]).await;
    asked.answer(200, "<html>a proxy</html>").await;
    let _watch = server.list(&[node('a', 5, ""), node('b', 6, "")], 40).await;
    let mut news = followed.next().await;
    while matches!(news, News::Trouble(_)) {
        news = followed.next().await;
    }
    let News::Nodes(known) = news else { panic!() };
    assert_eq!(known.nodes[1].name, "b");
}

#[tokio::test]
async fn a_server_that_does_not_stream_lists_is_asked_for_pages() {
    for (code, why) in [
        (422, "sendInitialEvents is forbidden for watch"),
        (500, "the required storage feature RequestWatchProgress is disabled"),
    ] {
        pages_after(code, why).await;
    }
}

/// A list with one node.
fn page(node: &str, more: &str) -> String {
    format!(
        r#"{{ "kind": "NodeList", "apiVersion": "v1",
              "metadata": {{ "resourceVersion": "50"{more} }}, "items": [{node}] }}"#
    )
}

async fn pages_after(code: u16, why: &str) {
    let mut server = Server::start().await;
    let mut followed = Followed::start(&server);
    let asked = server.asked(&["sendInitialEvents=true"]).await;
    asked.refuse(code, why).await;
    let asked = server.asked(&["/api/v1/nodes?", "limit=50"]).await;
    asked.answer(200, &page(&node('a', 5, ""), r#", "continue": "next""#)).await;
    let asked = server.asked(&["limit=50", "continue=next"]).await;
    asked.answer(200, &page(&node('b', 6, ""), "")).await;
    assert_eq!(followed.names().await, "a b");
    let mut watch = server.asked(&["watch=true", "resourceVersion=50"]).await;
    watch.begin(200).await;
    watch.event("ADDED", &node('c', 51, "")).await;
    assert_eq!(followed.names().await, "a b c");
    // It may have been updated, or its etcd.
    watch.event("ERROR", &status(410, "too old resource version")).await;
    followed.trouble().await;
    let _watch = server.list(&[node('a', 5, ""), node('c', 51, "")], 60).await;
    assert_eq!(followed.names().await, "a c");
}

#[tokio::test]
async fn an_error_of_a_server_that_streams_lists_changes_nothing() {
    let mut server = Server::start().await;
    let mut followed = Followed::start(&server);
    let asked = server.asked(&["sendInitialEvents=true"]).await;
    asked.refuse(500, "etcdserver: leader changed").await;
    assert!(followed.trouble().await.contains("leader changed"));
    let _watch = server.list(&[node('a', 5, "")], 7).await;
    assert_eq!(followed.names().await, "a");
}

#[tokio::test]
async fn a_server_that_is_stuck_is_given_up() {
    let mut server = Server::start().await;
    let mut followed = Followed::start(&server);
    let mut stuck = server.asked(&["sendInitialEvents=true"]).await;
    stuck.begin(200).await;
    stuck.event("ADDED", &node('a', 5, "")).await;
    assert!(followed.trouble().await.contains("no complete list of nodes"));
    // It may be one that does not know what it was asked for.
    let asked = server.asked(&["limit=50"]).await;
    asked.answer(200, &page(&node('a', 5, ""), "")).await;
    assert_eq!(followed.names().await, "a");
    let mut watch = server.asked(&["watch=true", "resourceVersion=50"]).await;
    watch.begin(200).await;
    watch.event("ERROR", &status(410, "too old resource version")).await;
    followed.trouble().await;
    let _watch = server.list(&[node('a', 5, ""), node('c', 51, "")], 60).await;
    assert_eq!(followed.names().await, "a c");
}

#[tokio::test]
async fn nodes_that_are_young_hide_no_node_that_is_wrong() {
    let mut server = Server::start().await;
    let mut followed = Followed::start(&server);
    let young = |name| node(name, 5, "").replace("\"podCIDRs\"", "\"podcidrs\"");
    let mut nodes: Vec<String> = ('b'..'y').map(young).collect();
    // As that of `a`, which is older.
    nodes.push(node('z', 5, "").replace("10.244.26.0/24", "10.244.1.0/25"));
    nodes.push(node('a', 5, ""));
    let _watch = server.list(&nodes, 7).await;
    let News::Nodes(known) = followed.next().await else { panic!() };
    let [first, .., more] = &known.doubts[..] else { panic!("{:?}", known.doubts) };
    assert!(first.contains("node z: its pod network 10.244.1.0/25 overlaps"), "{first}");
    assert_eq!(more, "and 4 more of this kind");
}

#[tokio::test]
async fn a_list_without_nodes_is_not_believed() {
    let mut server = Server::start().await;
    let (mut followed, mut watch) = Followed::with_two(&mut server).await;
    watch.event("ERROR", &status(410, "gone")).await;
    followed.trouble().await;
    let _empty = server.list(&[], 1).await;
    assert!(followed.trouble().await.contains("no node at all"));
    let _watch = server.list(&[node('a', 5, "")], 2).await;
    assert_eq!(followed.names().await, "a");
}

#[tokio::test]
async fn missing_rights_are_said() {
    let mut server = Server::start().await;
    let mut followed = Followed::start(&server);
    let asked = server.asked(&["sendInitialEvents=true"]).await;
    asked.refuse(403, "nodes is forbidden").await;
    let why = followed.trouble().await;
    assert!(why.contains("403: nodes is forbidden; see the rights in docs/kubernetes.md"), "{why}");
    let asked = server.asked(&["sendInitialEvents=true"]).await;
    asked.refuse(401, "Unauthorized").await;
    assert!(followed.trouble().await.contains("token"));
}

#[tokio::test]
async fn an_agent_that_starts_without_the_server_knows_what_the_last_one_knew() {
    let mut server = Server::start().await;
    let (mut followed, mut watch) = Followed::with_two(&mut server).await;
    let (known, origin) = follower(&server, followed.directory.path()).first();
    assert_eq!((known.nodes.len(), known.waiting), (2, None));
    assert!(origin.silent_since.unwrap().elapsed().unwrap() < Duration::from_secs(60));
    assert!(origin.name.starts_with("the Kubernetes API at http://127.0.0.1:"), "{origin:?}");
    watch.event("ADDED", &node('c', 8, "")).await;
    assert_eq!(followed.names().await, "a b c");

    let empty = tempfile::tempdir().unwrap();
    let (known, origin) = follower(&server, empty.path()).first();
    assert!(known.waiting.unwrap().contains("has not told the nodes yet"));
    assert_eq!((known.nodes.len(), origin.silent_since), (0, None));
    std::fs::write(empty.path().join("nodes.json"), "{").unwrap();
    let (known, _) = follower(&server, empty.path()).first();
    assert!(known.doubts[0].contains("nodes.json: damaged"), "{:?}", known.doubts);
}

#[tokio::test]
async fn many_changes_are_told_together() {
    let mut server = Server::start().await;
    let (mut followed, mut watch) = Followed::with_two(&mut server).await;
    // Nobody takes the news meanwhile but the first.
    for version in 10..200 {
        let third = node('c', version, "").replace("10.244.3.", &format!("10.244.{version}."));
        watch.event("MODIFIED", &third).await;
    }
    watch.event("ADDED", &node('d', 300, "")).await;
    let mut told = 1;
    while followed.names().await != "a b c d" {
        told += 1;
    }
    assert!(told < 100, "told {told} times");
}

#[tokio::test]
async fn the_own_node_object_loses_its_taint_when_pods_can_come() {
    let mut server = Server::start().await;
    let mut followed = Followed::start(&server);
    let taints = r#", "taints": [{ "key": "other", "effect": "NoExecute" },
                                 { "key": "podwire.dev/agent-not-ready", "effect": "NoExecute" }]"#;
    let mut watch = server.list(&[node('a', 5, taints), node('b', 6, taints)], 7).await;
    assert_eq!(followed.names().await, "a b");
    let told = |readiness| followed.readiness.send_replace(readiness);
    told(Readiness::Not("no uplink".to_owned()));
    let event = server.asked(&["POST /apis/events.k8s.io/v1/namespaces/default/events"]).await;
    for part in ["no uplink", "\"Warning\"", "PodNetworkNotReady", "uid-a"] {
        assert!(event.body.contains(part), "{part} in {}", event.body);
    }
    // It has no right to that: the rest goes on.
    event.refuse(403, "events is forbidden").await;
    told(Readiness::Ready);
    server.asked(&["POST /apis/events"]).await.refuse(403, "events is forbidden").await;
    let patch = server.asked(&["PATCH /api/v1/nodes/a?"]).await;
    let want = r#"[{"op":"test","path":"/spec/taints/1/key","value":"podwire.dev/agent-not-ready"},{"op":"remove","path":"/spec/taints/1"}]"#;
    assert_eq!(patch.body, want);
    // Refused once, tried again; then the condition.
    patch.refuse(409, "conflict").await;
    let patch = server.asked(&["PATCH /api/v1/nodes/a?"]).await;
    patch.answer(200, &node('a', 8, "")).await;
    let patch = server.asked(&["PATCH /api/v1/nodes/a/status?"]).await;
    for part in ["NetworkUnavailable", "\"False\"", "lastTransitionTime"] {
        assert!(patch.body.contains(part), "{part} in {}", patch.body);
    }
    patch.answer(200, &node('a', 9, "")).await;
    // What is as it should be is left alone: the next request is the watch again.
    let good = node('a', 10, "").replace(
        "\"addresses\":",
        r#""conditions": [{ "type": "NetworkUnavailable", "status": "False" }], "addresses":"#,
    );
    watch.event("MODIFIED", &good).await;
    assert_eq!(followed.names().await, "a b");
    watch.event("DELETED", &node('b', 11, "")).await;
    assert_eq!(followed.names().await, "a");
    watch.end().await;
    server.asked(&["watch=true", "resourceVersion=11"]).await;
}
