//! The Kafka record batch: borrowed view, builder, varints, CRC-32C and the standard codecs.
