//! What `wit-bindgen` makes of the contract: one module a world, the interfaces that they share in the first one.
//!
//! The custom section that describes a world is left by its export macro alone, in the crate of the
//! plug-in, so that the module of a filter does not claim to be a partitioner too.

#![allow(missing_docs, unreachable_pub, unsafe_code, rust_2018_idioms, clippy::all, reason = "generated code")]

pub mod filter {
    wit_bindgen::generate!({
        path: "../wit/1.0.0",
        world: "filter",
        pub_export_macro: true,
        disable_custom_section_link_helpers: true,
        generate_all,
    });
}

pub mod partitioner {
    wit_bindgen::generate!({
        path: "../wit/1.0.0",
        world: "partitioner",
        pub_export_macro: true,
        disable_custom_section_link_helpers: true,
        with: {
            "millstream:stage/batch@1.0.0": crate::bindings::filter::millstream::stage::batch,
            "millstream:stage/types@1.0.0": crate::bindings::filter::millstream::stage::types,
            "millstream:stage/host@1.0.0": crate::bindings::filter::millstream::stage::host,
        },
    });
}

pub mod serializer {
    wit_bindgen::generate!({
        path: "../wit/1.0.0",
        world: "serializer",
        pub_export_macro: true,
        disable_custom_section_link_helpers: true,
        with: {
            "millstream:stage/batch@1.0.0": crate::bindings::filter::millstream::stage::batch,
            "millstream:stage/types@1.0.0": crate::bindings::filter::millstream::stage::types,
            "millstream:stage/host@1.0.0": crate::bindings::filter::millstream::stage::host,
        },
    });
}

pub mod compressor {
    wit_bindgen::generate!({
        path: "../wit/1.0.0",
        world: "compressor",
        pub_export_macro: true,
        disable_custom_section_link_helpers: true,
        with: {
            "millstream:stage/types@1.0.0": crate::bindings::filter::millstream::stage::types,
            "millstream:stage/host@1.0.0": crate::bindings::filter::millstream::stage::host,
        },
    });
}
