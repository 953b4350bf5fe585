//! The engine at work: what makes it look at the kernel, and how often.

use tokio::task::JoinHandle;

use super::*;

/// An engine that runs, and the ends of what it listens to.
struct Running {
    kernel: FakeKernel,
    commands: mpsc::Sender<Command>,
    events: Option<mpsc::Sender<Event>>,
    stop: oneshot::Sender<()>,
    engine: JoinHandle<()>,
    vitals: watch::Receiver<Vitals>,
    _nodes: mpsc::Sender<crate::nodes::source::News>,
    _directory: TempDir,
}

impl Running {
    async fn new() -> Self {
        let Node { kernel, mut engine, directory: _directory } = Node::new().await;
        let (commands, from_server) = mpsc::channel(1);
        let (events, from_kernel) = mpsc::channel(1);
        let (_nodes, from_file) = mpsc::channel(1);
        let (stop, stopped) = oneshot::channel();
        let inputs =
            Inputs { commands: from_server, events: from_kernel, nodes: from_file, stop: stopped };
        let vitals = engine.vitals.subscribe();
        let engine = tokio::spawn(async move { engine.run(inputs).await });
        Self { kernel, commands, events: Some(events), stop, engine, vitals, _nodes, _directory }
    }

    async fn tell(&self, event: Event) {
        self.events.as_ref().unwrap().send(event).await.unwrap();
    }

    fn remove_route(&self) {
        assert!(self.kernel.lock().observed.state.routes.pop_first().is_some());
    }

    fn routes(&self) -> usize {
        self.kernel.lock().observed.state.routes.len()
    }

    async fn status(&self) -> serde_json::Value {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command { call: Call::Status, reply }).await.unwrap();
        let Reply::Status(status) = answer.await.unwrap() else { panic!() };
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
