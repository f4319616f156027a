//! The stages that a topic asks its applications to run.

use millstream_registry::format::{FormatError, StageConfigs, check_stage_config};
use millstream_stage::Kind;

use super::error::PluginError;
use crate::admin::Admin;

/// The configured stages of a topic, by kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TopicStages {
    /// `stage.partitioner`: chooses the partition of a record.
    pub partitioner: Option<String>,
    /// `stage.serializer`: serializes and deserializes keys and values.
    pub serializer: Option<String>,
    /// `stage.compressor`: compresses batches.
    pub compressor: Option<String>,
}

impl TopicStages {
    /// Reads the stages from the configs of the topic. If a config is not set, or unknown as in Apache Kafka, it comes
    /// from `stored`, the topic's record in the registry.
    pub(super) async fn of(admin: &Admin, topic: &str, stored: Option<&StageConfigs>) -> Result<Self, PluginError> {
        let configs = admin.describe_configs(topic).await?;
        let value = |name: &str| {
            let own = configs.iter().find(|config| config.name == name).and_then(|config| config.value.clone());
            let set = own.filter(|value| !value.is_empty());
            let value = set.or_else(|| stored.and_then(|stored| stored.get(name).cloned()));
            if let Some(value) = &value {
                // A broker other than Millstream does not check it.
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

    /// Returns only the stages of these kinds.
    pub(super) fn of_kinds(self, kinds: &[Kind]) -> Self {
        let of = |kind: Kind, text: Option<String>| text.filter(|_| kinds.contains(&kind));
        Self {
            partitioner: of(Kind::Partitioner, self.partitioner),
            serializer: of(Kind::Serializer, self.serializer),
            compressor: of(Kind::Compressor, self.compressor),
        }
    }
}
