//! Finds a field of a JSON text without building the document.

mod pointer;
mod scan;

pub use pointer::Pointer;

/// The value at a [`Pointer`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Found<'a> {
    /// There is no such field.
    Nothing,
    /// The field is `null`.
    Null,
    /// The field is `true` or `false`.
    Bool(bool),
    /// The field is a number.
    Number(Number),
    /// The field is a text, without escapes.
    Text(&'a str),
    /// The field is an object or an array.
    Other,
}

/// A number of JSON. Whole numbers stay whole, since ids of 64 bits do not fit into a float.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Number {
    /// A number without a fraction or an exponent, of at most 64 bits.
    Whole(i128),
    /// Any other number.
    Float(f64),
}
