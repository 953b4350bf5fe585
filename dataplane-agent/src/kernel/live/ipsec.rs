//! Whether the namespace has IPsec policies, which only the host stack obeys.

use std::io::ErrorKind;

use rtnetlink::sys::Socket;
use rtnetlink::sys::protocols::NETLINK_XFRM;

use super::error::{Context as _, refusal};
use super::question::ask;
use crate::kernel::KernelError;

/// `XFRM_MSG_GETSPDINFO` and the attribute of its answer, `XFRMA_SPD_INFO` (linux/xfrm.h).
const GET_SPD_INFO: u16 = 0x25;
const SPD_INFO: u16 = 1;

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
    let info = ask(&socket, GET_SPD_INFO, SPD_INFO).context(what)?;
    outgoing(&info).ok_or_else(|| refusal(what(), "the kernel's answer is too short"))
}

/// Whether `struct xfrmu_spdinfo` counts policies for packets that leave: the second number.
fn outgoing(info: &[u8]) -> Option<bool> {
    Some(info.get(4..8)? != [0; 4])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_for_packets_that_leave_are_the_second_number() {
        let info = |counts: [u32; 3]| -> Vec<u8> {
            counts.iter().flat_map(|count| count.to_ne_bytes()).collect()
        };
        assert_eq!(outgoing(&info([3, 0, 3])), Some(false));
        assert_eq!(outgoing(&info([0, 1, 0])), Some(true));
        assert_eq!(outgoing(&[0; 4]), None);
    }
}
