//! The events of the file, and the check of results against it.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// One JSON object in each line.
const FILE: &str = include_str!("../earthquakes.jsonl");

/// The fields that the checks read.
#[derive(Debug, Deserialize)]
struct Quake {
    mag: f64,
    depth: f64,
    lon: f64,
    lat: f64,
}

/// One line of the file.
pub(crate) struct Event {
    pub(crate) json: &'static str,
    pub(crate) magnitude: f64,
    pub(crate) depth_km: f64,
    /// Degrees.
    pub(crate) lon: f64,
    /// Degrees.
    pub(crate) lat: f64,
}

/// Returns all events, sorted by time.
///
/// # Errors
/// A line is not an event.
pub(crate) fn all() -> Result<Vec<Event>> {
    let event = |(index, json): (usize, &'static str)| {
        let Quake { mag: magnitude, depth: depth_km, lon, lat } =
            serde_json::from_str(json).with_context(|| format!("line {} of the file", index + 1))?;
        Ok(Event { json, magnitude, depth_km, lon, lat })
    };
    FILE.lines().enumerate().map(event).collect()
}

/// Checks that the values read are those of the file, each as often as there, in any order. Returns their number.
///
/// # Errors
/// A value is missing, came twice, or is not in the file.
pub(crate) fn check<'a>(
    what: &str,
    read: impl IntoIterator<Item = &'a [u8]>,
    wanted: impl IntoIterator<Item = &'a str>,
) -> Result<usize> {
    let mut missing: BTreeMap<&[u8], i64> = BTreeMap::new();
    let mut count = 0;
    for json in wanted {
        *missing.entry(json.as_bytes()).or_default() += 1;
        count += 1;
    }
    for json in read {
        *missing.entry(json).or_default() -= 1;
    }
    let lost: i64 = missing.values().filter(|&&times| times > 0).sum();
    let extra: i64 = -missing.values().filter(|&&times| times < 0).sum::<i64>();
    ensure!(lost == 0 && extra == 0, "{what}: of {count} events {lost} are missing, and {extra} are too many");
    Ok(count)
}
