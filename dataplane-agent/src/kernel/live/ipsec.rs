//! Whether the namespace has IPsec policies, which only the host stack obeys.

use std::io::ErrorKind;

use rtnetlink::packet_core::{
    Emitable as _, NLM_F_REQUEST, NetlinkHeader, NlaBuffer, NlasIterator,
};
use rtnetlink::sys::protocols::NETLINK_XFRM;
use rtnetlink::sys::{Socket, SocketAddr};

use super::error::{Context as _, refusal};
use crate::kernel::KernelError;

/// `XFRM_MSG_GETSPDINFO` and the attribute of its answer, `XFRMA_SPD_INFO` (linux/xfrm.h).
const GET_SPD_INFO: u16 = 0x25;
const SPD_INFO: u16 = 1;
/// A word of flags, in the question and in the answer; the kernel asks for any value.
const FLAGS: [u8; 4] = [0; 4];
const HEADER_LEN: usize = 16;

/// Whether there is a policy for packets that leave.
///
/// # Errors
/// When the kernel does not answer; one without IPsec has no policies.
pub(super) fn has_policies() -> Result<bool, KernelError> {
    let what = || "ask for the IPsec policies".to_owned();
    let socket = match Socket::new(NETLINK_XFRM) {
        Err(error) if error.kind() == ErrorKind::Unsupported => return Ok(false),
        Err(error) if error.raw_os_error() == Some(libc::EPROTONOSUPPORT) => return Ok(false),
        socket => socket.context(what)?,
    };
    socket.connect(&SocketAddr::new(0, 0)).context(what)?;
    let mut question = [0; HEADER_LEN + FLAGS.len()];
    let mut header = NetlinkHeader::default();
    header.length = u32::try_from(question.len()).context(what)?;
    header.message_type = GET_SPD_INFO;
    header.flags = NLM_F_REQUEST;
    header.emit(&mut question);
    socket.send(&question, 0).context(what)?;
    let (answer, _) = socket.recv_from_full().context(what)?;
    outgoing(&answer).ok_or_else(|| refusal(what(), "the kernel's answer has another form"))
}

/// Whether an answer counts policies for packets that leave: the second number.
fn outgoing(answer: &[u8]) -> Option<bool> {
    let attributes = answer.get(HEADER_LEN + FLAGS.len()..)?;
    let info = NlasIterator::new(attributes)
        .flatten()
        .find(|nla: &NlaBuffer<&[u8]>| nla.kind() == SPD_INFO)?;
    Some(info.value().get(4..8)? != [0; 4])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read() {
        let attribute = |kind: u16, counts: [u32; 6]| {
            let words = counts.iter().flat_map(|count| count.to_ne_bytes());
            let head = [28_u16, kind].into_iter().flat_map(u16::to_ne_bytes);
            head.chain(words).collect::<Vec<u8>>()
        };
        let answer = |attributes: &[Vec<u8>]| {
            let start = vec![0; HEADER_LEN + FLAGS.len()];
            [&[start], attributes].concat().concat()
        };
        let none = attribute(SPD_INFO, [3, 0, 3, 0, 0, 0]);
        let one = attribute(SPD_INFO, [0, 1, 0, 0, 0, 0]);
        assert_eq!(outgoing(&answer(&[none])), Some(false));
        assert_eq!(outgoing(&answer(&[attribute(2, [0; 6]), one])), Some(true));
        assert_eq!(outgoing(&answer(&[])), None);
        assert_eq!(outgoing(&[0; 8]), None);
    }
}
