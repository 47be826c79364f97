//! Where the built-in types of an interpreter are.

use crate::model::RemoteAddress;

/// Addresses of built-in types.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BuiltinTypes {
    /// `type`.
    pub class: RemoteAddress,
    /// `object`.
    pub object: RemoteAddress,
    /// The type of modules.
    pub module: RemoteAddress,
    /// `str`.
    pub text: RemoteAddress,
    /// `bytes`.
    pub bytes: RemoteAddress,
    /// `int`.
    pub integer: RemoteAddress,
    /// `tuple`.
    pub tuple: RemoteAddress,
    /// `list`.
    pub list: RemoteAddress,
    /// `dict`.
    pub dict: RemoteAddress,
    /// `set`.
    pub set: RemoteAddress,
    /// `frozenset`.
    pub frozen_set: RemoteAddress,
    /// `property`.
    pub property: RemoteAddress,
    /// `staticmethod`.
    pub static_method: RemoteAddress,
    /// `classmethod`.
    pub class_method: RemoteAddress,
    /// The type of Python functions.
    pub function: RemoteAddress,
    /// The type of code objects.
    pub code: RemoteAddress,
    /// The type of bound methods; `None` if the file has no symbols and the program has not imported `types` so far.
    pub method: Option<RemoteAddress>,
    /// The type of cells; `None` as for `method`.
    pub cell: Option<RemoteAddress>,
    /// `functools.partial`; `None` if the program has not imported `functools` so far.
    pub partial: Option<RemoteAddress>,
}
