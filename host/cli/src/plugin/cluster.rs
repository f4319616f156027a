//! What the commands share that work on the plug-ins of a cluster.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use millstream_client::ClientConfig;
use millstream_client::plugins::PluginStore;

use crate::cluster::{self, Cluster};
use crate::topic;

/// How long the cluster may take over one change: a broker compiles and probes what it is given.
const PATIENCE: Duration = Duration::from_secs(30);

/// The store of a cluster's plug-ins.
pub(super) fn store(cluster: &Cluster) -> Result<PluginStore> {
    cluster.reach()?;
    let mut config: ClientConfig = topic::client_config(cluster)?;
    if config.default_api_timeout == cluster::PATIENCE {
        config.default_api_timeout = PATIENCE;
    }
    Ok(PluginStore::new(config)?)
}

/// Whether this binary has a plug-in of that name, which serves where no version does.
pub(super) fn is_embedded(name: &str) -> bool {
    millstream_plugins::DEFAULTS.iter().any(|(embedded, _)| *embedded == name)
}

/// `NAME@3`.
pub(super) fn name_and_number(text: &str) -> Result<(&str, u32)> {
    match optional_number(text)? {
        (name, Some(number)) => Ok((name, number)),
        (name, None) => {
            bail!("which version of {name}? Write {name}@NUMBER; `millstream plugin history {name}` shows them")
        }
    }
}

/// `NAME` or `NAME@3`.
pub(super) fn optional_number(text: &str) -> Result<(&str, Option<u32>)> {
    let Some((name, number)) = text.split_once('@') else { return Ok((text, None)) };
    let number =
        number.parse().with_context(|| format!("{number:?} in {text:?} is no version's number, such as {name}@3"))?;
    Ok((name, Some(number)))
}

/// What a version is called: `region@3`, and for 0 the one in the binary.
pub(super) fn shown(name: &str, number: u32) -> String {
    match number {
        0 => format!("{name} (the one in the binary)"),
        number => format!("{name}@{number}"),
    }
}

/// A time in milliseconds since the epoch as `2026-11-22T17:03:09.123Z`.
pub(super) fn utc(ms: i64) -> String {
    let (days, ms_of_day) = (ms.div_euclid(86_400_000), ms.rem_euclid(86_400_000));
    // Howard Hinnant's civil_from_days, https://howardhinnant.github.io/date_algorithms.html.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (seconds, millis) = (ms_of_day / 1_000, ms_of_day % 1_000);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_written_with_an_at() {
        assert_eq!(name_and_number("a-b@12").unwrap(), ("a-b", 12));
        assert_eq!(optional_number("a").unwrap(), ("a", None));
        assert!(name_and_number("a").unwrap_err().to_string().contains("a@NUMBER"));
        for text in ["a@", "a@x", "a@-1", "a@1.0"] {
            assert!(optional_number(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_are_utc() {
        assert_eq!(utc(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(utc(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(utc(1_795_366_989_123), "2026-11-22T17:03:09.123Z");
        assert_eq!(utc(-1), "1969-12-31T23:59:59.999Z");
    }
}
