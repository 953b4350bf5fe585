//! Asks the kernel for its routes to other nodes, all at once, and only when they may have changed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rtnetlink::packet_core::{NLM_F_REQUEST, NetlinkBuffer, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteType, RouteVia,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{AsyncSocket as _, AsyncSocketExt as _, SocketAddr, TokioSocket};
use tokio::time::Instant;

use super::error::Context as _;
use super::route::{Field, ip_of};
use super::watch::Ways;
use crate::kernel::{Hop, KernelError, Link, PeerRoute, PeerRoutes};
use crate::model::is_pod_interface;

/// Questions in one datagram: the answers to them fit into the buffer of a socket.
const BATCH: usize = 64;
/// Where an event was missed, the answer is this old at most.
const AGE_MAX: Duration = Duration::from_secs(30);

/// The answers of the last time.
#[derive(Default)]
pub(super) struct Asked {
    ways: Arc<Ways>,
    last: Option<Last>,
}

struct Last {
    at: Instant,
    version: u64,
    peers: BTreeMap<IpAddr, IpAddr>,
    interfaces: Vec<Link>,
    routes: PeerRoutes,
}

impl Asked {
    pub(super) fn ways(&self) -> Arc<Ways> {
        Arc::clone(&self.ways)
    }

    /// The answers of the last time, if there was one.
    pub(super) fn last(&self) -> Option<PeerRoutes> {
        self.last.as_ref().map(|last| last.routes.clone())
    }

    /// The ways to these addresses, and what of them is in doubt: those are as they were the last time. While nothing
    /// can have changed, only what is new is asked for.
    pub(super) async fn look(
        &mut self,
        peers: &BTreeMap<IpAddr, IpAddr>,
        interfaces: &BTreeMap<String, Link>,
    ) -> Result<(PeerRoutes, Vec<String>), KernelError> {
        // Before the questions: what changes meanwhile is asked again.
        let version = self.ways.version();
        let others = interfaces.values().filter(|link| !is_pod_interface(&link.name));
        let fresh = self.last.as_ref().filter(|last| {
            last.version == version
                && last.at.elapsed() < AGE_MAX
                && last.interfaces.iter().eq(others.clone())
        });
        if let Some(last) = fresh
            && last.peers == *peers
        {
            return Ok((last.routes.clone(), Vec::new()));
        }
        self.ways.set_peers(peers.keys().copied().collect());
        let names: BTreeMap<u32, &str> =
            interfaces.values().map(|link| (link.ifindex, link.name.as_str())).collect();
        let (mut at, mut answers) = (Instant::now(), Answers::default());
        let mut questions: Vec<(IpAddr, IpAddr)> =
            peers.iter().map(|(to, from)| (*to, *from)).collect();
        if let Some(last) = fresh {
            let is_known = |to: &IpAddr, from: &IpAddr| last.peers.get(to) == Some(from);
            questions.retain(|(to, from)| !is_known(to, from));
            let known = last.routes.iter();
            let known =
                known.filter(|(to, _)| peers.get(*to).is_some_and(|from| is_known(to, from)));
            answers.routes = known.map(|(to, route)| (*to, Arc::clone(route))).collect();
            at = last.at;
        }
        let asked = ask_all(&questions, &names, &mut answers).await;
        asked.context(|| "ask for the routes to nodes".to_owned())?;
        let Answers { mut routes, unread } = answers;
        if unread.is_empty() {
            self.last = Some(Last {
                at,
                version,
                peers: peers.clone(),
                interfaces: others.cloned().collect(),
                routes: routes.clone(),
            });
            return Ok((routes, Vec::new()));
        }
        // Nothing is remembered: they are asked again at the next look.
        let before = self.last.as_ref().map(|last| &last.routes);
        let mut doubts = Vec::new();
        for (peer, why) in unread {
            let route = before.and_then(|routes| routes.get(&peer));
            routes.extend(route.map(|route| (peer, route.clone())));
            let what = if route.is_some() { "taken to be what it was" } else { "not known" };
            doubts.push(format!("the route to {peer} cannot be read ({why}): it is {what}"));
        }
        Ok((routes, doubts))
    }
}

/// What the kernel said.
#[derive(Default)]
struct Answers {
    routes: PeerRoutes,
    unread: BTreeMap<IpAddr, String>,
}

/// To one question: a route, none, or what cannot be read.
type Answer = Result<Option<RouteMessage>, String>;

async fn ask_all(
    questions: &[(IpAddr, IpAddr)],
    names: &BTreeMap<u32, &str>,
    all: &mut Answers,
) -> std::io::Result<()> {
    let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
    socket.socket_mut().bind_auto()?;
    let mut known: BTreeSet<Arc<PeerRoute>> = all.routes.values().cloned().collect();
    let mut shared = |route| {
        let same = known.get(&route).map(Arc::clone);
        same.unwrap_or_else(|| {
            let route = Arc::new(route);
            known.insert(Arc::clone(&route));
            route
        })
    };
    for batch in questions.chunks(BATCH) {
        // The entry of the table itself, as it has all next hops.
        let answers = ask(&socket, batch, RouteFlags::FibMatch).await?;
        let mut rest = Vec::new();
        for (question, answer) in batch.iter().zip(answers) {
            match answer.map(|route| route.map(|message| peer_route(&message, names))) {
                Ok(Some(Some(route))) => drop(all.routes.insert(question.0, shared(route))),
                // It names an object with next hops: the kernel chooses one of them.
                Ok(Some(None)) => rest.push(*question),
                Ok(None) => {}
                Err(why) => drop(all.unread.insert(question.0, why)),
            }
        }
        if !rest.is_empty() {
            let answers = ask(&socket, &rest, RouteFlags::empty()).await?;
            for (question, answer) in rest.iter().zip(answers) {
                match answer.map(|route| route.and_then(|message| peer_route(&message, names))) {
                    Ok(route) => {
                        all.routes.extend(route.map(|route| (question.0, shared(route))));
                    }
                    Err(why) => drop(all.unread.insert(question.0, why)),
                }
            }
        }
    }
    Ok(())
}

