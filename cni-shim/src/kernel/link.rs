//! What the kernel says of an interface.

use libc::{IFLA_ADDRESS, IFLA_LINK, IFLA_MTU, IFLA_OPERSTATE, RTM_NEWLINK};
use rtnetlink::packet_core::{
    DecodeError, NetlinkDeserializable, NetlinkHeader, NlasIterator, parse_u8, parse_u32,
};
use rtnetlink::packet_route::link::{LinkFlags, LinkHeader, LinkMessageBuffer, State};

/// An interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LinkFacts {
    pub(crate) ifindex: u32,
    pub(crate) mac: [u8; 6],
    pub(crate) mtu: u32,
    pub(crate) up: bool,
    /// Whether the kernel sends by it: it is up and so is the other end.
    pub(crate) operational: bool,
    /// The index of the other end, in its namespace.
    pub(super) peer: Option<u32>,
}

/// A message that shows an interface, read as far as somebody wants to know. The library would make a value of
/// each of its some sixty attributes: in a new process that is new memory, a page fault of 3 us for each page.
pub(super) struct ShownLink(pub(super) Option<LinkFacts>);

impl NetlinkDeserializable for ShownLink {
    type Error = DecodeError;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        // Also the answer to `RTM_GETLINK`.
        let is_link = header.message_type == RTM_NEWLINK;
        is_link.then(|| facts(payload)).transpose().map(Self)
    }
}

fn facts(payload: &[u8]) -> Result<LinkFacts, DecodeError> {
    let header = LinkHeader::parse(payload)?;
    let up = header.flags.contains(LinkFlags::Up);
    let mut facts = LinkFacts { ifindex: header.index, up, ..LinkFacts::default() };
    let attributes = payload.get(size_of::<LinkMessageBuffer>()..).unwrap_or_default();
    for attribute in NlasIterator::new(attributes) {
        let attribute = attribute?;
        let value = attribute.value();
        match attribute.kind() {
            IFLA_ADDRESS => facts.mac = value.try_into().unwrap_or_default(),
            IFLA_MTU => facts.mtu = parse_u32(value)?,
            IFLA_LINK => facts.peer = Some(parse_u32(value)?),
            IFLA_OPERSTATE => facts.operational = State::from(parse_u8(value)?) == State::Up,
            _ => {}
        }
    }
    Ok(facts)
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
    use rtnetlink::packet_route::RouteNetlinkMessage;
    use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage};

    use super::*;

    fn bytes(message: RouteNetlinkMessage) -> Vec<u8> {
        let mut message = NetlinkMessage::from(message);
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        bytes
    }

    fn read(bytes: &[u8]) -> Option<LinkFacts> {
        let message = NetlinkMessage::<ShownLink>::deserialize(bytes).expect("a message");
        let NetlinkPayload::InnerMessage(ShownLink(facts)) = message.payload else { panic!() };
        facts
    }

    /// What the library writes is read as the library means it.
    #[test]
    fn a_link_is_read_among_what_nobody_wants_to_know() {
        let mut link = LinkMessage::default();
        link.header.index = 7;
        link.header.flags = LinkFlags::Up | LinkFlags::Broadcast;
        link.attributes = vec![
            LinkAttribute::IfName("pwabc".into()),
            LinkAttribute::Mtu(1450),
            LinkAttribute::OperState(State::Up),
            LinkAttribute::Address(vec![2, 0, 0, 0, 0, 9]),
            LinkAttribute::Link(3),
            LinkAttribute::Qdisc("noqueue".into()),
        ];
        let wanted = LinkFacts {
            ifindex: 7,
            mac: [2, 0, 0, 0, 0, 9],
            mtu: 1450,
            up: true,
            operational: true,
            peer: Some(3),
        };
        assert_eq!(read(&bytes(RouteNetlinkMessage::NewLink(link.clone()))), Some(wanted));
        link.header.flags = LinkFlags::Broadcast;
        link.attributes = vec![LinkAttribute::OperState(State::LowerLayerDown)];
        let down = LinkFacts { ifindex: 7, ..LinkFacts::default() };
        assert_eq!(read(&bytes(RouteNetlinkMessage::NewLink(link.clone()))), Some(down));
        assert_eq!(read(&bytes(RouteNetlinkMessage::DelLink(link))), None);
    }

    #[test]
    fn half_a_message_is_an_error() {
        let mut link = LinkMessage::default();
        link.attributes = vec![LinkAttribute::Mtu(1450)];
        let bytes = bytes(RouteNetlinkMessage::NewLink(link));
        let mut header = NetlinkHeader::default();
        header.message_type = RTM_NEWLINK;
        for length in [8, 17, 20] {
            assert!(ShownLink::deserialize(&header, &bytes[16..16 + length]).is_err(), "{length}");
        }
    }
}
