//! What every runtime has to get through with containers on two nodes.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tests::cluster::Cluster;
use tests::namespace::Namespace;
use tests::room::Room;
use tests::wait::wait_until;

use super::left::Left;

/// The port of a container's server, and the one of the node that `portmap` publishes it on.
pub(crate) const PORT: u16 = 80;
pub(crate) const PUBLISHED: u16 = 8080;
const SERVED_TIME_MAX: Duration = Duration::from_secs(20);

/// A runtime on a node.
pub(crate) trait Runtime {
    /// Where it runs.
    fn room(&self) -> &Room;
    /// Starts a container with a server that says its name; returns its addresses, IPv4 first.
    fn start(&self, name: &str, publish: bool) -> Result<Vec<IpAddr>>;
    /// Runs a program in a container and returns what it prints.
    fn exec(&self, name: &str, words: &[&str]) -> Result<String>;
    /// Starts the runtime again, its containers alive; or if it is no daemon, the container. Returns the
    /// container's addresses from then on.
    fn restart(&mut self, name: &str) -> Result<Vec<IpAddr>>;
    /// Removes a container.
    fn remove(&self, name: &str) -> Result<()>;
}

/// Start, talk, publish, restart, remove; nothing is left.
pub(crate) fn tell<R: Runtime>(cluster: &Cluster, mut runtimes: [R; 2]) -> Result<()> {
    let before =
        runtimes.each_ref().map(|runtime| Left::now(&runtime.room().node, Some(runtime.room())));
    let names = ["one", "two"];
    let mut addresses = Vec::new();
    for (runtime, name) in runtimes.iter().zip(names) {
        addresses.push(runtime.start(name, name == "one")?);
        ensure!(addresses.iter().all(|all| all.len() == 2), "both families: {addresses:?}");
    }
    talk(cluster, &runtimes, &addresses)?;
    for ((runtime, name), addresses) in runtimes.iter_mut().zip(names).zip(&mut addresses) {
        *addresses = runtime.restart(name)?;
    }
    talk(cluster, &runtimes, &addresses).context("behind the restart")?;
    for ((runtime, name), before) in runtimes.iter().zip(names).zip(before) {
        runtime.remove(name)?;
        before?.wait_for(&runtime.room().node, Some(runtime.room()))?;
    }
    Ok(())
}

fn talk<R: Runtime>(cluster: &Cluster, runtimes: &[R; 2], addresses: &[Vec<IpAddr>]) -> Result<()> {
    for (from, to, name) in [(0, 1, "two"), (1, 0, "one")] {
        let own = ["one", "two"][from];
        for address in &addresses[to] {
            let url = format!("http://{}/", SocketAddr::new(*address, PORT));
            let words = ["wget", "-q", "-O", "-", &url];
            let said = wait_until(&url, SERVED_TIME_MAX, || runtimes[from].exec(own, &words))?;
            ensure!(said.trim() == name, "{own} hears {said:?} from {url}");
        }
    }
    let node = SocketAddr::new(cluster.node(1).addresses[0], PUBLISHED);
    let said = fetch(&cluster.fabric.world, node)?;
    ensure!(said.ends_with("one\n"), "the world hears {said:?} from {node}");
    Ok(())
}

/// What a server of the web says to a client in a namespace.
pub(crate) fn fetch(from: &Namespace, to: SocketAddr) -> Result<String> {
    from.enter(|| {
        let mut stream = TcpStream::connect_timeout(&to, SERVED_TIME_MAX)
            .with_context(|| format!("connect to {to}"))?;
        stream.set_read_timeout(Some(SERVED_TIME_MAX))?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
        let mut said = String::new();
        stream.read_to_string(&mut said)?;
        Ok(said)
    })
}
