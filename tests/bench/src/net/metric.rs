//! What a figure means.

use dataplane_core::abi::names;
use serde::{Deserialize, Serialize};
use tests::ratio::Ratio;

/// Which of two figures is the better one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Better {
    More,
    Less,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Metric {
    Tcp1,
    Tcp1Auto,
    Tcp1Memory,
    TripTcpP50,
    TripTcpP90,
    TripTcpP99,
    TripTcpP999,
    TripUdpP50,
    TripUdpP90,
    TripUdpP99,
    TripUdpP999,
    Connections,
    Udp64,
    Udp1400,
    Peers,
    /// The rate of the last, to that over a bare veth pair or from host to host with as many addresses.
    PeersShare,
    Iperf1,
    Iperf1Cpu,
    Iperf4,
    Iperf4Cpu,
    Iperf16,
    Iperf16Cpu,
    Flood64,
    Flood64Loss,
    Flood64Cpu,
    Flood1400,
    Flood1400Loss,
    Flood1400Cpu,
    Tcp1Programs,
    Udp64Programs,
    FromPod,
    ToPod,
    FromNet,
    FromTunnel,
    FromHost,
}

impl Metric {
    /// In the order of the report.
    pub(crate) const ALL: [Self; 35] = [
        Self::Tcp1,
        Self::Tcp1Auto,
        Self::Tcp1Memory,
        Self::TripTcpP50,
        Self::TripTcpP90,
        Self::TripTcpP99,
        Self::TripTcpP999,
        Self::TripUdpP50,
        Self::TripUdpP90,
        Self::TripUdpP99,
        Self::TripUdpP999,
        Self::Connections,
        Self::Udp64,
        Self::Udp1400,
        Self::Peers,
        Self::PeersShare,
        Self::Iperf1,
        Self::Iperf1Cpu,
        Self::Iperf4,
        Self::Iperf4Cpu,
        Self::Iperf16,
        Self::Iperf16Cpu,
        Self::Flood64,
        Self::Flood64Loss,
        Self::Flood64Cpu,
        Self::Flood1400,
        Self::Flood1400Loss,
        Self::Flood1400Cpu,
        Self::Tcp1Programs,
        Self::Udp64Programs,
        Self::FromPod,
        Self::ToPod,
        Self::FromNet,
        Self::FromTunnel,
        Self::FromHost,
    ];
    /// The time of each program alone.
    pub(crate) const OF_PROGRAMS: [(&'static str, Self); 5] = [
        (names::PROGRAM_FROM_POD, Self::FromPod),
        (names::PROGRAM_TO_POD, Self::ToPod),
        (names::PROGRAM_FROM_NET, Self::FromNet),
        (names::PROGRAM_FROM_TUNNEL, Self::FromTunnel),
        (names::PROGRAM_FROM_HOST, Self::FromHost),
    ];

    /// For people, with the unit.
    pub(crate) fn name(self) -> &'static str {
        self.facts().0
    }

    pub(crate) fn better(self) -> Better {
        self.facts().1
    }

    /// Digits behind the point.
    pub(crate) fn digits(self) -> usize {
        self.facts().2
    }

