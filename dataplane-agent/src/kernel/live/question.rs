//! One question to a part of the kernel other than that of routes, and its answer.

use std::io;

use rtnetlink::packet_core::{
    Emitable as _, NLM_F_REQUEST, NLMSG_ERROR, NetlinkBuffer, NetlinkHeader, NlaBuffer,
    NlasIterator,
};
use rtnetlink::sys::{Socket, SocketAddr};

const HEADER_LEN: usize = 16;
/// Between header and attributes, in question and answer: flags (XFRM), or `struct nfgenmsg` (netfilter), zero where
/// nothing particular is meant.
const BEGINNING: [u8; 4] = [0; 4];

/// Asks without parameters; the value of an attribute of the answer.
///
/// # Errors
/// When the kernel refuses, or answers something else.
pub(super) fn ask(socket: &Socket, message_type: u16, attribute: u16) -> io::Result<Vec<u8>> {
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut question = [0; HEADER_LEN + BEGINNING.len()];
    let mut header = NetlinkHeader::default();
    header.length = question.len() as u32;
    header.message_type = message_type;
    header.flags = NLM_F_REQUEST;
    header.emit(&mut question);
    socket.send(&question, 0)?;
    let (answer, _) = socket.recv_from_full()?;
    value(&answer, attribute)
}

fn value(answer: &[u8], attribute: u16) -> io::Result<Vec<u8>> {
    let other_form = || io::Error::other("the kernel's answer has another form");
    let message = NetlinkBuffer::new_checked(&answer).map_err(io::Error::other)?;
    let content = message.payload();
    let (beginning, rest) = content.split_first_chunk().ok_or_else(other_form)?;
    if message.message_type() == NLMSG_ERROR {
        let code = i32::from_ne_bytes(*beginning).saturating_neg();
        return Err(io::Error::from_raw_os_error(code));
    }
    NlasIterator::new(rest)
        .flatten()
        .find(|nla: &NlaBuffer<&[u8]>| nla.kind() == attribute)
        .map(|nla| nla.value().to_vec())
        .ok_or_else(other_form)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(message_type: u16, content: &[u8]) -> Vec<u8> {
        let mut bytes = ((HEADER_LEN + content.len()) as u32).to_ne_bytes().to_vec();
        bytes.extend(message_type.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend(content);
        bytes
    }

    fn attribute(kind: u16, word: u32) -> Vec<u8> {
        let head = [8_u16, kind].into_iter().flat_map(u16::to_ne_bytes);
        head.chain(word.to_ne_bytes()).collect()
    }

    #[test]
    fn answers_are_read() {
        let content = [BEGINNING.to_vec(), attribute(2, 5), attribute(1, 7)].concat();
        assert_eq!(value(&answer(0x24, &content), 1).unwrap(), 7_u32.to_ne_bytes());
        assert!(value(&answer(0x24, &content), 3).is_err(), "it is not there");
        assert!(value(&answer(0x24, &BEGINNING), 1).is_err(), "nothing is");
        assert!(value(&answer(0x24, &[]), 1).is_err() && value(&[0; 8], 1).is_err());
    }

    #[test]
    fn refusals_have_the_kernels_number() {
        let refused = [(-libc::EPERM).to_ne_bytes().as_slice(), &[0; 16]].concat();
        let error = value(&answer(NLMSG_ERROR, &refused), 1).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EPERM));
    }
}
