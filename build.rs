//! Compiles the record format without a protoc on the machine.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let file = "proto/causeway/v1/txn.proto";
    println!("cargo::rerun-if-changed={file}");
    let set = protox::compile([file], ["proto"])?;
    prost_build::Config::new().bytes(["."]).compile_fds(set)?;
    Ok(())
}
