//! The five programs of the data plane. Each file named after a program is its list of steps.
#![no_std]
#![no_main]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

mod debug;
mod deliver;
mod drop;
mod encapsulate;
mod from_host;
mod from_net;
mod from_pod;
mod from_tunnel;
mod gateway;
mod known_nodes;
mod maps;
mod next_hop;
mod packet;
mod stack;
mod stats;
mod to_pod;
mod tunnel;
mod verdict;

/// Never runs: a reachable panic makes the verifier (as of 6.18) refuse the program, which every test
/// run would see.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The kernel lends GPL-only helpers (`bpf_fib_lookup`, `bpf_ktime_get_ns`) to a compatible licence only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
