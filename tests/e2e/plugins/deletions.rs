//! Versions that are deleted while they are in use: the batches that they packed can be read, or they are not deleted.

use millstream_record::Codec;
use millstream_stage::Digest;
use millstream_tests::Broker;
use millstream_wire::ErrorCode;
use millstream_wire::messages::ProduceRequest;
use serde_json::{Value, json};

use super::records::{Store, chunk};
use super::*;
use crate::guests::Guest;
use crate::support::{Raw, Topic, compressed};

/// The number of versions that are pushed and deleted.
const ROUNDS: u32 = 30;

/// The number of producers, each with a batch in flight at every change.
const PRODUCERS: usize = 3;

/// Returns a compressor with a private format that takes some milliseconds, so that it holds a batch while versions
/// change.
fn slow(number: u32) -> Guest {
    let spin = "(local.set $out (i32.const 500000))
        (loop $spin
          (local.set $out (i32.sub (local.get $out) (i32.const 1)))
          (br_if $spin (local.get $out)))";
    Guest::compressor().name("packer").version(&format!("{number}.0.0")).hook("compress", spin)
}

fn version(number: u32, component: &[u8]) -> Value {
    json!({
        "number": number, "digest": Digest::of(component).to_string(), "size": component.len(), "chunks": 1,
        "version": format!("{number}.0.0"), "pushed_ms": 1, "bad": null,
    })
}

fn manifest(revision: u32, versions: &[Value], active: u32, next: u32) -> Vec<u8> {
    json!({
        "name": "packer", "revision": revision, "kind": "compressor", "active": active, "next": next,
        "versions": versions, "history": [],
    })
    .to_string()
    .into_bytes()
}

#[test]
fn a_version_is_not_deleted_from_under_a_batch() {
    let mut broker = Broker::start();
    broker.allow("is packing a batch");
    broker.allow("is needed to read what topic");
    let mut store = Store::create(&broker);
    let plugin = || "plugin/packer".to_owned();
    let first = slow(1).build();
    let mut versions = vec![version(1, &first)];
    let mut revision = 1;
    store.produce(&[(chunk(&first), Some(&first)), (plugin(), Some(&manifest(revision, &versions, 1, 2)))]);
    output(&broker, &["topic", "create", "packed", "-p", "1", "--config", "stage.compressor=packer"]);
    let topic = Topic { name: "packed".into(), id: Default::default() };
    let mut producers: Vec<Raw> = (0..PRODUCERS).map(|_| Raw::connect(&broker)).collect();
    let (mut stored, mut deleted) = (Vec::new(), 0);
    for number in 2..2 + ROUNDS {
        let component = slow(number).build();
        let with = [&versions[..], &[version(number, &component)]].concat();
        revision += 1;
        let activated = manifest(revision, &with, number, number + 1);
        store.produce(&[(chunk(&component), Some(&component)), (plugin(), Some(&activated))]);
        // The new version gets a batch from every producer, is rolled back and is deleted, all at once.
        let sent: Vec<(String, i32)> = (0..PRODUCERS)
            .map(|at| {
                let value = format!("{number} of {at}");
                let request = topic.produce_request(9, 1, 0, compressed(Codec::None, &[&value]));
                (value, producers[at].send(9, &request))
            })
            .collect();
        revision += 1;
        store.produce(&[(plugin(), Some(&manifest(revision, &with, 1, number + 1)))]);
        let without = manifest(revision + 1, &versions, 1, number + 1);
        let answer = store.produce_as(Codec::None, &[(plugin(), Some(&without))]);
        if answer.error_code == ErrorCode::NONE {
            (revision, deleted) = (revision + 1, deleted + 1);
        } else {
            let why = answer.error_message.as_deref().unwrap_or_default();
            assert!(why.contains("is packing a batch") || why.contains("is needed to read"), "{why}");
            versions = with;
        }
        for (raw, (value, correlation)) in producers.iter_mut().zip(sent) {
            let answer = raw.receive::<ProduceRequest>(9, correlation);
            match answer.responses[0].partition_responses[0].error_code {
                ErrorCode::NONE => stored.push(value),
                // The version was deleted before its batch was ready; a retry gets the other version.
                code => assert_eq!(code, ErrorCode::KAFKA_STORAGE_ERROR),
            }
        }
    }
    assert!(
        stored.len() + PRODUCERS * deleted >= PRODUCERS * ROUNDS as usize,
        "more batches were rejected than versions deleted"
    );
    stored.sort_unstable();
    for _ in 0..2 {
        let mut raw = Raw::connect(&broker);
        let mut read = topic.read(&mut raw, 0);
        read.sort_unstable();
        assert_eq!(read, stored, "what was acknowledged can be read");
        // No decoder is in memory after this: all are loaded from the store.
        broker.kill();
        broker.restart();
    }
}
