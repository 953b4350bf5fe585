//! The engine at work: what makes it look at the kernel, and how often.

use tokio::task::JoinHandle;

use super::*;
use crate::nodes::source::Known;

/// An engine that runs, and the ends of what it listens to.
struct Running {
    kernel: FakeKernel,
    commands: mpsc::Sender<Command>,
    events: Option<mpsc::Sender<Event>>,
    stop: oneshot::Sender<()>,
    engine: JoinHandle<()>,
    vitals: watch::Receiver<Vitals>,
    nodes: mpsc::Sender<News>,
    _directory: TempDir,
}

impl Running {
    async fn new() -> Self {
        let Node { kernel, mut engine, directory: _directory } = Node::new().await;
        let (commands, from_server) = mpsc::channel(1);
        let (events, from_kernel) = mpsc::channel(1);
        let (nodes, from_file) = mpsc::channel(1);
        let (stop, stopped) = oneshot::channel();
        let inputs =
            Inputs { commands: from_server, events: from_kernel, nodes: from_file, stop: stopped };
        let vitals = engine.vitals.subscribe();
        let engine = tokio::spawn(async move { engine.run(inputs).await });
        Self { kernel, commands, events: Some(events), stop, engine, vitals, nodes, _directory }
    }

    async fn tell(&self, event: Event) {
        self.events.as_ref().unwrap().send(event).await.unwrap();
    }

    /// All nodes but one, or all again.
    async fn tell_nodes(&self, all: bool) {
        let mut nodes = fake::model().nodes;
        nodes.truncate(if all { nodes.len() } else { nodes.len() - 1 });
        self.nodes.send(News::Nodes(Known { nodes, ..Known::default() })).await.unwrap();
    }

    fn entries(&self) -> usize {
        self.kernel.lock().observed.state.nodes.len()
    }

    fn remove_route(&self) {
        assert!(self.kernel.lock().observed.state.routes.pop_first().is_some());
    }

    fn routes(&self) -> usize {
        self.kernel.lock().observed.state.routes.len()
    }

