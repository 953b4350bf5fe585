//! Programs of others at the uplinks.

use std::collections::BTreeSet;
use std::io;

use super::super::finding::Finding;
use super::super::node::Node;
use super::check_of;
use super::known::{KNOWN, Known};
use crate::advice::Advice;
use crate::kernel::LinkHook;
use crate::kernel::live::probe::{pins, traffic};

/// What somebody else has attached to an uplink.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Foreign {
    uplink: String,
    place: Place,
    /// Names, or numbers where the names cannot be seen.
    programs: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Tcx(LinkHook),
    Clsact,
    Xdp,
}

pub(super) async fn examine(node: &Node) -> Vec<Finding> {
    let own = pins::links(&node.around.bpffs).unwrap_or_default();
    let own: BTreeSet<u32> = own.iter().map(|link| link.program).collect();
    let mut findings = Vec::new();
    for device in node.uplinks.iter().filter_map(|name| node.devices.get(name)) {
        let uplink = &device.link.name;
        let mut add = |place, answer: io::Result<Vec<String>>| match answer {
            Ok(programs) if programs.is_empty() => {}
            Ok(programs) => {
                findings.push(judge(&Foreign { uplink: uplink.clone(), place, programs }));
            }
            Err(error) => findings.push(Finding::unseen(format!("programs of {uplink}"), error)),
        };
        for hook in [LinkHook::Ingress, LinkHook::Egress] {
            let ids = traffic::tcx(&device.link, hook);
            let names =
                |ids: Vec<u32>| ids.into_iter().filter(|id| !own.contains(id)).map(name).collect();
            add(Place::Tcx(hook), ids.map(names));
        }
        add(Place::Clsact, traffic::filters(&device.link).await);
        add(Place::Xdp, Ok(device.xdp.map(name).into_iter().collect()));
    }
    findings
}

fn name(id: u32) -> String {
    traffic::name(id).unwrap_or_else(|| format!("number {id}"))
}

fn judge(foreign: &Foreign) -> Finding {
    let Foreign { uplink, place, programs } = foreign;
    let where_to = match place {
        Place::Tcx(LinkHook::Ingress) => "TCX ingress",
        Place::Tcx(LinkHook::Egress) => "TCX egress",
        Place::Clsact => "clsact",
        Place::Xdp => "XDP",
    };
    let found = format!("{where_to} of {uplink} runs {} of somebody else", programs.join(", "));
    let remedy = match place {
        Place::Tcx(_) => {
            "end who attached it, and remove its pins below /sys/fs/bpf (`bpftool net show` lists it)".to_owned()
        }
        Place::Clsact => format!("`tc qdisc delete dev {uplink} clsact`"),
        Place::Xdp => format!("`ip link set dev {uplink} xdp off`"),
    };
    let of_known = |known: &&Known| {
        let is_its = |name: &String| known.programs.iter().any(|start| name.starts_with(start));
        programs.iter().any(is_its)
    };
    match KNOWN.iter().find(of_known) {
        Some(known) => Finding::warning(check_of(known), Advice::new(found, remedy)),
        None => Finding::new(
            format!("programs of {uplink}"),
            super::super::Severity::Note,
            format!("{found}; what Podwire delivers does not reach those behind it"),
            Some(format!("nothing, if it is wanted; else {remedy}")),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::finding::Severity;
    use super::*;

    #[test]
    fn programs_of_a_known_network_are_to_be_removed_and_others_are_said() {
        let foreign = |place, program: &str| Foreign {
            uplink: "eth0".to_owned(),
            place,
            programs: vec![program.to_owned()],
        };
        let finding = judge(&foreign(Place::Clsact, "cil_from_netdev-eth0"));
        assert_eq!(
            (finding.state, finding.check.as_str()),
            (Severity::Warning, "leftovers of Cilium")
        );
        assert_eq!(finding.remedy.unwrap(), "`tc qdisc delete dev eth0 clsact`");
        let finding = judge(&foreign(Place::Tcx(LinkHook::Ingress), "number 42"));
        assert_eq!(finding.state, Severity::Note);
        assert!(finding.found.contains("TCX ingress of eth0 runs number 42"), "{}", finding.found);
        assert!(judge(&foreign(Place::Xdp, "x")).remedy.unwrap().contains("xdp off"));
    }
}
