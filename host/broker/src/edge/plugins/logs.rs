//! The log lines of plug-ins, as records of the topic `__millstream_plugin_logs`. The key is the plug-in's name and the
//! value is the line. The header `version` is the number of the version in the store, and `level` is the log level. The
//! topic is created with the first line.

use std::sync::Arc;

use bytes::Bytes;
use millstream_partition::now_ms;
use millstream_record::{BatchBuilder, BuildError, Codec, Header, TimestampType};
use millstream_registry::LOGS_TOPIC;
use millstream_stage::{EMBEDDED_NUMBER, LogLine};
use tokio::sync::{mpsc, watch};

use crate::edge::context::{Edge, MetadataChanges};
use crate::edge::leaders;
use crate::error::ApiError;

/// The most lines of one batch. Each has at most a kilobyte, so that the batch fits every topic.
const BATCH_LINES: usize = 200;

/// A line that a plug-in logged.
#[derive(Debug)]
pub(super) struct Line {
    at_ms: i64,
    plugin: String,
    number: u32,
    level: String,
    text: String,
}

impl Line {
    /// Copies a line, with the current time.
    pub(super) fn of(line: LogLine<'_>) -> Line {
        Line {
            at_ms: now_ms(),
            plugin: line.version.plugin.to_owned(),
            number: line.version.number.unwrap_or(EMBEDDED_NUMBER),
            level: line.level.to_string(),
            text: line.line.to_owned(),
        }
    }
}

/// Writes lines until the broker stops. They need no fsync.
pub(super) async fn run(
    edge: Arc<Edge>,
    changes: Arc<dyn MetadataChanges>,
    mut lines: mpsc::Receiver<Line>,
    mut stop: watch::Receiver<bool>,
) {
    let mut waiting = Vec::new();
    loop {
        let count = tokio::select! {
            count = lines.recv_many(&mut waiting, BATCH_LINES) => count,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        if count == 0 {
            return;
        }
        if let Err(error) = write(&edge, &*changes, &waiting).await {
            tracing::warn!("{count} lines of plug-ins are not in {LOGS_TOPIC}: {error}");
        }
        waiting.clear();
    }
}

async fn write(edge: &Arc<Edge>, changes: &dyn MetadataChanges, lines: &[Line]) -> Result<(), ApiError> {
    changes.ensure_topic(LOGS_TOPIC).await?;
    let failed = |error: BuildError| ApiError::new(millstream_wire::ErrorCode::UNKNOWN_SERVER_ERROR, error.to_string());
    let batch = Bytes::from(batch_of(lines).map_err(failed)?);
    // Log lines need no fsync: nothing waits for the commit.
    leaders::append(edge, LOGS_TOPIC, 0, vec![batch], None, false).await
}

fn batch_of(lines: &[Line]) -> Result<Vec<u8>, BuildError> {
    let mut builder = BatchBuilder::new(Codec::None, TimestampType::CreateTime);
    for line in lines {
        let number = line.number.to_string();
        let headers =
            [Header::new("version", Some(number.as_bytes())), Header::new("level", Some(line.level.as_bytes()))];
        builder.append(line.at_ms, Some(line.plugin.as_bytes()), Some(line.text.as_bytes()), headers)?;
    }
    builder.build()
}