    async fn ask(&self, call: Call) -> Reply {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command { call, reply }).await.unwrap();
        answer.await.unwrap()
    }

    async fn status(&self) -> serde_json::Value {
        let Reply::Status(status) = self.ask(Call::Status).await else { panic!() };
        *status
    }

    async fn stop(self) {
        self.stop.send(()).unwrap();
        self.engine.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn runs_on_events_and_on_time() {
    let mut node = Running::new().await;
    node.remove_route();
    node.tell(Event::Changed).await;
    tokio::time::sleep(DEBOUNCE * 3).await;
    assert_eq!(node.routes(), 2);
    node.remove_route();
    tokio::time::sleep(LOOK_EVERY * 2).await;
    assert_eq!(node.routes(), 2);
    assert_eq!(node.status().await["drift"]["route"], 2);
    node.events = None;
    node.remove_route();
    tokio::time::sleep(LOOK_EVERY * 2).await;
    assert_eq!(node.routes(), 2);
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn says_how_it_is_whenever_it_comes_by() {
    let node = Running::new().await;
    tokio::time::sleep(LOOK_EVERY * 10).await;
    node.remove_route();
    tokio::time::sleep(LOOK_EVERY * 2).await;
    {
        let vitals = node.vitals.borrow();
        assert!(vitals.beat.elapsed() <= LOOK_EVERY, "{vitals:?}");
        assert_eq!(vitals.ready, Ok(()));
        assert_eq!(vitals.drift, [("route", 1)].into());
        assert!(vitals.settled > 10 && vitals.failed == 0, "{vitals:?}");
        assert_eq!(vitals.nodes, fake::model().nodes.len());
        assert!(vitals.entries["pw_nodes"] > 0 && vitals.pools.len() == 2, "{vitals:?}");
    }
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn who_is_served_does_not_wait_until_it_says_how_it_is() {
    let mut node = Running::new().await;
    node.status().await;
    tokio::time::sleep(DEBOUNCE * 2).await;
    node.vitals.mark_unchanged();
    for (n, container) in (20..).zip(["c1", "c2"]) {
        let reply = node.ask(Call::Add(Box::new(call(container, n)))).await;
        assert!(matches!(reply, Reply::Added(_)), "{reply:?}");
    }
    assert!(!node.vitals.has_changed().unwrap());
    tokio::time::timeout(DEBOUNCE * 2, node.vitals.changed()).await.unwrap().unwrap();
    assert_eq!(node.vitals.borrow().pods, 2);
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn one_source_of_events_that_ends_is_a_problem_and_the_other_goes_on() {
    let node = Running::new().await;
    node.tell(Event::Lost).await;
    tokio::time::sleep(LOOK_EVERY).await;
    node.remove_route();
    node.tell(Event::Changed).await;
    tokio::time::sleep(DEBOUNCE * 3).await;
    assert_eq!(node.routes(), 2);
    let status = node.status().await;
    assert!(status["problems"][0].as_str().unwrap().contains("events ended"), "{status}");
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_events_is_no_flood_of_looks() {
    let node = Running::new().await;
    let before = node.kernel.lock().looks;
    for _ in 0..2_000 {
        node.tell(Event::Changed).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let looks = node.kernel.lock().looks - before;
    assert!((15..30).contains(&looks), "{looks} looks in 20 s");
    tokio::time::sleep(LOOK_EVERY * 2).await;
    node.remove_route();
    node.tell(Event::Changed).await;
    tokio::time::sleep(DEBOUNCE * 3).await;
    assert_eq!(node.routes(), 2, "soon again after a rest");
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_node_is_reached_before_the_next_look() {
    let node = Running::new().await;
    let all = node.entries();
    node.kernel.lock().slow = Duration::from_secs(1);
    for is_there in [false, true, false, true] {
        // The looks that follow the last change are over, and the one that is due then.
        tokio::time::sleep(Duration::from_secs(4)).await;
        node.tell_nodes(is_there).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(node.entries() == all, is_there, "{} of {all}", node.entries());
    }
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn entries_of_nodes_are_read_in_time_whatever_the_events() {
    let node = Running::new().await;
    let all = node.entries();
    let remove = || {
        let state = &mut node.kernel.lock().observed.state;
        state.nodes = state.nodes.iter().skip(1).collect();
    };
    remove();
    node.remove_route();
    node.tell(Event::Changed).await;
    tokio::time::sleep(DEBOUNCE * 3).await;
    assert_eq!((node.routes(), node.entries()), (2, all - 1), "no event tells of a map");
    for _ in 0..2 * LOOK_EVERY.as_secs() {
        node.tell(Event::Changed).await;
        tokio::time::sleep(LOOK_EVERY / 10).await;
    }
    assert_eq!(node.entries(), all);
    // What is new is put beside it, and what is missing is found all the same.
    remove();
    node.tell_nodes(false).await;
    tokio::time::sleep(LOOK_EVERY + DEBOUNCE * 2).await;
    assert_eq!(node.entries(), all - 4);
    assert_eq!(node.status().await["drift"], serde_json::json!({ "node": 2, "route": 1 }));
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn entries_that_could_not_be_put_are_read_again() {
    let node = Running::new().await;
    let all = node.entries();
    node.kernel.lock().failing.insert("node");
    node.tell_nodes(false).await;
    tokio::time::sleep(DEBOUNCE * 3).await;
    node.kernel.lock().failing.clear();
    node.kernel.lock().observed.state.nodes = Default::default();
    node.tell(Event::Changed).await;
    tokio::time::sleep(LOOK_EVERY / 2).await;
    assert_eq!(node.entries(), all - 4);
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_nodes_is_no_flood_of_looks() {
    let node = Running::new().await;
    let before = node.kernel.lock().looks;
    let all = node.entries();
    for number in 0..2_000 {
        node.tell_nodes(number % 2 == 1).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let looks = node.kernel.lock().looks - before;
    assert!((15..60).contains(&looks), "{looks} looks in 20 s");
    assert_eq!(node.status().await["drift"], serde_json::json!({}), "nobody else did it");
    tokio::time::sleep(DEBOUNCE * 2).await;
    assert_eq!(node.entries(), all);
    node.stop().await;
}
