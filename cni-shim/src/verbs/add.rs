//! ADD, in the order that leaves what DEL and the agent's sweep find by name, wherever it is killed.

use std::path::{Path, PathBuf};

use crate::agent::{self, AGENT_WAIT_MAX, Question};
use crate::error::{ALREADY_ATTACHED, failure};
use crate::fault;
use crate::grace::Expedited;
use crate::ipam::{self, Given, Ipam};
use crate::kernel::{self, Container, Ends, Made, Netlink, Pair, Program};
use crate::names::{Attachment, BigTcp, Hook, Pins};
use crate::protocol::{AddCall, Added, Call, DelCall, Failure, Reply, Source};
use crate::request::{Config, Environment};
use crate::result::{AddResult, Interface, mac_text};

/// What the steps need.
struct Job {
    attachment: Attachment,
    host_ifname: String,
    network: String,
    netns_path: String,
    container: Container,
    pod: String,
    socket: PathBuf,
    pins: Pins,
    expedite: bool,
    big_tcp: BigTcp,
    ipam: Ipam,
    mac: Option<[u8; 6]>,
    dns: Option<serde_json::Value>,
}

/// How far it got: what there is to undo.
#[derive(Default)]
struct Progress {
    asked: bool,
    leased: bool,
}

/// Attaches an interface to a container.
///
/// 1. Take the lock of the attachment.
/// 2. Make the veth, the pod's end in its namespace, both ends down.
/// 3. Ask the agent, and attach the pinned programs, links pinned, while it works.
/// 4. Take its answer: from then on the pod's addresses are in the map. A delegated plugin is called between two
///    questions.
/// 5. Configure the pod's end.
/// 6. Host end up: before that no packet passes.
pub(crate) fn add(environment: &Environment, config: &Config) -> Result<AddResult, Failure> {
    let (attachment, netns_path) = environment.attachment_in_netns()?;
    let requested = ipam::requested(environment, config)?;
    let ipam = Ipam::new(environment, config, &requested)?;
    let netlink = Netlink::open()?;
    let container = Container::open(Path::new(netns_path), &netlink)?;
    let pod = environment.pod()?;
    let socket = config.socket();
    let lock = crate::lock::take(&attachment, &socket)?; // 1
    if matches!(ipam, Ipam::Delegate(_)) {
        crate::lock::share_with_children(&lock)?;
    }
    fault::done(fault::LOCKED);
    let file = agent::plugin_file(&socket)?;
    let job = Job {
        host_ifname: attachment.host_ifname(),
        network: config.name().to_owned(),
        pins: Pins(file.bpffs),
        expedite: file.expedite,
        big_tcp: file.big_tcp,
        attachment,
        netns_path: netns_path.to_owned(),
        container,
        pod,
        socket,
        ipam,
        mac: requested.mac,
        dns: config.dns.clone(),
    };
    let ifname = &job.attachment.ifname;
    let ends = Ends { host: &job.host_ifname, pod: ifname, container: &job.container };
    let pair = match netlink.make_pair(&ends, job.mac, job.big_tcp)? {
        Made::Pair(pair) => pair, // 2
        // Nothing was made, and what is there is not for us to remove.
        Made::Exists => return Err(existing(&job, &netlink)?),
    };
    fault::done(fault::LINK_MADE);
    let mut progress = Progress::default();
    attach(&job, &netlink, &pair, &mut progress)
        .map_err(|error| undo(&job, &netlink, &progress, error))
}

/// Says which end is there already.
fn existing(job: &Job, netlink: &Netlink) -> Result<Failure, Failure> {
    Ok(if netlink.link(&job.host_ifname)?.is_some() {
        failure(
            ALREADY_ATTACHED,
            format!("{} is attached already", job.attachment.ifname),
            format!("its host side is {}: DEL first", job.host_ifname),
        )
    } else {
        failure(
            ALREADY_ATTACHED,
            format!("{} exists in the container", job.attachment.ifname),
            format!("in {}; it is not ours", job.netns_path),
        )
    })
}