/// The answers in the order of the questions. The kernel gives one to each, if only an error.
async fn ask(
    socket: &TokioSocket,
    batch: &[(IpAddr, IpAddr)],
    flags: RouteFlags,
) -> std::io::Result<Vec<Answer>> {
    let mut bytes = Vec::new();
    for (number, (to, from)) in (1..).zip(batch) {
        let mut message = NetlinkMessage::from(RouteNetlinkMessage::GetRoute(question(*to, *from)));
        if let NetlinkPayload::InnerMessage(RouteNetlinkMessage::GetRoute(route)) =
            &mut message.payload
        {
            route.header.flags = flags;
        }
        message.header.flags = NLM_F_REQUEST;
        message.header.sequence_number = number;
        message.finalize();
        let start = bytes.len();
        bytes.resize(start.saturating_add(message.buffer_len()), 0);
        message.serialize(bytes.get_mut(start..).unwrap_or_default());
    }
    socket.send_to(&bytes, &SocketAddr::new(0, 0)).await?;
    let mut answers = vec![Ok(None); batch.len()];
    for _ in 0..batch.len() {
        let (bytes, _) = socket.recv_from_full().await?;
        let (number, answer) = read(&bytes)?;
        if let Some(slot) = number.checked_sub(1).and_then(|index| answers.get_mut(index)) {
            *slot = answer;
        }
    }
    Ok(answers)
}

/// The number of a question and the answer to it. Without a number nobody knows what is answered.
fn read(bytes: &[u8]) -> std::io::Result<(usize, Answer)> {
    let header = NetlinkBuffer::new_checked(&bytes).map_err(std::io::Error::other)?;
    let number = header.sequence_number() as usize;
    let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes);
    let answer = message.map(|message| unicast(message.payload)).map_err(|error| error.to_string());
    Ok((number, answer))
}

fn unicast(payload: NetlinkPayload<RouteNetlinkMessage>) -> Option<RouteMessage> {
    let NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(route)) = payload else {
        return None;
    };
    (route.header.kind == RouteType::Unicast).then_some(route)
}

fn question(to: IpAddr, from: IpAddr) -> RouteMessage {
    let address = |ip| match ip {
        IpAddr::V4(ip) => RouteAddress::Inet(ip),
        IpAddr::V6(ip) => RouteAddress::Inet6(ip),
    };
    let mut message = RouteMessage::default();
    let (family, bits) =
        if to.is_ipv4() { (AddressFamily::Inet, 32) } else { (AddressFamily::Inet6, 128) };
    message.header.address_family = family;
    message.header.destination_prefix_length = bits;
    message.header.source_prefix_length = bits;
    message.attributes.push(RouteAttribute::Destination(address(to)));
    message.attributes.push(RouteAttribute::Source(address(from)));
    message
}

/// None when the route does not say where it leads.
fn peer_route(message: &RouteMessage, names: &BTreeMap<u32, &str>) -> Option<PeerRoute> {
    let mut hops = BTreeSet::new();
    hops.extend(hop(None, &message.attributes, names));
    let mut mtu = None;
    for attribute in &message.attributes {
        if let RouteAttribute::MultiPath(list) = attribute {
            let next = |next: &rtnetlink::packet_route::route::RouteNextHop| {
                hop(Some(next.interface_index), &next.attributes, names)
            };
            hops.extend(list.iter().filter_map(next));
        }
        if let RouteAttribute::Metrics(metrics) = attribute {
            for metric in metrics {
                if let RouteMetric::Mtu(value @ 1..) = metric {
                    mtu = Some(*value);
                }
            }
        }
    }
    (!hops.is_empty()).then_some(PeerRoute { hops, mtu })
}

fn hop(
    index: Option<u32>,
    attributes: &[RouteAttribute],
    names: &BTreeMap<u32, &str>,
) -> Option<Hop> {
    let mut index = index;
    let mut gateway = None;
    for attribute in attributes {
        if let RouteAttribute::Oif(oif) = attribute {
            index = Some(*oif);
        } else if let RouteAttribute::Via(RouteVia::Inet(ip)) = attribute {
            gateway = Some(IpAddr::V4(*ip));
        } else if let RouteAttribute::Via(RouteVia::Inet6(ip)) = attribute {
            gateway = Some(IpAddr::V6(*ip));
        } else if let Some((Field::Gateway, ip)) = ip_of(attribute) {
            gateway = Some(ip);
        }
    }
    let device = names.get(&index?)?;
    Some(Hop { device: (*device).to_owned(), gateway })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(number: u32, to: &str) -> Vec<u8> {
        let mut route = question(to.parse().unwrap(), to.parse().unwrap());
        route.header.kind = RouteType::Unicast;
        let mut message = NetlinkMessage::from(RouteNetlinkMessage::NewRoute(route));
        message.header.sequence_number = number;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        bytes
    }

    #[test]
    fn an_answer_that_cannot_be_read_is_that_of_one_question() {
        let (number, route) = read(&answer(7, "192.168.1.12")).unwrap();
        assert!(number == 7 && route.is_ok_and(|route| route.is_some()));
        let mut broken = answer(8, "192.168.1.13");
        // The first attribute is longer than the message.
        broken[28] = 0xff;
        let (number, route) = read(&broken).unwrap();
        assert_eq!(number, 8);
        assert!(!route.unwrap_err().is_empty());
        assert!(read(&[0; 3]).is_err(), "not even a number");
    }
}
