//! A network between nodes that carries packets of more than 64 KiB.

use anyhow::{Context as _, Result};
use nix::net::if_::if_nametoindex;
use rtnetlink::LinkUnspec;
use rtnetlink::packet_route::link::LinkAttribute;
use tests::fabric::Fabric;
use tokio::runtime::Builder;

/// Bytes of the largest packet: `GSO_MAX_SIZE` of `linux/netdevice.h` (kernel 5.19).
const LARGEST: u32 = 8 * 0xffff;

/// Keeps the ports from cutting such packets up: a wire carries the segments that a card makes of them, however many
/// they are. iproute2 before 6.3 does not know the size for IPv4.
///
/// # Errors
/// When the kernel does not know the sizes.
pub(super) fn carry(fabric: &Fabric) -> Result<()> {
    let ports = fabric.ports()?;
    let runtime = Builder::new_current_thread().enable_io().build()?;
    fabric.lan.enter(|| {
        runtime.block_on(async {
            let (connection, handle, _) = rtnetlink::new_connection()?;
            tokio::spawn(connection);
            for port in &ports {
                let message = LinkUnspec::new_with_index(if_nametoindex(port.as_str())?)
                    .append_extra_attribute(LinkAttribute::GsoMaxSize(LARGEST))
                    .append_extra_attribute(LinkAttribute::GsoIpv4MaxSize(LARGEST));
                let set = handle.link().set(message.build()).execute().await;
                set.with_context(|| format!("raise the largest packets of {port}"))?;
            }
            Ok(())
        })
    })
}
