//! What the kernel takes for the same things, done barely: no process, no plugin, no agent.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use aya::programs::tc::{SchedClassifierLinkId, TcAttachOptions};
use aya::programs::{LinkOrder, SchedClassifier, TcAttachType};
use cni_shim::grace::Expedited;
use dataplane_core::abi::names::{PROGRAM_FROM_POD, PROGRAM_TO_POD};
use rtnetlink::packet_route::link::{InfoData, InfoKind, InfoVeth};
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, LinkVeth};
use serde_json::{Value, json};
use tests::namespace::Namespace;
use tests::series::Series;
use tokio::runtime::Runtime;

use super::call::{self, millis};
use super::contender::Contender;
use super::rest;

const HOST_END: &str = "bare0";

/// Two namespaces in which interfaces are made and removed.
pub(super) struct Yardstick {
    machine: Namespace,
    pod: Namespace,
    bpffs: PathBuf,
}

/// One round.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Round {
    make: Duration,
    remove: Duration,
    attach: Duration,
    remove_attached: Duration,
    attach_expedited: Duration,
    remove_expedited: Duration,
    process: Duration,
}

/// All rounds, in milliseconds.
#[derive(Clone, Debug, Default)]
pub(super) struct Bare {
    /// A veth pair across two namespaces, both ends up.
    pub(super) make: Series,
    pub(super) remove: Series,
    /// A program on both hooks of an interface.
    pub(super) attach: Series,
    /// The pair, with the programs on it.
    pub(super) remove_attached: Series,
    /// Both with expedited grace periods, as Podwire has them.
    pub(super) attach_expedited: Series,
    pub(super) remove_expedited: Series,
    /// A process of the plugin that does nothing: VERSION.
    pub(super) process: Series,
}

impl Bare {
    pub(super) fn add(&mut self, round: &Round) {
        self.make.0.push(millis(round.make));
        self.remove.0.push(millis(round.remove));
        self.attach.0.push(millis(round.attach));
        self.remove_attached.0.push(millis(round.remove_attached));
        self.attach_expedited.0.push(millis(round.attach_expedited));
        self.remove_expedited.0.push(millis(round.remove_expedited));
        self.process.0.push(millis(round.process));
    }

    /// With names for people.
    pub(super) fn all(&self) -> [(&'static str, &Series); 7] {
        [
            ("start and end of a process of the plugin (VERSION)", &self.process),
            ("veth pair made, both ends up", &self.make),
            ("programs attached to both hooks of an end (TCX)", &self.attach),
            ("the same, grace periods expedited", &self.attach_expedited),
            ("veth pair removed", &self.remove),
            ("veth pair removed, programs on it", &self.remove_attached),
            ("the same, grace periods expedited", &self.remove_expedited),
        ]
    }

    pub(super) fn to_json(&self) -> Value {
        json!({
            "process_ms": self.process.to_json(),
            "make_ms": self.make.to_json(),
            "attach_ms": self.attach.to_json(),
            "remove_ms": self.remove.to_json(),
            "remove_attached_ms": self.remove_attached.to_json(),
            "attach_expedited_ms": self.attach_expedited.to_json(),
            "remove_expedited_ms": self.remove_expedited.to_json(),
        })
    }
}

impl Yardstick {
    /// Makes the namespaces; `bpffs` has the programs.
    ///
    /// # Errors
    /// When they cannot be made.
    pub(super) fn new(name: &str, bpffs: PathBuf) -> Result<Self> {
        let machine = Namespace::new(name, false)?;
        let pod = Namespace::new(&format!("{name}-pod"), false)?;
        Ok(Self { machine, pod, bpffs })
    }

    /// Measures once.
    ///
    /// # Errors
    /// When the kernel refuses something.
    pub(super) fn round(&self, podwire: &Contender) -> Result<Round> {
        rest::wait()?;
        let (mut version, input) = podwire.command("VERSION", &self.pod, &Value::Null);
        let process = call::run(&mut version, &input)?.1.wall;
        let rest = self.machine.enter(|| -> Result<Round> {
            let netlink = Netlink::open()?;
            let inside = self.pod.enter(Netlink::open)?;
            let start = Instant::now();
            netlink.make(&self.pod, &inside)?;
            let make = start.elapsed();
            let remove = netlink.remove()?;
            let (attach, remove_attached) = self.attached(&netlink, &inside, false)?;
            let (attach_expedited, remove_expedited) = self.attached(&netlink, &inside, true)?;
            Ok(Round {
                make,
                remove,
                attach,
                remove_attached,
                attach_expedited,
                remove_expedited,
                process: Duration::ZERO,
            })
        })?;
        Ok(Round { process, ..rest })
    }

    /// What it takes to attach the programs, and to remove the pair with them.
    fn attached(
        &self,
        netlink: &Netlink,
        inside: &Netlink,
        expedite: bool,
    ) -> Result<(Duration, Duration)> {
        netlink.make(&self.pod, inside)?;
        let mut programs = [PROGRAM_FROM_POD, PROGRAM_TO_POD]
            .map(|name| SchedClassifier::from_pin(self.bpffs.join("programs").join(name)));
        let start = Instant::now();
        let expedited = Expedited::begin(expedite);
        // The links live as long as the programs: until the interface is gone.
        for (program, hook) in programs.iter_mut().zip(HOOKS) {
            let program = program.as_mut().map_err(|error| anyhow::anyhow!("{error}"))?;
            attach(program, hook)?;
        }
        drop(expedited);
        let attach = start.elapsed();
        let _expedited = Expedited::begin(expedite);
        Ok((attach, netlink.remove()?))
    }
}

const HOOKS: [TcAttachType; 2] = [TcAttachType::Ingress, TcAttachType::Egress];

fn attach(program: &mut SchedClassifier, hook: TcAttachType) -> Result<SchedClassifierLinkId> {
    let order = TcAttachOptions::TcxOrder(LinkOrder::first());
    program.attach_with_options(HOST_END, hook, order).context("attach a program")
}

/// A netlink socket in the thread's namespace.
struct Netlink {
    runtime: Runtime,
    handle: Handle,
}

impl Netlink {
    fn open() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let guard = runtime.enter();
        let (connection, handle, _) = rtnetlink::new_connection()?;
        drop(guard);
        runtime.spawn(connection);
        Ok(Self { runtime, handle })
    }

    /// Makes the pair, and sets both ends up; `inside` is the pod's side.
    fn make(&self, pod: &Namespace, inside: &Self) -> Result<()> {
        let file = std::fs::File::open(pod.path())?;
        let peer = LinkMessageBuilder::<LinkUnspec>::new()
            .name("eth0")
            .setns_by_fd(std::os::fd::AsRawFd::as_raw_fd(&file))
            .build();
        let message = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
            .name(HOST_END)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .build();
        self.runtime.block_on(self.handle.link().add(message).execute()).context("make a veth")?;
        inside.up("eth0")?;
        self.up(HOST_END)
    }

    fn up(&self, name: &str) -> Result<()> {
        let message = LinkMessageBuilder::<LinkUnspec>::new().name(name).up().build();
        let set = self.runtime.block_on(self.handle.link().set(message).execute());
        set.with_context(|| format!("set {name} up"))
    }

    fn remove(&self) -> Result<Duration> {
        let index = nix::net::if_::if_nametoindex(HOST_END)?;
        let start = Instant::now();
        self.runtime.block_on(self.handle.link().del(index).execute()).context("remove a veth")?;
        Ok(start.elapsed())
    }
}
