//! What the sockets of a process have read and written goes in; the requests that it was asked over HTTP/1 come out.

mod b3;
mod begun_request;
mod body;
mod call_parents;
mod connection;
mod contexts;
mod digits;
mod head;
mod jaeger;
mod piece;
mod propagators;
mod server_requests;
mod trace_context;
mod url;

pub use call_parents::{CallParents, OutermostCall};
pub use connection::Outcome;
pub use propagators::Propagators;
pub use server_requests::ServerRequests;
