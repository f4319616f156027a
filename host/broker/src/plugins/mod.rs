//! The broker's plug-ins: the library that the stages of its topics are made of.

use std::fmt;
use std::sync::Arc;

use millstream_stage::Library;
use millstream_wire::ErrorCode;
use parking_lot::Mutex;

use crate::error::ApiError;

type Make = Box<dyn Fn() -> Result<Arc<Library>, String> + Send + Sync>;

/// Where a broker's plug-ins come from. The sandbox is started when the first stage is wanted: a broker without stages has
/// no engine.
pub struct Plugins {
    make: Make,
    library: Mutex<Option<Arc<Library>>>,
}

impl fmt::Debug for Plugins {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Plugins").field("library", &self.library).finish_non_exhaustive()
    }
}

impl Plugins {
    /// `make` starts the sandbox and gives it the plug-ins of the program; what it says when it cannot is told to whoever
    /// wants a stage.
    pub fn new(make: impl Fn() -> Result<Arc<Library>, String> + Send + Sync + 'static) -> Self {
        Self { make: Box::new(make), library: Mutex::default() }
    }

    /// The library; blocks while the sandbox starts.
    pub(crate) fn library(&self) -> Result<Arc<Library>, ApiError> {
        let mut library = self.library.lock();
        if let Some(library) = &*library {
            return Ok(Arc::clone(library));
        }
        let made = (self.make)().map_err(|error| {
            let message = format!("the sandbox for stages does not start: {error}");
            tracing::error!("{message}");
            ApiError::new(ErrorCode::UNKNOWN_SERVER_ERROR, message)
        })?;
        Ok(Arc::clone(library.insert(made)))
    }
}
