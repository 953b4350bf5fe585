//! The demo: three nodes and six pods made of network namespaces, which show that they talk.

use std::process::ExitCode;

fn main() -> ExitCode {
    tests::demo::main()
}
