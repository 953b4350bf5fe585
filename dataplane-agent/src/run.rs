//! `podwire-agent run`: puts the parts together, and takes them apart in order.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use cni_shim::names::BigTcp;
use nix::time::{ClockId, clock_gettime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};

use crate::engine::{Engine, Inputs, Setup, Sourced};
use crate::install::Install;
use crate::kernel::live::preflight::preflight;
use crate::kernel::live::{self, LiveKernel};
use crate::model::Model;
use crate::monitor::{Calls, Listener, Monitor, Vitals};
use crate::presence::Presence;
use crate::server::Server;
use crate::settings::Settings;
use crate::store::{Store, lock_pins, make_directory};

/// What is under way at the end has this long.
const STOP_TIME_MAX: Duration = Duration::from_secs(8);

/// Runs until SIGTERM or SIGINT. The data plane goes on forwarding afterwards.
///
/// # Errors
/// When the agent cannot start: bad input, missing rights, another agent.
pub async fn run(settings: Settings) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;

    let Settings { node_name, nodes, around, expedite, .. } = settings;
    let install = Install::new(around.install.clone(), &around.socket)?;
    let mut source = nodes.open(&node_name, &around.network).await?;
    preflight(&around.bpffs)?;
    let (tell_big_tcp, big_tcp) = watch::channel(BigTcp::default());
    let presence =
        Presence { socket: around.socket.clone(), bpffs: around.bpffs.clone(), expedite, big_tcp };
    make_directory(around.socket.parent().unwrap_or(Path::new("/")))?;
    let store = Store::open(&around.state_dir)?;
    // Before anything is changed: a socket that is in use belongs to an agent of another directory.
    let calls = Calls::default();
    let server = Server::bind(&around.socket)?.counted(calls.clone());
    let listener = around.listen.map(Listener::bind).transpose()?;
    let (vitals, seen) = watch::channel(Vitals::starting());
    let monitor = Arc::new(Monitor::new(seen, calls));
    let serve = |listener: Listener| listener.serve(Arc::clone(&monitor));
    let _served = listener.map(serve).transpose().context("cannot serve health and metrics")?;

    let _pins = lock_pins(&around.bpffs)?;
    let kernel = LiveKernel::open(&around.bpffs, expedite)?.with_sysctls(&around.sysctl_dir);
    monitor.count(kernel.counter_reader()?);
    let events = kernel.watch()?;
    let setup = Setup {
        model: Model {
            network: around.network.clone(),
            own_name: node_name.clone(),
            nodes: std::mem::take(&mut source.known.nodes),
            ..Model::default()
        },
        sourced: Sourced::new(&source.known, &source.origin),
        store,
        socket: around.socket.clone(),
        boot_time_ns: boot_time_ns(),
        host_problems: live::problems,
        install_problems: install.problems(),
        vitals,
        big_tcp: tell_big_tcp,
    };
    let mut engine = Engine::start(kernel, setup).await?;
    engine.reconcile().await;
    presence.make()?;
    presence.write_plugin_file()?;
    tracing::info!(node = node_name, socket = %around.socket.display(), "ready");

    let (to_engine, commands) = mpsc::channel(64);
    let (to_nodes, nodes) = mpsc::channel(1);
    let (stopper, stop) = oneshot::channel();
    let readiness = engine.readiness();
    let installed = tokio::spawn(install.keep(engine.readiness()));
    let follow = tokio::spawn(source.follow(to_nodes, readiness));
    let mut work = std::pin::pin!(engine.run(Inputs { commands, events, nodes, stop }));
    let mut ended = false;
    tokio::select! {
        () = &mut work => ended = true,
        () = presence.keep(server, to_engine) => {}
        _ = terminate.recv() => tracing::info!("SIGTERM"),
        _ = interrupt.recv() => tracing::info!("SIGINT"),
    }

    // No new requests: the socket went with what kept it. Those that wait get no reply, and the plugin
    // asks the next agent.
    let _ = stopper.send(());
    if !ended && tokio::time::timeout(STOP_TIME_MAX, work).await.is_err() {
        tracing::warn!("the last step did not end within {} s", STOP_TIME_MAX.as_secs());
    }
    follow.abort();
    installed.abort();
    tracing::info!("stopped; pods keep their network");
    Ok(())
}

fn boot_time_ns() -> u64 {
    // Every kernel that has our programs has this clock; 0 is still right if files are there.
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}
