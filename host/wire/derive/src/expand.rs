//! Generates the implementations from the description of a struct.

use proc_macro2::TokenStream;
use quote::quote;
use syn::ext::IdentExt;

use crate::parse::{Field, Root, Struct, Versions};

pub(crate) fn expand(input: &Struct) -> TokenStream {
    let parts =
        [message(input), default(input), input.root.as_ref().map(|root| identity(input, root)).unwrap_or_default()];
    parts.into_iter().collect()
}

fn message(input: &Struct) -> TokenStream {
    let ident = &input.ident;
    let (decode, encode) = (decode_body(input), encode_body(input));
    let (decode, encode) = match &input.root {
        None => (decode, encode),
        Some(root) => {
            let (first, last) = (root.versions.first, root.versions.last);
            let name = ident.to_string();
            let flexible = root.flexible.map_or(quote!(false), |flexible| quote!(version >= #flexible));
            let strict = root.request.is_some();
            let check = quote!(::millstream_wire::codec::check_version(#name, version, #first..=#last)?;);
            (
                quote! {
                    #check
                    reader.set_flexible(#flexible);
                    let decode = |reader: &mut ::millstream_wire::Reader|
                        -> ::core::result::Result<Self, ::millstream_wire::WireError> { #decode };
                    decode(reader).map_err(|error| error.in_message(#name, version))
                },
                quote! {
                    #check
                    writer.set_message(#flexible, #strict);
                    let encode = |writer: &mut ::millstream_wire::Writer|
                        -> ::core::result::Result<(), ::millstream_wire::WireError> { #encode };
                    encode(writer).map_err(|error| error.in_message(#name, version))
                },
            )
        }
    };
    let least = least_size(input);
    quote! {
        #[automatically_derived]
        impl ::millstream_wire::Message for #ident {
            #[allow(unused_variables, clippy::redundant_closure_call)]
            fn decode(
                reader: &mut ::millstream_wire::Reader,
                version: i16,
            ) -> ::core::result::Result<Self, ::millstream_wire::WireError> {
                #decode
            }

            #[allow(unused_variables, clippy::redundant_closure_call)]
            fn encode(
                &self,
                writer: &mut ::millstream_wire::Writer,
                version: i16,
            ) -> ::core::result::Result<(), ::millstream_wire::WireError> {
                #encode
            }

            #[allow(unused_variables)]
            fn least_size(version: i16, flexible: bool) -> usize {
                #least
            }
        }
    }
}

/// Generates the decoder: plain fields in order, then tagged ones in the order of the wire.
fn decode_body(input: &Struct) -> TokenStream {
    let names: Vec<_> = input.fields.iter().map(|field| &field.ident).collect();
    let plain = input.fields.iter().filter(|field| field.tag.is_none()).map(|field| {
        let (ident, ty, name) = (&field.ident, &field.ty, field.ident.unraw().to_string());
        let decoded = decode_field(field);
        let read = quote!(#decoded.map_err(|error| error.in_field(#name))?);
        let value = match version_test(field.versions) {
            None => read,
            Some(test) => {
                let absent = default_of(field);
                quote!(if #test { #read } else { #absent })
            }
        };
        quote!(let #ident: #ty = #value;)
    });
    let tagged: Vec<&Field> = input.fields.iter().filter(|field| field.tag.is_some()).collect();
    let defaults = tagged.iter().map(|field| {
        let (ident, ty, absent) = (&field.ident, &field.ty, default_of(field));
        quote!(let mut #ident: #ty = #absent;)
    });
    let arms = tagged.iter().map(|field| {
        let (tag, ident, name) = (field.tag, &field.ident, field.ident.unraw().to_string());
        let guard = version_test(field.versions).map(|test| quote!(if #test));
        let decoded = decode_field(field);
        quote!(#tag #guard => #ident = #decoded.map_err(|error| error.in_field(#name))?,)
    });
    let on_tag = if tagged.is_empty() {
        quote!(|_, _| Ok(false))
    } else {
        quote!(|reader, tag| {
            match tag {
                #(#arms)*
                _ => return Ok(false),
            }
            Ok(true)
        })
    };
    quote! {
        #(#plain)*
        #(#defaults)*
        if reader.flexible() {
            reader.tagged_fields(#on_tag)?;
        }
        Ok(Self { #(#names),* })
    }
}

fn decode_field(field: &Field) -> TokenStream {
    let ty = &field.ty;
    match version_test(field.nullable) {
        Some(nullable) => {
            quote!(::millstream_wire::codec::decode_option(reader, version, #nullable))
        }
        None => quote!(<#ty as ::millstream_wire::Message>::decode(reader, version)),
    }
}

fn encode_body(input: &Struct) -> TokenStream {
    let plain = input.fields.iter().filter(|field| field.tag.is_none()).map(|field| {
        let name = field.ident.unraw().to_string();
        let encoded = encode_field(field);
        let write = quote!(#encoded.map_err(|error| error.in_field(#name))?;);
        match version_test(field.versions) {
            None => write,
            Some(test) if field.ignorable => quote!(if #test { #write }),
            Some(test) => {
                let differs = differs_from_default(field);
                quote! {
                    if #test {
                        #write
                    } else if writer.strict() && #differs {
                        return Err(::millstream_wire::WireError::not_in_version().in_field(#name));
                    }
                }
            }
        }
    });
    let tagged: Vec<&Field> = input.fields.iter().filter(|field| field.tag.is_some()).collect();
    let present = tagged.iter().map(|field| {
        let differs = differs_from_default(field);
        match version_test(field.versions) {
            None => quote!(u32::from(#differs)),
            Some(test) => quote!(u32::from(#test && #differs)),
        }
    });
    let writes = tagged.iter().map(|field| {
        let (tag, name) = (field.tag, field.ident.unraw().to_string());
        let differs = differs_from_default(field);
        let test = version_test(field.versions).map(|test| quote!(#test &&));
        let encoded = encode_field(field);
        quote! {
            if #test #differs {
                writer.tagged_field(#tag, |writer| #encoded).map_err(|error| error.in_field(#name))?;
            }
        }
    });
    let absent = tagged.iter().filter(|field| !field.ignorable).filter_map(|field| {
        let (name, differs) = (field.ident.unraw().to_string(), differs_from_default(field));
        let test = version_test(field.versions)?;
        Some(quote! {
            if writer.strict() && !#test && #differs {
                return Err(::millstream_wire::WireError::not_in_version().in_field(#name));
            }
        })
    });
    quote! {
        #(#plain)*
        #(#absent)*
        if writer.flexible() {
            writer.unsigned_varint(0 #(+ #present)*);
            #(#writes)*
        }
        Ok(())
    }
}

fn encode_field(field: &Field) -> TokenStream {
    let ident = &field.ident;
    match version_test(field.nullable) {
        Some(nullable) => {
            quote!(::millstream_wire::codec::encode_option(&self.#ident, writer, version, #nullable))
        }
        None => quote!(::millstream_wire::Message::encode(&self.#ident, writer, version)),
    }
}

/// Generates the least size: the sum over the plain fields, and one byte for the count of tagged ones.
fn least_size(input: &Struct) -> TokenStream {
    let sizes = input.fields.iter().filter(|field| field.tag.is_none()).map(|field| {
        let ty = &field.ty;
        let size = quote!(<#ty as ::millstream_wire::Message>::least_size(version, flexible));
        match version_test(field.versions) {
            None => size,
            Some(test) => quote!(if #test { #size } else { 0 }),
        }
    });
    quote!(usize::from(flexible) #(+ #sizes)*)
}

fn default(input: &Struct) -> TokenStream {
    let ident = &input.ident;
    let fields = input.fields.iter().map(|field| {
        let (name, value) = (&field.ident, default_of(field));
        quote!(#name: #value)
    });
    quote! {
        #[automatically_derived]
        impl ::core::default::Default for #ident {
            fn default() -> Self {
                Self { #(#fields),* }
            }
        }
    }
}

/// Generates `Request` for requests, `Versioned` for every other message that stands alone.
fn identity(input: &Struct, root: &Root) -> TokenStream {
    let ident = &input.ident;
    let (first, last) = (root.versions.first, root.versions.last);
    let flexible = root.flexible.unwrap_or(i16::MAX);
    let versions = quote!(const VERSIONS: ::core::ops::RangeInclusive<i16> = #first..=#last;);
    match &root.request {
        Some((api, response)) => quote! {
            #[automatically_derived]
            impl ::millstream_wire::Request for #ident {
                const KEY: ::millstream_wire::ApiKey = ::millstream_wire::ApiKey::#api;
                #versions
                const FLEXIBLE: i16 = #flexible;
                type Response = #response;
            }
        },
        None => quote! {
            #[automatically_derived]
            impl ::millstream_wire::Versioned for #ident {
                #versions
            }
        },
    }
}

fn default_of(field: &Field) -> TokenStream {
    field.default.as_ref().map_or(quote!(::core::default::Default::default()), |value| quote!(#value))
}

fn differs_from_default(field: &Field) -> TokenStream {
    let (ident, ty, value) = (&field.ident, &field.ty, default_of(field));
    quote!({ let default: #ty = #value; self.#ident != default })
}

/// Generates the test that a version is in the range; None if every version is.
fn version_test(versions: Versions) -> Option<TokenStream> {
    match (versions.first, versions.last) {
        (None, None) => None,
        (Some(first), None) => Some(quote!((version >= #first))),
        (None, Some(last)) => Some(quote!((version <= #last))),
        (Some(first), Some(last)) => Some(quote!((#first..=#last).contains(&version))),
    }
}
