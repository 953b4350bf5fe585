//! Lists of the kernel, one entry at a time.
//!
//! A link's message takes some 20 kB when it is read, and the library's own way holds those of all links at
//! once: memory that stays with the process.

use std::io;

use rtnetlink::packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{AsyncSocket as _, AsyncSocketExt as _, SocketAddr, TokioSocket};

use super::watch::messages;

/// Asks for a list, and hands on each of its entries. The kernel filters by what the request says, where it
/// can, so that a full routing table does not cross the socket.
pub(super) async fn dump(
    request: RouteNetlinkMessage,
    mut each: impl FnMut(RouteNetlinkMessage),
) -> io::Result<()> {
    let mut message = NetlinkMessage::from(request);
    message.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);

    // Of its own: what is left of a list that nobody waits for any more goes with it.
    let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
    socket.socket_mut().bind_auto()?;
    socket.socket_mut().set_netlink_get_strict_chk(true)?;
    socket.send_to(&bytes, &SocketAddr::new(0, 0)).await?;
    loop {
        let (bytes, _) = socket.recv_from_full().await?;
        for message in messages(&bytes) {
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(message);
            match message.map(|message| message.payload) {
                Ok(NetlinkPayload::InnerMessage(entry)) => each(entry),
                Ok(NetlinkPayload::Done(done)) => return unless_negative(done.code),
                Ok(NetlinkPayload::Error(error)) => return unless_negative(error.raw_code()),
                Ok(_) => {}
                Err(error) => tracing::debug!(%error, "the kernel lists what cannot be read"),
            }
        }
    }
}

fn unless_negative(code: i32) -> io::Result<()> {
    if code < 0 { Err(io::Error::from_raw_os_error(code.saturating_neg())) } else { Ok(()) }
}
