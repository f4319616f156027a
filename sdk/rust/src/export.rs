//! Connects the calls of the contract with the trait that a stage implements. The macros pass an `...Export<T>` to the
//! bindings; an instance of a module holds one stage.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::panic;

use crate::batch::{Batch, Column, HeaderColumns};
use crate::bindings::filter::millstream::stage::{batch as wire, types};
use crate::bindings::{compressor, filter, partitioner, serializer};
use crate::buffer::ColumnBuf;
use crate::columns::Columns;
use crate::compressor::{Compressor, Format};
use crate::describe::{Describe, Kind};
use crate::error::{ConfigError, Error};
use crate::filter::Filter;
use crate::host::{self, Level};
use crate::partitioner::{Partitioner, Partitions};
use crate::serializer::{Changed, Serializer};

/// Holds the stage of an instance. The macros put one into the crate of the plug-in.
#[derive(Debug)]
pub struct Slot<T>(RefCell<Option<T>>);

impl<T> Slot<T> {
    /// Makes an empty slot: the stage is not configured yet.
    pub const fn new() -> Self {
        Self(RefCell::new(None))
    }

    fn configure(
        &self,
        json: &str,
        prepare: impl FnOnce(&mut T) -> Result<(), ConfigError>,
    ) -> Result<(), types::ConfigError>
    where
        T: serde_core::de::DeserializeOwned,
    {
        // A panic becomes a trap without a message, so the message goes to the log first.
        panic::set_hook(Box::new(|panic| host::log(Level::Error, panic)));
        let configured = crate::config::from_json::<T>(json).and_then(|mut stage| {
            prepare(&mut stage)?;
            Ok(stage)
        });
        match configured {
            Ok(stage) => {
                *self.0.borrow_mut() = Some(stage);
                Ok(())
            }
            Err(ConfigError { field, message }) => Err(types::ConfigError { field, message }),
        }
    }

    fn with<R>(&self, call: impl FnOnce(&mut T) -> R) -> R {
        let mut slot = self.0.borrow_mut();
        call(slot.as_mut().expect("the host configures a stage before it calls it"))
    }
}

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// The stage of this module, in the slot of the macros.
pub trait Stage: Describe + Sized + 'static {
    /// Calls a function with the slot.
    fn with_slot<R>(call: impl FnOnce(&Slot<Self>) -> R) -> R;
}

fn describe<T: Describe>() -> types::Description {
    let mut columns = types::Columns::empty();
    for (column, flag) in [
        (Columns::TIMESTAMPS, types::Columns::TIMESTAMPS),
        (Columns::KEYS, types::Columns::KEYS),
        (Columns::VALUES, types::Columns::VALUES),
        (Columns::HEADERS, types::Columns::HEADERS),
    ] {
        if T::READS.contains(column) {
            columns = columns | flag;
        }
    }
    types::Description {
        name: T::name().to_owned(),
        version: T::VERSION.to_owned(),
        kind: match T::KIND {
            Kind::Partitioner => types::Kind::Partitioner,
            Kind::Serializer => types::Kind::Serializer,
            Kind::Compressor => types::Kind::Compressor,
            Kind::Filter => types::Kind::Filter,
        },
        columns,
        format: T::WRITES.map(|format| match format {
            Format::Gzip => types::Format::Gzip,
            Format::Snappy => types::Format::Snappy,
            Format::Lz4 => types::Format::Lz4,
            Format::Zstd => types::Format::Zstd,
            Format::Private(name) => types::Format::Private(name.to_owned()),
        }),
    }
}

fn column(column: &wire::Column) -> Column<'_> {
    Column::new(&column.data, &column.ends, &column.nulls)
}

fn batch<'a>(topic: &'a str, records: &'a wire::Records, reads: Columns) -> Batch<'a> {
    Batch {
        topic,
        rows: records.rows as usize,
        timestamps: reads.contains(Columns::TIMESTAMPS).then_some(&records.timestamps[..]),
        keys: records.keys.as_ref().map(column),
        values: records.values.as_ref().map(column),
        headers: records.headers.as_ref().map(|headers| HeaderColumns {
            ends: &headers.ends,
            names: column(&headers.names),
            values: column(&headers.values),
        }),
    }
}

