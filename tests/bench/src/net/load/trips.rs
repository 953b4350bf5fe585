//! Round trips of a byte.
//!
//! By our own two ends: the distribution's sockperf knows no IPv6. Where both can be used they tell the same.

use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use hdrhistogram::Histogram;
use tests::conversation::{Conversation, Window};

use crate::net::metric::Metric;
use crate::net::way::Way;

/// Round trips that only warm up.
const WARM_UP: usize = 50;
/// Significant digits of the times.
const DIGITS: u8 = 3;

/// Times of round trips in nanoseconds.
pub(super) struct Trips(Histogram<u64>);

impl Trips {
    pub(super) fn tcp_figures(&self) -> Vec<(Metric, f64)> {
        use Metric::{TripTcpP50, TripTcpP90, TripTcpP99, TripTcpP999};
        self.figures([TripTcpP50, TripTcpP90, TripTcpP99, TripTcpP999])
    }

    pub(super) fn udp_figures(&self) -> Vec<(Metric, f64)> {
        use Metric::{TripUdpP50, TripUdpP90, TripUdpP99, TripUdpP999};
        self.figures([TripUdpP50, TripUdpP90, TripUdpP99, TripUdpP999])
    }

    /// The percentiles 50, 90, 99 and 99.9 in microseconds.
    fn figures(&self, metrics: [Metric; 4]) -> Vec<(Metric, f64)> {
        let micros = |quantile| self.0.value_at_quantile(quantile) as f64 / 1000.0;
        metrics.into_iter().zip([0.5, 0.9, 0.99, 0.999].map(micros)).collect()
    }
}

/// In TCP.
pub(super) fn tcp(way: &Way, count: usize) -> Result<Trips> {
    let mut conversation = Conversation::new(&way.client, &way.server, way.address, Window::Small)?;
    conversation.round_trips(WARM_UP)?;
    let mut times = Histogram::new(DIGITS)?;
    for time in conversation.round_trips(count)? {
        times.record(u64::try_from(time.as_nanos())?)?;
    }
    Ok(Trips(times))
}

/// In UDP.
pub(super) fn udp(way: &Way, count: usize) -> Result<Trips> {
    let (client, server) = super::sockets(way)?;
    // An empty datagram is the last.
    let echo = thread::spawn(move || -> Result<()> {
        let mut byte = [0; 8];
        loop {
            let (length, from) = server.recv_from(&mut byte)?;
            if length == 0 {
                return Ok(());
            }
            server.send_to(&byte[..length], from)?;
        }
    });
    let trips = measure(count, || {
        let mut byte = [1];
        client.send(&byte)?;
        ensure!(client.recv(&mut byte).context("a datagram is lost")? == 1, "a datagram is empty");
        Ok(())
    });
    client.send(&[])?;
    let _ = echo.join();
    trips
}

fn measure(count: usize, mut trip: impl FnMut() -> Result<()>) -> Result<Trips> {
    for _ in 0..WARM_UP {
        trip()?;
    }
    let mut times = Histogram::new(DIGITS)?;
    for _ in 0..count {
        let start = Instant::now();
        trip()?;
        times.record(u64::try_from(start.elapsed().as_nanos())?)?;
    }
    Ok(Trips(times))
}

#[cfg(test)]
mod tests_of_trips {
    use super::*;

    #[test]
    fn percentiles_are_microseconds() {
        let mut nanos = 0;
        let mut times = Histogram::new(DIGITS).unwrap();
        for _ in 0..1000 {
            nanos += 1000;
            times.record(nanos).unwrap();
        }
        let figures = Trips(times).tcp_figures();
        let all = [500.0, 900.0, 990.0, 999.0];
        for ((_, value), expected) in figures.iter().zip(all) {
            assert!((value / expected - 1.0).abs() < 0.002, "{value}");
        }
    }
}
