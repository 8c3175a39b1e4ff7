//! The `causeway` command.

use std::process::ExitCode;

/// With glibc's the agent takes half as much processor time again: records are many small
/// pieces.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    causeway::cli::main()
}
