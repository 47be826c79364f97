//! Takes the bytes of one record and gives back an `Event`, or says why the bytes are no record.

mod call_record;
mod error;

pub use call_record::decode;
pub use error::DecodeError;
