//! The protocol of the agent's socket.
//!
//! A connection carries one request and one reply. Each is a JSON document behind its length in bytes
//! (unsigned, 32 bits, big endian), of at most [`MESSAGE_BYTES_MAX`] for a request, which anybody may send
//! to the agent, and [`REPLY_BYTES_MAX`] for a reply.

use std::io::{self, Read, Write};
use std::net::IpAddr;

use ipnet::IpNet;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::delegation::Delegation;
use crate::names::Attachment;

/// Rises when an older peer would misread a message.
pub const PROTOCOL_VERSION: u32 = 2;
/// Longest request.
pub const MESSAGE_BYTES_MAX: u32 = 1 << 20;
/// Longest reply: the status of a node lists all others.
pub const REPLY_BYTES_MAX: u32 = 64 << 20;

/// What the plugin or the command line asks of the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// [`PROTOCOL_VERSION`] of the sender.
    pub version: u32,
    /// The call.
    pub call: Call,
}

/// The calls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Call {
    /// Gives an attachment its addresses and lets its packets pass.
    Add(Box<AddCall>),
    /// Takes them back. Succeeds when there is nothing to take.
    Del(DelCall),
    /// What `podwire-agent status` prints.
    Status,
    /// Whether an ADD would be served.
    Ready(ReadyCall),
    /// Removes what no container uses any more.
    Gc(GcCall),
}

/// The request of an ADD, sent when the veth exists with both programs attached and both ends down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AddCall {
    /// Which interface of which container.
    pub attachment: Attachment,
    /// `name` of the network configuration.
    pub network: String,
    /// `CNI_NETNS`, for people.
    pub netns: String,
    /// `K8S_POD_NAMESPACE/K8S_POD_NAME` of `CNI_ARGS`, or empty; for people.
    pub pod: String,
    /// Interface index of the host side.
    pub ifindex: u32,
    /// MAC of the host side.
    pub host_mac: [u8; 6],
    /// MAC of the pod's side.
    pub pod_mac: [u8; 6],
    /// Kernel ids of the attached programs: of ingress, then of egress.
    pub program_ids: [u32; 2],
    /// Where its addresses come from.
    pub source: Source,
}

/// Where the addresses of an ADD come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The node's pools: one of each family, and these among them.
    Pools(Vec<IpAddr>),
    /// A delegated plugin, which is called next. The agent writes down how its lease is given back.
    Announced(Box<Delegation>),
    /// What the plugin that was announced has given.
    Leased(Vec<IpAddr>),
}

/// The request of a DEL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DelCall {
    /// Which interface of which container.
    pub attachment: Attachment,
    /// The delegated plugin has been called with success. Else the agent calls it, where there is one,
    /// when the interface is gone.
    pub lease_freed: bool,
}

/// The request of a STATUS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReadyCall {
    /// Whether an ADD would take addresses of the node's pools.
    pub pools: bool,
}

/// The request of a GC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GcCall {
    /// `name` of the network configuration.
    pub network: String,
    /// The attachments that stay.
    pub valid: Vec<Attachment>,
}

/// The agent's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// To [`Call::Add`].
    Added(Added),
    /// To [`Call::Del`].
    Deleted,
    /// To [`Call::Status`]: the document of `podwire-agent status --output json`.
    Status(Box<serde_json::Value>),
    /// To [`Call::Ready`]: it would.
    Ready,
    /// To [`Call::Gc`].
    Collected(Collected),
    /// To any call: it failed and changed nothing.
    Failed(Failure),
}

/// What an ADD got.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Added {
    /// The pod's addresses, IPv4 first; each is used as a /32 or /128. None to [`Source::Announced`].
    pub addresses: Vec<IpAddr>,
    /// Largest IP packet, in bytes, that reaches every pod of the cluster.
    pub mtu: u32,
    /// The pods that larger ones reach.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub near: Option<Near>,
}

