//! `millstream cluster reassign`.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use millstream_client::{Admin, Reassignment, TopicPartition};
use serde_json::json;

use super::ids;
use super::target::{Target, print};
use crate::connection::Connection;
use crate::output;
use crate::table::Align::{Left, Right};
use crate::table::Table;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
With a whole topic and --to 1,2,3 each partition begins one node further:
partition 0 on 1,2,3, partition 1 on 2,3,1 and so on, which spreads the leaders.

A plan is the file of Kafka's kafka-reassign-partitions:
  {\"version\": 1, \"partitions\": [
    {\"topic\": \"quakes\", \"partition\": 0, \"replicas\": [1, 2, 3]}]}")]
pub(super) struct Reassign {
    #[command(flatten)]
    connection: Connection,
    /// The topic, or one of its partitions
    #[arg(value_name = "TOPIC[:PARTITION]", required_unless_present_any = ["plan", "list"])]
    target: Option<Target>,
    /// The ids of the new nodes, the preferred leader first
    #[arg(long, value_name = "ID,ID,...", value_delimiter = ',', conflicts_with_all = ["plan", "list", "cancel"])]
    to: Vec<i32>,
    /// A file with the new nodes of each partition, in the format of Kafka
    #[arg(long, value_name = "FILE", conflicts_with_all = ["target", "list"])]
    plan: Option<PathBuf>,
    /// Cancel the moves of these partitions
    #[arg(long, conflicts_with = "list")]
    cancel: bool,
    /// Show the moves that are under way
    #[arg(long)]
    list: bool,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

impl Reassign {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let admin = self.connection.admin()?;
        if self.list {
            let wanted = |one: &Reassignment| self.target.as_ref().is_none_or(|target| covers(target, &one.partition));
            let ongoing: Vec<_> = admin.list_reassignments().await?.into_iter().filter(wanted).collect();
            return list(&ongoing, self.json);
        }
        let mut targets = self.targets(&admin).await?;
        if self.cancel {
            targets.values_mut().for_each(|replicas| *replicas = None);
        }
        let results = admin.alter_reassignments(&targets).await?;
        print(&results, self.json, |partition| match targets.get(partition) {
            Some(Some(replicas)) => format!("moves to {}", ids(replicas)),
            _ => "is not moved any more".to_owned(),
        })
    }

    /// Returns the new nodes of each partition.
    async fn targets(&self, admin: &Admin) -> anyhow::Result<BTreeMap<TopicPartition, Option<Vec<i32>>>> {
        if let Some(path) = &self.plan {
            return read(path).with_context(|| format!("cannot read the plan {}", path.display()));
        }
        let Some(target) = &self.target else { bail!("name a topic, or a plan with --plan") };
        if self.to.is_empty() && !self.cancel {
            bail!("name the new nodes with --to, or cancel the move with --cancel");
        }
        let partitions = target.partitions(admin).await?;
        Ok(partitions
            .into_iter()
            .map(|partition| {
                let mut replicas = self.to.clone();
                if target.partition.is_none() && !replicas.is_empty() {
                    let first = usize::try_from(partition.partition).unwrap_or(0) % replicas.len();
                    replicas.rotate_left(first);
                }
                (partition, Some(replicas))
            })
            .collect())
    }
}

fn covers(target: &Target, partition: &TopicPartition) -> bool {
    *target.topic == *partition.topic && target.partition.is_none_or(|index| index == partition.partition)
}

/// Reads a plan in the format of Kafka.
fn read(path: &Path) -> anyhow::Result<BTreeMap<TopicPartition, Option<Vec<i32>>>> {
    let plan: serde_json::Value = serde_json::from_slice(&std::fs::read(path)?)?;
    parse(&plan)
}

fn parse(plan: &serde_json::Value) -> anyhow::Result<BTreeMap<TopicPartition, Option<Vec<i32>>>> {
    if plan["version"] != json!(1) {
        bail!("the field \"version\" must be 1");
    }
    let partitions = plan["partitions"].as_array().context("the field \"partitions\" must be a list")?;
    let id = |value: &serde_json::Value| value.as_i64().and_then(|number| i32::try_from(number).ok());
    let mut targets = BTreeMap::new();
    for one in partitions {
        let topic = one["topic"].as_str().with_context(|| format!("\"topic\" must be a name in {one}"))?;
        let index = id(&one["partition"]).with_context(|| format!("\"partition\" must be a number in {one}"))?;
        let replicas = one["replicas"].as_array().and_then(|replicas| replicas.iter().map(id).collect());
        let replicas: Vec<i32> = replicas.with_context(|| format!("\"replicas\" must be a list of ids in {one}"))?;
        let partition = TopicPartition::new(topic, index);
        if targets.insert(partition, Some(replicas)).is_some() {
            bail!("partition {topic}:{index} occurs twice");
        }
    }
    Ok(targets)
}

fn list(ongoing: &[Reassignment], json: bool) -> anyhow::Result<()> {
    if json {
        let ongoing = ongoing.iter().map(|one| {
            json!({ "topic": &*one.partition.topic, "partition": one.partition.partition, "replicas": one.replicas,
                "adding": one.adding, "removing": one.removing })
        });
        return Ok(output::line(&json!({ "reassignments": ongoing.collect::<Vec<_>>() }).to_string())?);
    }
    let mut out = output::stdout();
    if ongoing.is_empty() {
        writeln!(out, "no partition is being moved")?;
    } else {
        let heads = ["TOPIC", "PARTITION", "REPLICAS", "ADDING", "REMOVING"];
        let mut table = Table::new(heads, [Left, Right, Left, Left, Left]);
        for one in ongoing {
            let TopicPartition { topic, partition } = &one.partition;
            table.row([
                topic.to_string(),
                partition.to_string(),
                ids(&one.replicas),
                ids(&one.adding),
                ids(&one.removing),
            ]);
        }
        table.write(&mut out)?;
    }
    out.flush()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_of_kafkas_tool_is_read() {
        let plan = json!({ "version": 1, "partitions": [
            { "topic": "a", "partition": 1, "replicas": [3, 1], "log_dirs": ["any", "any"] },
            { "topic": "b", "partition": 0, "replicas": [2] },
        ] });
        let expected = [(TopicPartition::new("a", 1), Some(vec![3, 1])), (TopicPartition::new("b", 0), Some(vec![2]))];
        assert_eq!(parse(&plan).unwrap(), BTreeMap::from(expected));
    }

    #[test]
    fn what_is_wrong_in_a_plan_is_named() {
        let with = |one: serde_json::Value| json!({ "version": 1, "partitions": [one] });
        for (plan, words) in [
            (json!({ "partitions": [] }), "\"version\" must be 1"),
            (json!({ "version": 1 }), "\"partitions\" must be a list"),
            (with(json!({ "partition": 0, "replicas": [1] })), "\"topic\" must be a name"),
            (with(json!({ "topic": "a", "replicas": [1] })), "\"partition\" must be a number"),
            (with(json!({ "topic": "a", "partition": 0, "replicas": ["x"] })), "\"replicas\" must be a list of ids"),
        ] {
            let error = parse(&plan).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
        let twice = json!({ "topic": "a", "partition": 0, "replicas": [1] });
        let error = parse(&json!({ "version": 1, "partitions": [twice, twice] })).unwrap_err().to_string();
        assert_eq!(error, "partition a:0 occurs twice");
    }
}
