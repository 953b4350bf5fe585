//! The steps of ADD by name, and, for the test suite, death behind one of them.

/// Steps after which something on the node is different, in the order of ADD.
pub(crate) const STEPS: [&str; 12] = [
    LOCKED, LINK_MADE, LINK_NAMED, ASKED, INGRESS, EGRESS, ANSWERED, LOOPBACK, ADDRESSES, POD_UP,
    ROUTES, HOST_UP,
];

/// Those of an ADD whose addresses a delegated plugin gives, between [`EGRESS`] and [`ANSWERED`].
pub(crate) const IPAM_STEPS: [&str; 2] = [ANNOUNCED, LEASED];

pub(crate) const LOCKED: &str = "locked";
pub(crate) const LINK_MADE: &str = "link-made";
pub(crate) const LINK_NAMED: &str = "link-named";
pub(crate) const ASKED: &str = "agent-asked";
pub(crate) const INGRESS: &str = "ingress-attached";
pub(crate) const EGRESS: &str = "egress-attached";
pub(crate) const ANNOUNCED: &str = "announced";
pub(crate) const LEASED: &str = "leased";
pub(crate) const ANSWERED: &str = "agent-answered";
pub(crate) const LOOPBACK: &str = "loopback-up";
pub(crate) const ADDRESSES: &str = "addresses";
pub(crate) const POD_UP: &str = "pod-up";
pub(crate) const ROUTES: &str = "routes";
pub(crate) const HOST_UP: &str = "host-up";

/// Says that a step is done.
#[cfg(feature = "fault-injection")]
pub(crate) fn done(step: &str) {
    if std::env::var("PODWIRE_FAULT_KILL").is_ok_and(|wanted| wanted == step) {
        let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
    }
}

/// Says that a step is done.
#[cfg(not(feature = "fault-injection"))]
pub(crate) fn done(_step: &str) {}