/// The pods of this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Near {
    /// Largest IP packet between them, in bytes.
    pub mtu: u32,
    /// The node's pod networks.
    pub cidrs: Vec<IpNet>,
    /// The node's own addresses in them: behind these the packet may go on to anywhere.
    pub node: Vec<IpAddr>,
}

/// What a GC did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Collected {
    /// How many attachments are gone.
    pub removed: u64,
    /// Why others are not.
    pub failures: Vec<Failure>,
}

/// An error with the code of the CNI specification (1.1, section 5) or ours from 100 on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}: {details}")]
pub struct Failure {
    /// The code.
    pub code: u32,
    /// What failed.
    pub message: String,
    /// Where, and what to do.
    pub details: String,
}

/// Why a message could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// The socket failed or its time limit passed.
    #[error("socket: {0}")]
    Io(#[from] io::Error),
    /// The document is longer than [`MESSAGE_BYTES_MAX`] or [`REPLY_BYTES_MAX`].
    #[error(
        "a message of {0} bytes is longer than is allowed ({MESSAGE_BYTES_MAX} for a request, \
         {REPLY_BYTES_MAX} for a reply)"
    )]
    TooLong(u64),
    /// It is not the document that was expected.
    #[error("not a message of this protocol: {0}")]
    Json(#[from] serde_json::Error),
}

/// The bytes of a message, its length in front.
///
/// # Errors
/// When the document is too long.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, MessageError> {
    let body = serde_json::to_vec(message)?;
    let length = u32::try_from(body.len())
        .ok()
        .filter(|&length| length <= REPLY_BYTES_MAX)
        .ok_or(MessageError::TooLong(body.len() as u64))?;
    Ok([length.to_be_bytes().as_slice(), body.as_slice()].concat())
}

/// Writes one message.
///
/// # Errors
/// When the document is too long or the socket fails.
pub fn write<T: Serialize>(to: &mut impl Write, message: &T) -> Result<(), MessageError> {
    Ok(to.write_all(&encode(message)?)?)
}

/// Reads one message.
///
/// # Errors
/// When the socket fails, the document is too long or not of this protocol.
pub fn read<T: DeserializeOwned>(from: &mut impl Read) -> Result<T, MessageError> {
    let mut length = [0; 4];
    from.read_exact(&mut length).map_err(cut_off)?;
    let length = u32::from_be_bytes(length);
    if length > REPLY_BYTES_MAX {
        return Err(MessageError::TooLong(u64::from(length)));
    }
    let mut body = vec![0; length as usize];
    from.read_exact(&mut body).map_err(cut_off)?;
    Ok(serde_json::from_slice(&body)?)
}

/// The library's text for this case speaks of its buffer.
fn cut_off(error: io::Error) -> io::Error {
    if error.kind() != io::ErrorKind::UnexpectedEof {
        return error;
    }
    io::Error::new(error.kind(), "the connection was closed before the whole message had come")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_back_as_they_went() {
        let attachment = Attachment { container_id: "a".into(), ifname: "eth0".into() };
        let request = Request {
            version: PROTOCOL_VERSION,
            call: Call::Del(DelCall { attachment, lease_freed: false }),
        };
        let bytes = encode(&request).expect("encoded");
        assert_eq!(read::<Request>(&mut bytes.as_slice()).expect("decoded"), request);
    }

    #[test]
    fn bad_messages_are_refused() {
        let read = |bytes: &[u8]| read::<Request>(&mut &*bytes);
        assert!(matches!(read(&[0, 0]), Err(MessageError::Io(_))), "cut off in the length");
        assert!(matches!(read(&[0, 0, 0, 9, b'{']), Err(MessageError::Io(_))), "cut off");
        assert!(matches!(read(&[0xff; 4]), Err(MessageError::TooLong(_))), "too long");
        assert!(
            matches!(read(&[0, 0, 0, 2, b'{', b'}']), Err(MessageError::Json(_))),
            "no request"
        );
    }
}
