//! Partitions as arguments, `TOPIC` or `TOPIC:PARTITION`, and their results.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io::Write;
use std::str::FromStr;

use anyhow::bail;
use millstream_client::{Admin, Error, TopicPartition};
use serde_json::json;

use crate::output;

/// A topic, or one of its partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) topic: String,
    pub(super) partition: Option<i32>,
}

impl FromStr for Target {
    type Err = Infallible;

    /// Parses `TOPIC` or `TOPIC:PARTITION`. The name of a topic has no colon.
    fn from_str(text: &str) -> Result<Self, Infallible> {
        let parsed = text.rsplit_once(':').and_then(|(topic, partition)| Some((topic, partition.parse().ok()?)));
        Ok(match parsed {
            Some((topic, partition)) => Self { topic: topic.to_owned(), partition: Some(partition) },
            None => Self { topic: text.to_owned(), partition: None },
        })
    }
}

impl Target {
    /// Returns the partition, or all partitions of the topic.
    pub(super) async fn partitions(&self, admin: &Admin) -> anyhow::Result<Vec<TopicPartition>> {
        if let Some(partition) = self.partition {
            return Ok(vec![TopicPartition::new(&*self.topic, partition)]);
        }
        let topics = admin.describe_topics(std::slice::from_ref(&self.topic)).await?;
        let partitions = topics.iter().flat_map(|topic| &topic.partitions);
        Ok(partitions.map(|one| TopicPartition::new(&*self.topic, one.partition)).collect())
    }
}

/// Prints the result of each partition. `done` is what has happened to those without an error.
pub(super) fn print(
    results: &BTreeMap<TopicPartition, Result<(), Error>>,
    json: bool,
    done: impl Fn(&TopicPartition) -> String,
) -> anyhow::Result<()> {
    if json {
        let partitions = results.iter().map(|(TopicPartition { topic, partition }, result)| {
            let error = result.as_ref().err().map(ToString::to_string);
            json!({ "topic": &**topic, "partition": partition, "error": error })
        });
        output::line(&json!({ "partitions": partitions.collect::<Vec<_>>() }).to_string())?;
    } else {
        let mut out = output::stdout();
        for (partition, result) in results {
            match result {
                Ok(()) => writeln!(out, "{}:{}  {}", partition.topic, partition.partition, done(partition))?,
                Err(error) => writeln!(out, "{}:{}  {error}", partition.topic, partition.partition)?,
            }
        }
        out.flush()?;
    }
    let failed = results.values().filter(|result| result.is_err()).count();
    if failed > 0 {
        bail!("{failed} of {} partitions were rejected", results.len());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_topic_or_a_partition() {
        let parsed = |text: &str| text.parse::<Target>().map(|target| (target.topic, target.partition)).unwrap();
        assert_eq!(parsed("a.b-c"), ("a.b-c".to_owned(), None));
        assert_eq!(parsed("a:12"), ("a".to_owned(), Some(12)));
        assert_eq!(parsed("a:b"), ("a:b".to_owned(), None));
    }
}
