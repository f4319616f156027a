//! Makes stages of the default plug-ins.

use std::sync::OnceLock;

use millstream_stage::{Engine, EngineConfig, Stage};

/// Returns a stage of a default plug-in.
pub(crate) fn stage(name: &str, config: &str) -> Stage {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    stage_of(ENGINE.get_or_init(|| Engine::new(EngineConfig::default()).unwrap()), name, config)
}

/// Returns a stage of a default plug-in in this engine. Its calls have a deadline.
pub(crate) fn stage_of(engine: &Engine, name: &str, config: &str) -> Stage {
    let plugin = millstream_plugins::find(name).expect("a default plug-in");
    let loaded = engine.load(plugin.component()).unwrap_or_else(|error| panic!("{name}: {error}"));
    Stage::new(loaded, config).unwrap_or_else(|error| panic!("{name}{config}: {error}"))
}
