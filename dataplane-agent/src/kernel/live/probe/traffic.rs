//! Programs at an interface, whoever has attached them.

use std::io;

use aya::programs::loaded_programs;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::tc::{TcAttribute, TcFilterBpfOption, TcHandle, TcMessage, TcOption};

use crate::kernel::live::dump::dump;
use crate::kernel::live::syscall;
use crate::kernel::{Link, LinkHook};

/// Ids of the programs at a TCX hook, in their order.
///
/// # Errors
/// When the kernel does not tell.
pub fn tcx(link: &Link, hook: LinkHook) -> io::Result<Vec<u32>> {
    syscall::tcx_programs(link.ifindex, hook)
}

/// Name of a program, where this process may ask for it (CAP_SYS_ADMIN).
pub fn name(id: u32) -> Option<String> {
    let mut programs = loaded_programs().map_while(Result::ok);
    let program = programs.find(|program| program.id() == id)?;
    program.name_as_str().filter(|name| !name.is_empty()).map(str::to_owned)
}

/// Names of the BPF filters of `tc` (clsact) in both directions. Must be called inside a tokio runtime.
///
/// # Errors
/// When the kernel does not list them.
pub async fn filters(link: &Link) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for minor in [TcHandle::MIN_INGRESS, TcHandle::MIN_EGRESS] {
        let mut message = TcMessage::default();
        message.header.index = i32::try_from(link.ifindex).unwrap_or_default();
        message.header.parent = TcHandle { major: u16::MAX, minor };
        dump(RouteNetlinkMessage::GetTrafficFilter(message), |entry| {
            if let RouteNetlinkMessage::NewTrafficFilter(filter) = entry {
                names.extend(bpf_name(&filter));
            }
        })
        .await?;
    }
    Ok(names)
}

fn bpf_name(filter: &TcMessage) -> Option<String> {
    let options = filter.attributes.iter().find_map(|attribute| {
        if let TcAttribute::Options(options) = attribute { Some(options) } else { None }
    });
    options?.iter().find_map(|option| {
        if let TcOption::Bpf(TcFilterBpfOption::ProgName(name)) = option {
            Some(name.clone())
        } else {
            None
        }
    })
}
