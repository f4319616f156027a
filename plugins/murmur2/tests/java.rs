//! The hash and the partitions that the Java client computes: `murmur2.csv` is what `Murmur2Vectors.java` printed, run
//! against kafka-clients 4.2.0.

use millstream_plugin_murmur2::Murmur2;
use millstream_sdk::partitioner::partition;
use millstream_sdk::{BatchBuf, Partitions, config, murmur2};

#[test]
fn keys_go_where_the_java_client_sends_them() {
    let mut lines = include_str!("murmur2.csv").lines();
    let counts: Vec<u32> = lines.next().unwrap().split(',').skip(2).map(|count| count.parse().unwrap()).collect();
    let mut keys = Vec::new();
    let mut expected = vec![Vec::new(); counts.len()];
    for line in lines {
        let fields: Vec<&str> = line.split(',').collect();
        let key: Vec<u8> = fields[0]
            .as_bytes()
            .chunks(2)
            .map(|hex| u8::from_str_radix(std::str::from_utf8(hex).unwrap(), 16).unwrap())
            .collect();
        let hash: i32 = fields[1].parse().unwrap();
        assert_eq!(murmur2(&key).cast_signed(), hash, "{}", fields[0]);
        for (partitions, field) in expected.iter_mut().zip(&fields[2..]) {
            partitions.push(field.parse::<u32>().unwrap());
        }
        keys.push(key);
    }
    assert!(keys.len() > 300, "all vectors were read");
    let batch = BatchBuf::of_keys("t", keys.iter().map(Vec::as_slice));
    for (count, expected) in counts.into_iter().zip(expected) {
        let mut stage: Murmur2 = config::from_json("").unwrap();
        let chosen = partition(&mut stage, &batch.as_batch(), &Partitions::new(count, &[])).unwrap();
        assert_eq!(chosen, expected, "{count} partitions");
    }
}
