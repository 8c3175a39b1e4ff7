//! Compiles the record format without a protoc on the machine.

use prost_types::FileDescriptorSet;
use prost_types::field_descriptor_proto::Type;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let file = "proto/causeway/v1/txn.proto";
    println!("cargo::rerun-if-changed={file}");
    let mut set = protox::compile([file], ["proto"])?;
    as_bytes(&mut set, "TableChange", "table");
    prost_build::Config::new().bytes(["."]).compile_fds(set)?;
    Ok(())
}

/// Has the code take a message for the bytes that it is on the wire: `change::Tables` reads
/// and writes them, each table once.
fn as_bytes(set: &mut FileDescriptorSet, message: &str, field: &str) {
    let messages = set.file.iter_mut().flat_map(|file| &mut file.message_type);
    let fields = messages.filter(|it| it.name() == message).flat_map(|it| &mut it.field);
    for field in fields.filter(|it| it.name() == field) {
        field.set_type(Type::Bytes);
        field.type_name = None;
    }
}
