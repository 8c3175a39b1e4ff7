//! No bytes panic the decoding of a record.
#![no_main]

use causeway::change::Record;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| drop(Record::decode(bytes.to_vec().into())));
