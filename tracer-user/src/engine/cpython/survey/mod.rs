//! An interpreter and the symbol maps go in; the classes, functions and code that they ask for, the live objects and the
//! steps of containers come out.

mod catalog;
mod children;
mod classes;
mod current_span;
mod instances;
mod left_out;
mod methods;
mod modules;
mod object_array;
mod reachable;
mod routes;
mod scan;
mod surveyor;

pub use surveyor::Surveyor;
