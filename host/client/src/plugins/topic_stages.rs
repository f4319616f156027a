//! The stages that a topic wants its applications to run.

use millstream_registry::format::{FormatError, StageConfigs, check_stage_config};
use millstream_stage::Kind;

use super::error::PluginError;
use crate::admin::Admin;

/// The stages of a topic as they are written, by what they are for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TopicStages {
    /// `stage.partitioner`: who chooses a record's partition.
    pub partitioner: Option<String>,
    /// `stage.serializer`: who makes keys and values, and reads them.
    pub serializer: Option<String>,
    /// `stage.compressor`: who makes batches smaller.
    pub compressor: Option<String>,
}

impl TopicStages {
    /// Asks the cluster: the topic's own options, and where one is not set (or not known, as by Apache
    /// Kafka) what `stored` says, the topic's record in the store of plug-ins.
    pub(super) async fn of(admin: &Admin, topic: &str, stored: Option<&StageConfigs>) -> Result<Self, PluginError> {
        let configs = admin.describe_configs(topic).await?;
        let value = |name: &str| {
            let own = configs.iter().find(|config| config.name == name).and_then(|config| config.value.clone());
            let set = own.filter(|value| !value.is_empty());
            let value = set.or_else(|| stored.and_then(|stored| stored.get(name).cloned()));
            if let Some(value) = &value {
                // A broker that is not ours lets anything through.
                check_stage_config(name, value).map_err(|error| FormatError(format!("topic {topic}: {error}")))?;
            }
            Ok::<_, FormatError>(value)
        };
        Ok(Self {
            partitioner: value("stage.partitioner")?,
            serializer: value("stage.serializer")?,
            compressor: value("stage.compressor")?,
        })
    }

    /// Those of some kinds; a filter is none of them.
    pub(super) fn of_kinds(self, kinds: &[Kind]) -> Self {
        let of = |kind: Kind, text: Option<String>| text.filter(|_| kinds.contains(&kind));
        Self {
            partitioner: of(Kind::Partitioner, self.partitioner),
            serializer: of(Kind::Serializer, self.serializer),
            compressor: of(Kind::Compressor, self.compressor),
        }
    }
}
