//! A netlink socket that asks and waits: the plugin does one thing after the other.
//!
//! The library's own connection is a task of an asynchronous runtime: four system calls and three
//! descriptors more for each question, where this needs two calls. What is asked is the library's.

#![expect(clippy::wildcard_enum_match_arm, reason = "the library's list of kinds grows")]

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;

use nix::errno::Errno;
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_ECHO, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST,
    NetlinkBuffer, NetlinkDeserializable, NetlinkMessage, NetlinkPayload,
};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{Socket, SocketAddr};

use super::syscall;

/// The kernel begins a dump with a datagram of up to 8 KiB (`NLMSG_GOODSIZE`) and goes on with as much as the reader
/// has room for (`netlink_dump`); an interface of a pod takes a tenth of this.
const BUFFER_BYTES: usize = 16 * 1024;

/// What is asked for beside the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// One thing.
    Get,
    /// All of them.
    Dump,
    /// A change, or a removal.
    Set,
    /// A new thing; that it is there is an error.
    Create,
    /// A new interface; it is shown in the answer.
    CreateAndShow,
    /// A new thing in place of another.
    Replace,
}

impl Ask {
    fn flags(self) -> u16 {
        NLM_F_REQUEST
            | match self {
                Self::Get => 0,
                Self::Dump => NLM_F_DUMP,
                Self::Set => NLM_F_ACK,
                Self::Create => NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL,
                Self::CreateAndShow => NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL | NLM_F_ECHO,
                Self::Replace => NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE,
            }
    }
}

/// A socket of the namespace in which it was opened.
pub(super) struct Talk {
    socket: Socket,
    sequence: Cell<u32>,
    buffer: RefCell<Vec<u8>>,
}

impl Talk {
    pub(super) fn open() -> io::Result<Self> {
        let socket = Socket::new(NETLINK_ROUTE)?;
        // Without an address it would take the first answer that somebody sends.
        socket.connect(&SocketAddr::new(0, 0))?;
        let buffer = RefCell::new(Vec::with_capacity(BUFFER_BYTES));
        Ok(Self { socket, sequence: Cell::new(0), buffer })
    }

    /// The namespace that it is of.
    pub(super) fn namespace(&self) -> io::Result<File> {
        syscall::namespace_of(self.socket.as_fd()).map(File::from)
    }

    /// Asks, and returns what the kernel shows. What it refuses is an error with its number.
    pub(super) fn ask<T: NetlinkDeserializable>(
        &self,
        message: RouteNetlinkMessage,
        ask: Ask,
    ) -> io::Result<Vec<T>> {
        let sequence = self.sequence.get().wrapping_add(1);
        self.sequence.set(sequence);
        let mut request = NetlinkMessage::from(message);
        request.header.flags = ask.flags();
        request.header.sequence_number = sequence;
        request.finalize();
        let mut buffer = self.buffer.borrow_mut();
        // The rest of it is the kernel's to write: each page that nobody touches is time.
        buffer.clear();
        buffer.resize(request.buffer_len(), 0);
        request.serialize(&mut buffer);
        self.socket.send(&buffer, 0)?;
        let mut shown = Vec::new();
        loop {
            buffer.clear();
            match self.socket.recv(&mut *buffer, 0) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                length => length?,
            };
            if read(&buffer, sequence, ask, &mut shown)? {
                return Ok(shown);
            }
        }
    }
}

/// Reads a datagram; true at the end of the answer.
fn read<T: NetlinkDeserializable>(
    mut rest: &[u8],
    sequence: u32,
    ask: Ask,
    shown: &mut Vec<T>,
) -> io::Result<bool> {
    while !rest.is_empty() {
        let length = NetlinkBuffer::new_checked(&rest).map_err(io::Error::other)?.length() as usize;
        let bytes = rest.get(..length).ok_or(io::ErrorKind::UnexpectedEof)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        let message = NetlinkMessage::<T>::deserialize(bytes).map_err(io::Error::other)?;
        if message.header.sequence_number != sequence {
            continue;
        }
        match message.payload {
            NetlinkPayload::InnerMessage(inner) => {
                shown.push(inner);
                if ask == Ask::Get {
                    return Ok(true);
                }
            }
            NetlinkPayload::Error(error) => {
                return match error.code {
                    None => Ok(true),
                    Some(code) => Err(io::Error::from_raw_os_error(code.get().wrapping_neg())),
                };
            }
            NetlinkPayload::Done(_) => return Ok(true),
            _ => {}
        }
    }
    Ok(false)
}

/// The kernel's number of an error.
pub(super) fn errno(error: &io::Error) -> Option<Errno> {
    error.raw_os_error().map(Errno::from_raw)
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_route::link::LinkMessage;

    use super::*;

    fn answer(sequence: u32, index: u32) -> Vec<u8> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        let mut message = NetlinkMessage::from(RouteNetlinkMessage::NewLink(link));
        message.header.sequence_number = sequence;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        bytes
    }

    /// `struct nlmsgerr` with the header of what it answers.
    fn error(sequence: u32, code: i32) -> Vec<u8> {
        let mut bytes = 36_u32.to_ne_bytes().to_vec();
        bytes.extend(2_u16.to_ne_bytes());
        bytes.extend([0; 2]);
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(code.to_ne_bytes());
        bytes.extend([0; 16]);
        bytes
    }

    #[test]
    fn answers_end_where_they_should() {
        let read = |bytes: &[u8], ask| {
            let mut shown = Vec::<RouteNetlinkMessage>::new();
            read(bytes, 7, ask, &mut shown).map(|ended| (ended, shown.len()))
        };
        assert_eq!(read(&answer(7, 1), Ask::Get).unwrap(), (true, 1));
        assert_eq!(read(&answer(7, 1), Ask::Dump).unwrap(), (false, 1), "more may come");
        let both = [answer(7, 1), error(7, 0)].concat();
        assert_eq!(read(&both, Ask::CreateAndShow).unwrap(), (true, 1));
        assert_eq!(read(&error(7, 0), Ask::Set).unwrap(), (true, 0));
        assert_eq!(read(&answer(6, 1), Ask::Get).unwrap(), (false, 0), "of an earlier question");
    }

    fn links() -> Vec<RouteNetlinkMessage> {
        Vec::new()
    }

    #[test]
    fn refusals_have_the_kernels_number() {
        let refused = read(&error(7, -19), 7, Ask::Get, &mut links()).unwrap_err();
        assert_eq!(errno(&refused), Some(Errno::ENODEV));
        assert!(read(&[1, 2, 3], 7, Ask::Get, &mut links()).is_err(), "garbage");
        assert!(read(&error(7, 0)[..20], 7, Ask::Set, &mut links()).is_err(), "cut off");
    }
}
