//! Builds the default plug-ins and makes stages of them.

use std::path::Path;
use std::sync::OnceLock;

use millstream_sdk_build::{Options, build_packages};
use millstream_stage::{Engine, EngineConfig, Stage};

/// Returns a stage of a default plug-in.
pub(crate) fn stage(name: &str, config: &str) -> Stage {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    stage_of(ENGINE.get_or_init(|| Engine::new(EngineConfig::default()).unwrap()), name, config)
}

/// Returns a stage of a default plug-in in this engine. Cargo builds the plug-in only if it has changed.
pub(crate) fn stage_of(engine: &Engine, name: &str, config: &str) -> Stage {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let package = format!("millstream-plugin-{name}");
    let built = build_packages(workspace, &[package], &Options::default()).unwrap();
    Stage::new(engine.load(&built[0].component).unwrap(), config).unwrap()
}
