//! A borrowed value of an attribute.

use crate::model::AttributeValue;

/// A borrowed attribute value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueRef<'value> {
    /// Whole number.
    Integer(i64),
    /// True or false.
    Boolean(bool),
    /// Text.
    Text(&'value str),
}

impl<'value> From<&'value AttributeValue> for ValueRef<'value> {
    fn from(value: &'value AttributeValue) -> Self {
        match value {
            AttributeValue::Integer(value) => Self::Integer(*value),
            AttributeValue::Boolean(value) => Self::Boolean(*value),
            AttributeValue::Text(value) => Self::Text(value),
        }
    }
}
