//! Produce: what is stored, what is rejected, and the responses.

use bytes::Bytes;
use millstream_record::{BatchView, Codec, patch};
use millstream_wire::ErrorCode;
use millstream_wire::messages::*;

use super::client::{batch, broker, builder, now_ms, produce_request};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn responses_to_pipelined_acks_all_are_in_order_with_consecutive_offsets() {
    let broker = broker(&[]).await;
    let mut client = broker.connect().await;
    client.create("t", 1, &[]).await;
    let mut sent = Vec::new();
    for index in 0..200u32 {
        let request = produce_request("t", 0, batch(&[&index.to_be_bytes()]).into(), -1);
        sent.push(client.send(9, &request).await);
    }
    for (offset, correlation_id) in sent.into_iter().enumerate() {
        let (answered, response) = client.receive::<ProduceRequest>(9).await;
        assert_eq!(answered, correlation_id);
        let partition = &response.responses[0].partition_responses[0];
        assert_eq!((partition.error_code, partition.base_offset), (ErrorCode::NONE, offset as i64));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acks_0_has_no_response_and_its_error_ends_the_connection() {
    let broker = broker(&[]).await;
    let mut client = broker.connect().await;
    client.create("t", 1, &[]).await;
    client.send(9, &produce_request("t", 0, batch(&[b"silent"]).into(), 0)).await;
    // The next response belongs to the next request.
    assert_eq!(client.offset("t", 0, -1).await.0, 1);
    client.send(9, &produce_request("t", 7, batch(&[b"nowhere"]).into(), 0)).await;
    assert_eq!(client.frame().await, None);
}

/// Returns a valid batch with one change. The CRC is recomputed if `crc` is set.
fn hostile(change: impl FnOnce(&mut Vec<u8>), crc: bool) -> Bytes {
    let mut bytes = batch(&[b"one", b"two"]);
    change(&mut bytes);
    if crc {
        patch::refresh_crc(&mut bytes);
    }
    bytes.into()
}

fn set(at: usize, field: &[u8]) -> impl FnOnce(&mut Vec<u8>) + use<'_> {
    move |bytes| bytes[at..at + field.len()].copy_from_slice(field)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_batches_get_their_error_and_nothing_is_appended() {
    let broker = broker(&[]).await;
    let mut client = broker.connect().await;
    client.create("t", 1, &[]).await;
    let int = i32::to_be_bytes;
    let max = i64::MAX.to_be_bytes();
    let cases: Vec<(&str, Bytes, ErrorCode)> = vec![
        ("crc", hostile(|bytes| *bytes.last_mut().expect("bytes") ^= 1, false), ErrorCode::CORRUPT_MESSAGE),
        ("length short", hostile(set(8, &int(40)), false), ErrorCode::CORRUPT_MESSAGE),
        ("length long", hostile(set(8, &int(100_000)), false), ErrorCode::CORRUPT_MESSAGE),
        ("length negative", hostile(set(8, &int(-5)), false), ErrorCode::CORRUPT_MESSAGE),
        ("cut", batch(&[b"x"])[..30].to_vec().into(), ErrorCode::CORRUPT_MESSAGE),
        ("magic 0", hostile(set(16, &[0]), true), ErrorCode::UNSUPPORTED_FOR_MESSAGE_FORMAT),
        ("magic 1", hostile(set(16, &[1]), true), ErrorCode::UNSUPPORTED_FOR_MESSAGE_FORMAT),
        ("magic 127", hostile(set(16, &[127]), true), ErrorCode::CORRUPT_MESSAGE),
        ("codec 7", hostile(set(21, &[0, 7]), true), ErrorCode::UNSUPPORTED_COMPRESSION_TYPE),
        ("count -1", hostile(set(57, &int(-1)), true), ErrorCode::INVALID_RECORD),
        ("count 0", hostile(set(57, &int(0)), true), ErrorCode::INVALID_RECORD),
        ("count max", hostile(set(57, &int(i32::MAX)), true), ErrorCode::INVALID_RECORD),
        ("count 1", hostile(set(57, &int(1)), true), ErrorCode::INVALID_RECORD),
        ("delta", hostile(set(23, &int(5)), true), ErrorCode::INVALID_RECORD),
        ("header count", hostile(|bytes| *bytes.last_mut().expect("bytes") = 0x7e, true), ErrorCode::INVALID_RECORD),
        ("header count -1", hostile(|bytes| *bytes.last_mut().expect("bytes") = 1, true), ErrorCode::INVALID_RECORD),
        ("control", hostile(set(21, &[0, 0x20]), true), ErrorCode::INVALID_RECORD),
        ("two batches", [batch(&[b"a"]), batch(&[b"b"])].concat().into(), ErrorCode::INVALID_RECORD),
        ("none", Bytes::new(), ErrorCode::INVALID_RECORD),
        ("future", hostile(set(35, &max), true), ErrorCode::INVALID_TIMESTAMP),
        ("transactional", hostile(set(21, &[0, 0x10]), true), ErrorCode::INVALID_RECORD),
    ];
    for (name, bytes, expected) in cases {
        let answer = client.produce("t", 0, bytes).await;
        assert_eq!(answer.error_code, expected, "{name}: {:?}", answer.error_message);
        assert_eq!(client.offset("t", 0, -1).await.0, 0, "{name}");
    }
    assert_eq!(client.produce("t", 0, batch(&[b"sound"])).await.base_offset, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sequences_of_an_idempotent_producer() {
    let broker = broker(&[]).await;
    let mut client = broker.connect().await;
    client.create("t", 1, &[]).await;
    let producer = client.ask(4, &InitProducerIdRequest::default()).await;
    assert_eq!((producer.error_code, producer.producer_epoch), (ErrorCode::NONE, 0));
    let other = client.ask(4, &InitProducerIdRequest::default()).await;
    assert_ne!(producer.producer_id, other.producer_id);
    let sequenced = |id: i64, epoch: i16, sequence: i32, records: usize| {
        let mut builder = builder(Codec::None);
        builder.producer(id, epoch, sequence);
        for _ in 0..records {
            builder.append(now_ms(), None, Some(b"value"), []).expect("appended");
        }
        builder.build().expect("built")
    };
    let id = producer.producer_id;
    for (epoch, sequence, records, error, base_offset) in [
        (0, 0, 2, ErrorCode::NONE, 0),
        (0, 2, 1, ErrorCode::NONE, 2),
        // A repeated batch gets its first response again.
        (0, 0, 2, ErrorCode::NONE, 0),
        (0, 9, 1, ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER, -1),
        (1, 0, 1, ErrorCode::NONE, 3),
        (0, 3, 1, ErrorCode::INVALID_PRODUCER_EPOCH, -1),
        (1, 1, 1, ErrorCode::NONE, 4),
    ] {
        let answer = client.produce("t", 0, sequenced(id, epoch, sequence, records)).await;
        assert_eq!((answer.error_code, answer.base_offset), (error, base_offset), "{epoch} {sequence}");
    }
    // A producer that the partition does not know may start anywhere, and wraps to 0 after the largest sequence.
    for (sequence, records, base_offset) in [(i32::MAX - 1, 2, 5), (0, 1, 7), (1, 1, 8)] {
        let answer = client.produce("t", 0, sequenced(other.producer_id, 0, sequence, records)).await;
        assert_eq!((answer.error_code, answer.base_offset), (ErrorCode::NONE, base_offset), "{sequence}");
    }
    let transactional = InitProducerIdRequest { transactional_id: Some("tx".into()), ..Default::default() };
    assert!(client.ask(4, &transactional).await.error_code.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn configs_of_the_topic_are_obeyed() {
    let broker = broker(&[]).await;
    let mut client = broker.connect().await;
    client.create("small", 1, &[("max.message.bytes", "100")]).await;
    assert_eq!(client.produce("small", 0, batch(&[&[0; 200]])).await.error_code, ErrorCode::MESSAGE_TOO_LARGE);
    client.create("compacted", 1, &[("cleanup.policy", "compact")]).await;
    let keyless = |codec| {
        let mut builder = builder(codec);
        builder.append(now_ms(), Some(b"k"), Some(b"v"), []).expect("appended");
        builder.append(now_ms(), None, Some(b"v"), []).expect("appended");
        builder.build().expect("built")
    };
    for codec in [Codec::None, Codec::Zstd] {
        let answer = client.produce("compacted", 0, keyless(codec)).await;
        assert_eq!(answer.error_code, ErrorCode::INVALID_RECORD);
        assert_eq!(answer.record_errors[0].batch_index, 1);
    }
    client.create("stamped", 1, &[("message.timestamp.type", "LogAppendTime")]).await;
    let before = now_ms();
    let answer = client.produce("stamped", 0, batch(&[b"x"])).await;
    assert!(answer.log_append_time_ms >= before);
    // At most the number of replicas counts, as in Kafka.
    client.create("strict", 1, &[("min.insync.replicas", "2")]).await;
    assert_eq!(client.produce("strict", 0, batch(&[b"x"])).await.error_code, ErrorCode::NONE);
    let old = produce_request("small", 0, Bytes::from(keyless(Codec::Zstd)), 1);
    let response = client.ask(6, &old).await;
    let code = response.responses[0].partition_responses[0].error_code;
    assert_eq!(code, ErrorCode::UNSUPPORTED_COMPRESSION_TYPE);
    let wrong_acks = client.ask(9, &produce_request("small", 0, batch(&[b"x"]).into(), 2)).await;
    assert_eq!(wrong_acks.responses[0].partition_responses[0].error_code, ErrorCode::INVALID_REQUIRED_ACKS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_with_a_codec_of_its_own_recodes() {
    let broker = broker(&[]).await;
    let mut client = broker.connect().await;
    for (topic, codec) in [("gzip", Codec::Gzip), ("zstd", Codec::Zstd), ("uncompressed", Codec::None)] {
        client.create(topic, 1, &[("compression.type", topic)]).await;
        for sent in [Codec::None, Codec::Snappy, Codec::Lz4, codec] {
            let mut builder = builder(sent);
            builder.append(now_ms(), Some(b"k"), Some(&[b'v'; 1000]), []).expect("appended");
            let answer = client.produce(topic, 0, builder.build().expect("built")).await;
            assert_eq!(answer.error_code, ErrorCode::NONE);
            let data = client.fetch(topic, 0, answer.base_offset).await;
            let stored = data.records.as_bytes().expect("records").clone();
            let view = BatchView::parse(&stored).expect("a batch");
            assert_eq!(view.codec(), Ok(codec));
            view.verify_crc().expect("a sound batch");
            let records = view.records(1 << 20).expect("records");
            let record = records.iter().next().expect("one").expect("sound");
            assert_eq!((record.key, record.value), (Some(&b"k"[..]), Some(&[b'v'; 1000][..])));
        }
    }
}