fn attach(
    job: &Job,
    netlink: &Netlink,
    pair: &Pair,
    progress: &mut Progress,
) -> Result<AddResult, Failure> {
    let (ifname, host_ifname) = (&job.attachment.ifname, &job.host_ifname);
    netlink.name_host_end(host_ifname, pair, &job.alias())?;
    fault::done(fault::LINK_NAMED);
    let programs = [Hook::Ingress, Hook::Egress].map(|hook| kernel::open_program(&job.pins, hook));
    let [ingress, egress] = programs;
    let (ingress, egress) = (ingress?, egress?);
    let call = |source| job.call(pair, [ingress.id, egress.id], source);
    progress.asked = true;
    let question = Question::send(&job.socket, call(job.ipam.first_source()?)); // 3
    fault::done(fault::ASKED);
    let attached = job.attach(pair, &ingress, &egress);
    // It is heard whatever comes: what undoes it must not overtake it.
    let answer = question.answer(AGENT_WAIT_MAX);
    attached?;
    let ask = |source| added(agent::ask(&job.socket, call(source), AGENT_WAIT_MAX)?);
    let given = job.ipam.obtain(added(answer?)?, ask, &mut progress.leased)?; // 4
    let given = if job.big_tcp.ipv6.is_some() { given.with_room_for_jumbograms() } else { given };
    fault::done(fault::ANSWERED);
    let (held, inside) = job.container.inside(|inside| {
        let Given { addresses, routes, mtu, .. } = &given;
        Ok((inside.configure_pod(ifname, pair, addresses, routes, *mtu)?, inside)) // 5
    })?;
    netlink.host_end_up(pair, given.mtu)?; // 6
    fault::done(fault::HOST_UP);
    inside.wait_until_operational(ifname)?;
    inside.wait_until_local(&given.addresses)?;
    let host = Interface {
        name: job.host_ifname.clone(),
        mac: mac_text(pair.host_mac),
        sandbox: String::new(),
        mtu: Some(given.mtu),
    };
    let pod = Interface {
        name: ifname.clone(),
        mac: mac_text(pair.pod_mac),
        sandbox: job.netns_path.clone(),
        mtu: Some(given.mtu),
    };
    let dns = job.dns.as_ref().filter(|dns| dns.as_object().is_some_and(|dns| !dns.is_empty()));
    let result = AddResult::new(host, pod, &given.addresses);
    Ok(result.with(&held, dns.unwrap_or(&given.dns)))
}

/// Undoes the steps; what cannot be undone is said beside the error. The interface goes first: an address
/// is not given back while somebody has it.
fn undo(job: &Job, netlink: &Netlink, progress: &Progress, mut error: Failure) -> Failure {
    let mut failed = Vec::new();
    let expedited = Expedited::begin(job.expedite);
    let removed = netlink.remove(&job.host_ifname);
    drop(expedited);
    if let Err(error) = &removed {
        failed.push(format!("remove {} ({error})", job.host_ifname));
    }
    let mut lease_freed = false;
    if progress.leased && removed.is_ok() {
        match job.ipam.give_back() {
            Ok(()) => lease_freed = true,
            Err(error) => {
                failed.push(format!("give the lease back ({error}); the agent will try again"));
            }
        }
    }
    if progress.asked {
        let call = Call::Del(DelCall { attachment: job.attachment.clone(), lease_freed });
        if let Err(error) = agent::ask(&job.socket, call, std::time::Duration::ZERO) {
            failed.push(format!("release the addresses ({error}); the agent will, within minutes"));
        }
    }
    if let Err(error) = kernel::remove_link_pins(&job.pins, &job.host_ifname) {
        failed.push(error.to_string());
    }
    if !failed.is_empty() {
        error.details = format!("{}; and undoing failed: {}", error.details, failed.join("; "));
    }
    error
}

impl Job {
    /// What `ip link` shows people.
    fn alias(&self) -> String {
        let who = if self.pod.is_empty() { &self.attachment.container_id } else { &self.pod };
        self.attachment.alias(&self.network, who)
    }

    fn attach(&self, pair: &Pair, ingress: &Program, egress: &Program) -> Result<(), Failure> {
        let _expedited = Expedited::begin(self.expedite);
        kernel::attach(&self.pins, ingress, &self.host_ifname, pair.host_ifindex)?;
        fault::done(fault::INGRESS);
        kernel::attach(&self.pins, egress, &self.host_ifname, pair.host_ifindex)?;
        fault::done(fault::EGRESS);
        Ok(())
    }

    fn call(&self, pair: &Pair, program_ids: [u32; 2], source: Source) -> Call {
        Call::Add(Box::new(AddCall {
            attachment: self.attachment.clone(),
            network: self.network.clone(),
            netns: self.netns_path.clone(),
            pod: self.pod.clone(),
            ifindex: pair.host_ifindex,
            host_mac: pair.host_mac,
            pod_mac: pair.pod_mac,
            program_ids,
            source,
        }))
    }
}

fn added(reply: Reply) -> Result<Added, Failure> {
    if let Reply::Added(added) = reply { Ok(added) } else { Err(agent::unfit(&reply)) }
}
