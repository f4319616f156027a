//! The macros that export a type as a plug-in.

/// Exports a [`Filter`](trait@crate::Filter) as a plug-in. Use one export macro in a crate.
#[macro_export]
macro_rules! filter {
    ($stage:ty) => {
        $crate::__stage!($stage, Filter, <$stage as $crate::Filter>::COLUMNS, ::core::option::Option::None);

        #[cfg(target_arch = "wasm32")]
        const _: () = {
            type Export = $crate::export::FilterExport<$stage>;
    $crate::bindings::filter::export!(Export with_types_in $crate::bindings::filter);
        };
    };
}

/// Exports a [`Partitioner`](trait@crate::Partitioner) as a plug-in. Use one export macro in a crate.
#[macro_export]
macro_rules! partitioner {
    ($stage:ty) => {
        $crate::__stage!($stage, Partitioner, <$stage as $crate::Partitioner>::COLUMNS, ::core::option::Option::None);

        #[cfg(target_arch = "wasm32")]
        const _: () = {
            type Export = $crate::export::PartitionerExport<$stage>;
    $crate::bindings::partitioner::export!(Export with_types_in $crate::bindings::partitioner);
        };
    };
}

/// Exports a [`Serializer`](trait@crate::Serializer) as a plug-in. Use one export macro in a crate.
#[macro_export]
macro_rules! serializer {
    ($stage:ty) => {
        $crate::__stage!($stage, Serializer, <$stage as $crate::Serializer>::COLUMNS, ::core::option::Option::None);

        #[cfg(target_arch = "wasm32")]
        const _: () = {
            type Export = $crate::export::SerializerExport<$stage>;
    $crate::bindings::serializer::export!(Export with_types_in $crate::bindings::serializer);
        };
    };
}

/// Exports a [`Compressor`](trait@crate::Compressor) as a plug-in. Use one export macro in a crate.
#[macro_export]
macro_rules! compressor {
    ($stage:ty) => {
        $crate::__stage!(
            $stage,
            Compressor,
            $crate::Columns::NONE,
            ::core::option::Option::Some(<$stage as $crate::Compressor>::FORMAT)
        );

        #[cfg(target_arch = "wasm32")]
        const _: () = {
            type Export = $crate::export::CompressorExport<$stage>;
    $crate::bindings::compressor::export!(Export with_types_in $crate::bindings::compressor);
        };
    };
}

/// Expands to the common part of the four macros: the description of the stage and, in the sandbox, its slot.
#[doc(hidden)]
#[macro_export]
macro_rules! __stage {
    ($stage:ty, $kind:ident, $reads:expr, $writes:expr) => {
        impl $crate::Describe for $stage {
            const KIND: $crate::Kind = $crate::Kind::$kind;
            const PACKAGE: &'static str = ::core::env!("CARGO_PKG_NAME");
            const VERSION: &'static str = ::core::env!("CARGO_PKG_VERSION");
            const READS: $crate::Columns = $reads;
            const WRITES: ::core::option::Option<$crate::Format> = $writes;
        }

        #[cfg(target_arch = "wasm32")]
        impl $crate::export::Stage for $stage {
            fn with_slot<R>(call: impl FnOnce(&$crate::export::Slot<Self>) -> R) -> R {
                ::std::thread_local! {
                    static SLOT: $crate::export::Slot<$stage> = const { $crate::export::Slot::new() };
                }
                SLOT.with(call)
            }
        }
    };
}