    fn facts(self) -> (&'static str, Better, usize) {
        use Better::{Less, More};
        match self {
            Self::Tcp1 => ("TCP, 1 stream, Gbit/s", More, 2),
            Self::Tcp1Auto => ("TCP, 1 stream, the kernel's window, Gbit/s", More, 2),
            Self::Tcp1Memory => ("TCP, 1 stream, the kernel's window, memory, KiB", Less, 0),
            Self::TripTcpP50 => ("TCP round trip p50, us", Less, 1),
            Self::TripTcpP90 => ("TCP round trip p90, us", Less, 1),
            Self::TripTcpP99 => ("TCP round trip p99, us", Less, 1),
            Self::TripTcpP999 => ("TCP round trip p99.9, us", Less, 1),
            Self::TripUdpP50 => ("UDP round trip p50, us", Less, 1),
            Self::TripUdpP90 => ("UDP round trip p90, us", Less, 1),
            Self::TripUdpP99 => ("UDP round trip p99, us", Less, 1),
            Self::TripUdpP999 => ("UDP round trip p99.9, us", Less, 1),
            Self::Connections => ("TCP connections per second", More, 0),
            Self::Udp64 => ("UDP of 64 B per second", More, 0),
            Self::Udp1400 => ("UDP of 1,400 B per second", More, 0),
            Self::PeersShare => ("the same, of the rate without Podwire", More, 3),
            Self::Peers => ("UDP of 64 B to as many pods, in turn, per second", More, 0),
            Self::Iperf1 => ("iperf3, 1 stream, Gbit/s", More, 2),
            Self::Iperf1Cpu => ("iperf3, 1 stream, CPU s per GB", Less, 3),
            Self::Iperf4 => ("iperf3, 4 streams, Gbit/s", More, 2),
            Self::Iperf4Cpu => ("iperf3, 4 streams, CPU s per GB", Less, 3),
            Self::Iperf16 => ("iperf3, 16 streams, Gbit/s", More, 2),
            Self::Iperf16Cpu => ("iperf3, 16 streams, CPU s per GB", Less, 3),
            Self::Flood64 => ("iperf3, UDP of 64 B, received per second", More, 0),
            Self::Flood64Loss => ("iperf3, UDP of 64 B, loss in %", Less, 2),
            Self::Flood64Cpu => ("iperf3, UDP of 64 B, CPU s per million", Less, 2),
            Self::Flood1400 => ("iperf3, UDP of 1,400 B, received per second", More, 0),
            Self::Flood1400Loss => ("iperf3, UDP of 1,400 B, loss in %", Less, 2),
            Self::Flood1400Cpu => ("iperf3, UDP of 1,400 B, CPU s per million", Less, 2),
            Self::Tcp1Programs => {
                ("TCP, 1 stream, a program's run as the kernel counts, ns", Less, 0)
            }
            Self::Udp64Programs => {
                ("UDP of 64 B, a program's run as the kernel counts, ns", Less, 0)
            }
            Self::FromPod => ("the same, pw_from_pod alone, ns", Less, 0),
            Self::ToPod => ("the same, pw_to_pod alone, ns", Less, 0),
            Self::FromNet => ("the same, pw_from_net alone, ns", Less, 0),
            Self::FromTunnel => ("the same, pw_from_tunnel alone, ns", Less, 0),
            Self::FromHost => ("the same, pw_from_host alone, ns", Less, 0),
        }
    }

    /// Whether a ratio of it says something: one in a thousand is a matter of the machine's other work, a loss may be
    /// zero, memory follows the kernel's window, and yardsticks have no programs.
    pub(crate) fn is_compared(self) -> bool {
        !matches!(
            self,
            Self::Tcp1Memory
                | Self::TripTcpP999
                | Self::TripUdpP999
                | Self::Flood64Loss
                | Self::Flood1400Loss
                | Self::Tcp1Programs
                | Self::Udp64Programs
                | Self::FromPod
                | Self::ToPod
                | Self::FromNet
                | Self::FromTunnel
                | Self::FromHost
        )
    }

    /// Whether the ratio of two of it says that the first is worse, by more than chance.
    pub(crate) fn is_worse(self, ratio: Ratio) -> bool {
        match self.better() {
            Better::More => ratio.most < 1.0,
            Better::Less => ratio.least > 1.0,
        }
    }

    /// The same for better.
    pub(crate) fn is_better(self, ratio: Ratio) -> bool {
        match self.better() {
            Better::More => ratio.least > 1.0,
            Better::Less => ratio.most < 1.0,
        }
    }
}

#[cfg(test)]
mod tests_of_metrics {
    use super::*;

    #[test]
    fn what_is_worse_depends_on_the_metric() {
        let ratio = Ratio { median: 1.1, least: 1.05, most: 1.2 };
        assert!(Metric::Tcp1.is_better(ratio) && !Metric::Tcp1.is_worse(ratio));
        assert!(Metric::TripTcpP50.is_worse(ratio) && !Metric::TripTcpP50.is_better(ratio));
        let even = Ratio { median: 1.1, least: 0.9, most: 1.2 };
        assert!(Metric::ALL.iter().all(|m| !m.is_better(even) && !m.is_worse(even)));
    }

    #[test]
    fn each_has_a_name_of_its_own() {
        let mut names: Vec<&str> = Metric::ALL.iter().map(|metric| metric.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Metric::ALL.len());
    }
}
