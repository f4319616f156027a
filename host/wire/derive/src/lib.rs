//! The derive macro of millstream-wire: a Kafka message is a plain struct, and the schema's rules
//! for each field are an attribute beside it.
//!
//! ```ignore
//! /// Keeps a member in its group.
//! #[derive(Message, Debug, Clone, PartialEq)]
//! #[message(api = Heartbeat, response = HeartbeatResponse, versions = 0..=4, flexible = 4)]
//! pub struct HeartbeatRequest {
//!     pub group_id: Str,
//!     pub generation_id: i32,
//!     pub member_id: Str,
//!     #[wire(versions = 3..)]
//!     pub group_instance_id: Option<Str>,
//! }
//! ```
//!
//! On the struct, `#[message(...)]` marks a message that stands alone in a frame or a record. A struct that
//! only occurs in others has no such attribute and has the versions of the message that holds it.
//!
//! | Key | Meaning |
//! |---|---|
//! | `versions = 0..=4` | the versions that can be read and written |
//! | `flexible = 4` | the first version with compact lengths and tagged fields; absent: none |
//! | `api`, `response` | makes it a `Request` of that `ApiKey` with that response |
//!
//! On a field, `#[wire(...)]`:
//!
//! | Key | Meaning |
//! |---|---|
//! | `versions = 3..` | the versions that have the field; absent: all |
//! | `nullable = 7..` | narrower versions in which an `Option` may be null; absent: wherever the field exists |
//! | `tag = 0` | a tagged field, written only when it differs from its default |
//! | `default = -1` | the value when absent; otherwise `Default::default()`, so null for an `Option` |
//! | `ignorable` | a request may drop the value in a version without the field; otherwise that is an error |

use proc_macro::TokenStream;

mod expand;
mod parse;

/// Implements `Message`, `Default` and, by the struct's attribute, `Request` or `Versioned`.
#[proc_macro_derive(Message, attributes(message, wire))]
pub fn derive_message(input: TokenStream) -> TokenStream {
    let input = syn::parse_macro_input!(input as syn::DeriveInput);
    parse::Struct::parse(input)
        .map(|parsed| expand::expand(&parsed))
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}
