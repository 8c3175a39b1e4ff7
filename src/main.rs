//! The `causeway` command.

use std::process::ExitCode;

/// glibc's takes a third longer for all that the agent does: records are many small pieces.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    causeway::cli::main()
}
