//! The log of debugging builds; in every other build nothing is left of it.

/// Says what a program decided.
#[cfg(feature = "debug-log")]
macro_rules! debug_verdict {
    ($packet:expr, $program:expr, $what:expr, $number:expr) => {
        aya_log_ebpf::debug!(
            &aya_ebpf::programs::TcContext::new($packet.skb()),
            "program {} {} {}",
            $program as u32,
            $what,
            $number
        )
    };
}

/// Says what a program decided.
#[cfg(not(feature = "debug-log"))]
macro_rules! debug_verdict {
    ($($ignored:expr),*) => {};
}

pub(crate) use debug_verdict;