fn error(error: Error) -> types::Error {
    match error {
        Error::Rows(rows) => types::Error::Rows(
            rows.into_iter().map(|bad| types::RowError { row: bad.row, message: bad.message }).collect(),
        ),
        Error::Batch(message) => types::Error::Batch(message),
    }
}

/// The world `filter` for a [`Filter`].
#[derive(Debug)]
pub struct FilterExport<T>(PhantomData<T>);

impl<T: Filter + Stage> filter::Guest for FilterExport<T> {
    fn describe() -> types::Description {
        describe::<T>()
    }

    fn configure(json: String) -> Result<(), types::ConfigError> {
        T::with_slot(|slot| slot.configure(&json, T::prepare))
    }

    fn filter(topic: String, records: wire::Records) -> Result<Vec<u8>, types::Error> {
        let batch = batch(&topic, &records, T::COLUMNS);
        let kept = T::with_slot(|slot| slot.with(|stage| crate::filter::filter(stage, &batch)));
        kept.map(|kept| kept.into_bytes()).map_err(error)
    }
}

/// The world `partitioner` for a [`Partitioner`].
#[derive(Debug)]
pub struct PartitionerExport<T>(PhantomData<T>);

impl<T: Partitioner + Stage> partitioner::Guest for PartitionerExport<T> {
    fn describe() -> types::Description {
        describe::<T>()
    }

    fn configure(json: String) -> Result<(), types::ConfigError> {
        T::with_slot(|slot| slot.configure(&json, T::prepare))
    }

    fn partition(
        topic: String,
        partitions: u32,
        load: Vec<u64>,
        records: wire::Records,
    ) -> Result<Vec<u32>, types::Error> {
        let batch = batch(&topic, &records, T::COLUMNS);
        let partitions = Partitions::new(partitions, &load);
        T::with_slot(|slot| slot.with(|stage| crate::partitioner::partition(stage, &batch, &partitions))).map_err(error)
    }
}

/// The world `serializer` for a [`Serializer`].
#[derive(Debug)]
pub struct SerializerExport<T>(PhantomData<T>);

impl<T: Serializer + Stage> serializer::Guest for SerializerExport<T> {
    fn describe() -> types::Description {
        describe::<T>()
    }

    fn configure(json: String) -> Result<(), types::ConfigError> {
        T::with_slot(|slot| slot.configure(&json, T::prepare))
    }

    fn serialize(topic: String, records: wire::Records) -> Result<serializer::ColumnsChanged, types::Error> {
        let batch = batch(&topic, &records, T::COLUMNS);
        T::with_slot(|slot| slot.with(|stage| crate::serializer::serialize(stage, &batch))).map(changed).map_err(error)
    }

    fn deserialize(topic: String, records: wire::Records) -> Result<serializer::ColumnsChanged, types::Error> {
        let batch = batch(&topic, &records, T::COLUMNS);
        T::with_slot(|slot| slot.with(|stage| crate::serializer::deserialize(stage, &batch)))
            .map(changed)
            .map_err(error)
    }
}

fn changed(changed: Changed) -> serializer::ColumnsChanged {
    let column = |column: ColumnBuf| {
        let (data, ends, nulls) = column.into_parts();
        wire::Column { data, ends, nulls }
    };
    serializer::ColumnsChanged { keys: changed.keys.map(column), values: changed.values.map(column) }
}

/// The world `compressor` for a [`Compressor`].
#[derive(Debug)]
pub struct CompressorExport<T>(PhantomData<T>);

impl<T: Compressor + Stage> compressor::Guest for CompressorExport<T> {
    fn describe() -> types::Description {
        describe::<T>()
    }

    fn configure(json: String) -> Result<(), types::ConfigError> {
        T::with_slot(|slot| slot.configure(&json, T::prepare))
    }

    fn compress(data: Vec<u8>) -> Result<Vec<u8>, String> {
        T::with_slot(|slot| slot.with(|stage| crate::compressor::compress(stage, &data)))
    }

    fn decompress(data: Vec<u8>, max: u32) -> Result<Vec<u8>, String> {
        T::with_slot(|slot| slot.with(|stage| crate::compressor::decompress(stage, &data, max)))
    }
}
