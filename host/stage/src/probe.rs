//! Prepares a version for a stage: creates, configures and probes instances.

use std::sync::Arc;

use crate::batch::{Column, Headers, Records};
use crate::contract::Kind;
use crate::error::{Fault, StageError};
use crate::host_imports::HostSide;
use crate::instance::Instance;
use crate::plugin::Plugin;
use crate::pool::Pool;

/// The input for a compressor, which must decompress to the same bytes.
const PROBE: &[u8] = b"a small text that repeats itself: a small text that repeats itself";

/// Prepares a version for a stage: creates, configures and probes this number of instances. A guest in Go or JavaScript
/// does much of its work in its first call, which no batch has to wait for then.
pub(crate) fn prepare(
    plugin: Plugin,
    config: &Arc<str>,
    side: &Arc<HostSide>,
    instances: usize,
) -> Result<Arc<Pool>, StageError> {
    let failed = |fault| StageError::of(&plugin, fault);
    let pool = Pool::new(plugin.clone(), Arc::clone(config), Arc::clone(side));
    pool.warm(instances, |instance| probe(instance, &plugin)).map_err(failed)?;
    Ok(pool)
}

/// Calls every function once with a batch of no rows. A typed error is a good response; only a plug-in that misbehaves
/// is rejected.
fn probe(instance: &mut Instance, plugin: &Plugin) -> Result<(), Fault> {
    let column = Column { data: &[], ends: &[], nulls: &[] };
    let headers = Headers { ends: &[], names: column, values: column };
    let records =
        Records { rows: 0, timestamps: &[], keys: Some(column), values: Some(column), headers: Some(headers) }
            .restricted(plugin.description().columns);
    let tolerate = |outcome: Result<(), Fault>| match outcome {
        Err(fault) if fault.is_trap() => Err(fault),
        _ => Ok(()),
    };
    match plugin.kind() {
        Kind::Partitioner => tolerate(instance.partition("", 1, &[0], records).map(drop)),
        Kind::Filter => tolerate(instance.filter("", records).map(drop)),
        Kind::Serializer => {
            tolerate(instance.serialize("", records).map(drop))?;
            tolerate(instance.deserialize("", records).map(drop))
        }
        Kind::Compressor => {
            let compressed = instance.compress(PROBE);
            tolerate(compressed.and_then(|bytes| verify(instance, &bytes, PROBE)))
        }
    }
}

/// Checks that `compressed` decompresses to `data`.
pub(crate) fn verify(instance: &mut Instance, compressed: &[u8], data: &[u8]) -> Result<(), Fault> {
    let problem = match instance.decompress(compressed, data.len()) {
        Ok(back) if back == data => return Ok(()),
        Ok(back) => match back.iter().zip(data).position(|(have, want)| have != want) {
            Some(at) => format!("byte {at} of {} is different", data.len()),
            None => format!("it returns {} bytes instead of {}", back.len(), data.len()),
        },
        Err(Fault::Batch(message)) => message,
        Err(fault) => return Err(fault),
    };
    Err(Fault::Lossy { problem })
}
