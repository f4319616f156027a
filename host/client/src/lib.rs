//! Producer, consumer and admin client for Kafka's protocol that run pipeline stages.
