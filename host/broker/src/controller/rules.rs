//! The rules for topics beyond the image: configs, views, dead letter topics, the topic of the plug-ins.

use millstream_wire::ErrorCode;

use crate::config::{
    BrokerConfig, Kind, MIN_INSYNC_REPLICAS, check_dynamic, check_dynamic_together, check_dynamic_value, inherited,
    set_for_all, topic_key,
};
use crate::edge::dead_letter_rules;
use crate::edge::plugins;
use crate::edge::view::rules as views;
use crate::error::ApiError;
use millstream_metadata::controller::{TopicDraft, TopicRules};
use millstream_metadata::{BrokerConfigs, MetadataImage, TopicImage};

/// The rules of a broker with this configuration.
pub(crate) struct BrokerRules<'a> {
    pub(crate) config: &'a BrokerConfig,
}

impl TopicRules for BrokerRules<'_> {
    type Error = ApiError;

    fn default_partitions(&self) -> i32 {
        self.config.num_partitions
    }

    fn default_replication_factor(&self) -> i32 {
        self.config.default_replication_factor
    }

    fn inherited(&self, image: &MetadataImage, config: &str) -> Option<String> {
        let set = set_for_all(image);
        inherited(topic_key(config)?, &|name| set(name).or_else(|| self.config.explicit(name).map(str::to_owned)))
    }

    fn is_list(&self, config: &str) -> bool {
        topic_key(config).is_some_and(|key| key.kind == Kind::List)
    }

    fn check(&self, image: &MetadataImage, draft: &TopicDraft<'_>) -> Result<(), ApiError> {
        let config = self.config.topic_config(&set_for_all(image), draft.configs)?;
        plugins::check_cleanup(draft.name, config.compact && !config.delete).map_err(policy_violation)?;
        views::check(image, draft.name, draft.partitions, draft.before, draft.configs)?;
        dead_letter_rules::check(self.config, image, draft, &config)
    }

    fn check_broker(&self, broker: Option<i32>, configs: &BrokerConfigs) -> Result<(), ApiError> {
        if broker.is_some() && configs.contains_key(MIN_INSYNC_REPLICAS) {
            // Kafka's words. The controller elects by one value for all brokers.
            let message = "Broker-level min.insync.replicas cannot be altered while ELR is enabled.";
            return Err(ApiError::new(ErrorCode::INVALID_CONFIG, message));
        }
        check_dynamic(configs).map_err(|error| ApiError::new(ErrorCode::INVALID_REQUEST, error.to_string()))?;
        for (name, value) in configs {
            check_dynamic_value(name, value)?;
        }
        Ok(check_dynamic_together(configs)?)
    }

    fn check_partitions(&self, name: &str, count: i32) -> Result<(), ApiError> {
        plugins::check_partitions(name, count).map_err(policy_violation)
    }

    fn check_deletion(&self, image: &MetadataImage, topic: &TopicImage) -> Result<(), ApiError> {
        if topic.name == plugins::TOPIC {
            let message =
                format!("{} keeps the broker's plug-ins and cannot be deleted; delete plug-ins instead", topic.name);
            return Err(policy_violation(message));
        }
        views::check_deletion(image, &topic.name)
    }
}

fn policy_violation(message: String) -> ApiError {
    ApiError::new(ErrorCode::POLICY_VIOLATION, message)
}
