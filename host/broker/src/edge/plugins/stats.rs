//! `plugin.stats`: the counts of every version here since the start, for `millstream plugin list`.

use millstream_registry::VersionStats;
use millstream_stage::EMBEDDED_NUMBER;

use super::Plugins;

/// Returns the counts as the JSON of the config.
pub(crate) fn stats(plugins: &Plugins) -> String {
    let library = plugins.library_if_started();
    let counts = library.as_ref().map(|library| library.counts()).unwrap_or_default();
    let embedded = |name: &str| library.as_ref()?.version(name, EMBEDDED_NUMBER).ok();
    let image = plugins.store().image();
    let stats = counts.into_iter().map(|version| {
        let number = version.number.unwrap_or(EMBEDDED_NUMBER);
        let stored = image.plugin(&version.plugin).map(|known| known.kind);
        let kind = stored.or_else(|| Some(embedded(&version.plugin)?.kind()));
        VersionStats {
            kind: kind.map(|kind| kind.name().to_owned()).unwrap_or_default(),
            number,
            version: version.version,
            calls: version.counts.calls,
            records: version.counts.records,
            nanos: version.counts.nanos,
            errors: version.counts.errors,
            traps: version.counts.traps,
            bad_records: version.counts.bad_records,
            waits: version.counts.waits,
            wait_max_nanos: version.counts.wait_max_nanos,
            rollbacks: plugins.rollbacks.of(&version.plugin, number),
            name: version.plugin,
        }
    });
    serde_json::to_string(&stats.collect::<Vec<_>>()).expect("counts are plain data")
}
