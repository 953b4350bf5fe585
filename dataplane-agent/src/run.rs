//! `podwire-agent run`: puts the parts together, and takes them apart in order.

use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use cni_shim::names::{PLUGIN_FILE, PluginFile, beside};
use cni_shim::protocol::PROTOCOL_VERSION;
use nix::time::{ClockId, clock_gettime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use crate::engine::{Engine, Inputs, Setup};
use crate::kernel::live::{self, LiveKernel};
use crate::model::Model;
use crate::nodes;
use crate::server::Server;
use crate::settings::Settings;
use crate::store::{Store, lock_pins, make_directory, make_plugin_locks, write_whole};

/// `status` and the plugin tell from the age of the plugin file how long the agent has been away.
const SIGN_OF_LIFE_EVERY: Duration = Duration::from_secs(5);
/// What is under way at the end has this long.
const STOP_TIME_MAX: Duration = Duration::from_secs(8);

/// Runs until SIGTERM or SIGINT. The data plane goes on forwarding afterwards.
///
/// # Errors
/// When the agent cannot start: bad input, missing rights, another agent.
pub async fn run(settings: Settings) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;

    let nodes = nodes::read(&settings.nodes_file, &settings.node_name, &settings.network)?;
    live::preflight(&settings.bpffs)?;
    let directory = settings.socket.parent().unwrap_or(Path::new("/"));
    make_directory(directory)?;
    let store = Store::open(&settings.state_dir)?;
    // Before anything is changed: a socket that is in use belongs to an agent of another directory.
    let server = Server::bind(&settings.socket)?;

    let _pins = lock_pins(&settings.bpffs)?;
    let kernel = LiveKernel::open(&settings.bpffs)?;
    let events = live::watch()?;
    let network = settings.network.clone();
    let setup = Setup {
        model: Model {
            network: network.clone(),
            own_name: settings.node_name.clone(),
            nodes,
            ..Model::default()
        },
        store,
        socket: settings.socket.clone(),
        boot_time_ns: boot_time_ns(),
        host_problems: live::problems,
    };
    let mut engine = Engine::start(kernel, setup).await?;
    engine.reconcile().await;
    make_plugin_locks(&settings.socket)?;
    write_plugin_file(&settings)?;
    tracing::info!(node = settings.node_name, socket = %settings.socket.display(), "ready");

    let (to_engine, commands) = mpsc::channel(64);
    let (to_nodes, nodes) = mpsc::channel(1);
    let (stopper, stop) = oneshot::channel();
    let follow =
        nodes::follow::follow(settings.nodes_file.clone(), settings.node_name, network, to_nodes);
    let follow = tokio::spawn(follow);
    let mut work = std::pin::pin!(engine.run(Inputs { commands, events, nodes, stop }));
    let mut ended = false;
    tokio::select! {
        () = &mut work => ended = true,
        () = server.serve(to_engine) => {}
        () = show_signs_of_life(&settings.socket) => {}
        _ = terminate.recv() => tracing::info!("SIGTERM"),
        _ = interrupt.recv() => tracing::info!("SIGINT"),
    }

    // No new requests; those that wait get no reply and try again.
    drop(server);
    let _ = stopper.send(());
    if !ended && tokio::time::timeout(STOP_TIME_MAX, work).await.is_err() {
        tracing::warn!("the last step did not end within {} s", STOP_TIME_MAX.as_secs());
    }
    follow.abort();
    tracing::info!("stopped; pods keep their network");
    Ok(())
}

fn write_plugin_file(settings: &Settings) -> Result<()> {
    let content = PluginFile { protocol: PROTOCOL_VERSION, bpffs: settings.bpffs.clone() };
    write_whole(&beside(&settings.socket, PLUGIN_FILE), &serde_json::to_vec(&content)?)?;
    Ok(())
}

async fn show_signs_of_life(socket: &Path) {
    let file = beside(socket, PLUGIN_FILE);
    loop {
        tokio::time::sleep(SIGN_OF_LIFE_EVERY).await;
        let touched = std::fs::File::options()
            .write(true)
            .open(&file)
            .and_then(|file| file.set_modified(SystemTime::now()));
        if let Err(error) = touched {
            tracing::warn!(%error, file = %file.display(), "cannot be touched");
        }
    }
}

fn boot_time_ns() -> u64 {
    // Every kernel that has our programs has this clock; 0 is still right if files are there.
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}
