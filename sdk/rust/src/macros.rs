//! The macros that make a plug-in of a type.

/// Makes a plug-in of a type that is a [`Filter`](trait@crate::Filter): one in a crate.
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

/// Makes a plug-in of a type that is a [`Partitioner`](trait@crate::Partitioner): one in a crate.
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

/// Makes a plug-in of a type that is a [`Serializer`](trait@crate::Serializer): one in a crate.
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

/// Makes a plug-in of a type that is a [`Compressor`](trait@crate::Compressor): one in a crate.
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

/// What the four have in common: who the stage is, and in the sandbox the slot that holds it.
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
