//! Takes the bytes of one record and gives back an `Event`, or says why the bytes are no record.

mod call_record;
mod context_record;
mod current_span_record;
mod error;
mod process_record;
mod record;
mod socket_record;
mod tolerant;

pub use error::DecodeError;
pub use record::decode;
