//! Rows 12 to 17: the bodies of requests.

use std::fs;

use millstream_wire::messages::{
    ApiVersionsRequest, CreatableTopic, CreateTopicsRequest, CreateTopicsResponse, DescribeClusterRequest,
    MetadataRequest, MetadataRequestTopic, MetadataResponse,
};
use millstream_wire::{ApiInfo, ApiKey, ErrorCode, Message, Reader, ResponseHeader, Str, apis};

use super::Victim;
use crate::support::{Raw, minimal_body, request};

/// The most memory that a sweep of a few thousand small requests may take. It must not grow with the sizes that they
/// claim.
const SWEEP_BYTES_MAX: usize = 48 << 20;

/// i32::MAX as an unsigned varint. As a compact count or length it means one less.
const VARINT_MAX: [u8; 5] = [0xff, 0xff, 0xff, 0xff, 0x07];

fn closes(victim: &Victim, what: &str, frame: &[u8]) {
    let mut raw = Raw::connect(&victim.broker);
    raw.write(frame);
    raw.assert_closed(what);
}

/// Returns the APIs that the victim serves, as the codec describes them.
fn served(victim: &mut Victim) -> Vec<&'static ApiInfo> {
    let served = victim.raw.call(0, &ApiVersionsRequest::default()).api_keys;
    apis().iter().filter(|api| served.iter().any(|served| served.api_key == api.key as i16)).collect()
}

/// Returns the oldest, the newest and the first flexible version: every form of a request.
fn forms(api: &ApiInfo) -> Vec<i16> {
    let mut forms = vec![api.min, api.max, api.flexible.clamp(api.min, api.max)];
    forms.sort_unstable();
    forms.dedup();
    forms
}

#[test]
fn row_12_a_count_of_int_max_in_a_tiny_body() {
    let mut victim = Victim::start();
    let memory = victim.memory();
    let max = i32::MAX.to_be_bytes();
    let produce = [&(-1_i16).to_be_bytes()[..], &[0, 1], &[0; 4], &max].concat();
    let bodies: [(&str, ApiKey, i16, Vec<u8>); 9] = [
        ("topics", ApiKey::Metadata, 1, max.to_vec()),
        ("topics of five bytes", ApiKey::Metadata, 9, VARINT_MAX.to_vec()),
        ("topics, a negative count", ApiKey::Metadata, 1, i32::to_be_bytes(-2).to_vec()),
        ("topics", ApiKey::Produce, 3, produce.clone()),
        ("topics", ApiKey::Produce, 9, [&[0, 0, 1][..], &[0; 4], &VARINT_MAX].concat()),
        ("topics", ApiKey::Fetch, 4, [&[0xff; 4][..], &[0; 13], &max].concat()),
        ("topics", ApiKey::Fetch, 12, [&[0xff; 4][..], &[0; 21], &VARINT_MAX].concat()),
        ("topics", ApiKey::CreateTopics, 2, max.to_vec()),
        ("resources", ApiKey::DescribeConfigs, 4, VARINT_MAX.to_vec()),
    ];
    for (what, api, version, body) in bodies {
        closes(&victim, &format!("{what} of {api} v{version}"), &request(api, version, 1, &body));
    }
    memory.assert_grew_less_than(16 << 20, "counts of INT_MAX");
    victim.is_well("counts of INT_MAX");
}

/// Overwrites every position of a request with the largest 32-bit number and with the largest varint. Whatever field is
/// there (a count, a length, a time, a flag), the broker responds or closes, and allocates nothing for it.
#[test]
fn rows_12_to_15_a_huge_number_at_every_place_of_every_request() {
    let mut victim = Victim::start();
    let memory = victim.memory();
    for api in served(&mut victim) {
        for version in forms(api) {
            let body = minimal_body(api.key, version, &victim.topic);
            for place in 0..body.len() {
                let mut wide = body.clone();
                let end = wide.len().min(place + 4);
                wide[place..end].copy_from_slice(&i32::MAX.to_be_bytes()[..end - place]);
                let compact = [&body[..place], &VARINT_MAX, &body[place + 1..]].concat();
                for forged in [wide, compact] {
                    let mut raw = Raw::connect(&victim.broker);
                    raw.write(&request(api.key, version, 1, &forged));
                    raw.finish();
                    raw.read_to_end();
                }
            }
        }
    }
    memory.assert_grew_less_than(SWEEP_BYTES_MAX, "huge numbers everywhere");
    victim.is_well("huge numbers everywhere");
}

/// A truncated request never gets the response of a complete one.
#[test]
fn rows_12_to_15_every_request_cut_at_every_place() {
    let mut victim = Victim::start();
    let memory = victim.memory();
    for api in served(&mut victim).into_iter().filter(|api| api.key != ApiKey::ApiVersions) {
        for version in forms(api) {
            let body = minimal_body(api.key, version, &victim.topic);
            for place in 0..body.len() {
                let what = format!("{} v{version} cut to {place} of {} bytes", api.name, body.len());
                closes(&victim, &what, &request(api.key, version, 1, &body[..place]));
            }
        }
    }
    memory.assert_grew_less_than(SWEEP_BYTES_MAX, "requests cut short");
    victim.is_well("requests cut short");
}

#[test]
fn row_13_compact_lengths_and_varints() {
    let mut victim = Victim::start();
    // A topic by name: the count of topics is one, encoded as 2; a nil id; then the name.
    let named = |name: &[u8]| [&[2][..], &[0; 16], name, &[0, 0, 0, 0]].concat();
    let bodies: [(&str, i16, Vec<u8>); 6] = [
        ("a null name where none may be", 9, vec![2, 0, 0, 0, 0, 0, 0]),
        ("a name longer than the body", 12, named(&[0x7f, b'a'])),
        ("a name of INT_MAX", 12, named(&VARINT_MAX)),
        ("a varint of six bytes", 12, named(&[0x80, 0x80, 0x80, 0x80, 0x80, 1])),
        ("a varint over 32 bits", 12, named(&[0xff, 0xff, 0xff, 0xff, 0x7f])),
        ("a varint without an end", 12, vec![0x80; 5]),
    ];
    for (what, version, body) in bodies {
        closes(&victim, what, &request(ApiKey::Metadata, version, 1, &body));
    }
    victim.is_well("compact lengths");
}

#[test]
fn row_14_tagged_fields() {
    let mut victim = Victim::start();
    let memory = victim.memory();
    let cluster = |tagged: &[u8]| request(ApiKey::DescribeCluster, 0, 9, &[&[0][..], tagged].concat());
    for (what, tagged) in [
        ("a huge count", &VARINT_MAX[..]),
        ("a huge size", &[1, 100, 0xff, 0xff, 0xff, 0xff, 7]),
        ("a tag twice", &[2, 100, 1, 7, 100, 1, 7]),
        ("tags out of order", &[2, 101, 1, 7, 100, 1, 7]),
        ("more than there are", &[2, 100, 1, 7]),
    ] {
        closes(&victim, what, &cluster(tagged));
    }
    // Unknown tagged fields are skipped, in the body and in the header.
    victim.raw.write(&cluster(&[2, 100, 1, 7, 101, 0]));
    assert_eq!(victim.raw.read_frame().expect("a response")[..4], 9_i32.to_be_bytes());
    memory.assert_grew_less_than(16 << 20, "tagged fields");
    victim.is_well("tagged fields");
}

#[test]
fn row_15_negative_lengths() {
    let mut victim = Victim::start();
    for length in [-2_i16, -100, i16::MIN] {
        // The client id follows the length, key, version and correlation id.
        let mut frame = request(ApiKey::Metadata, 1, 1, &[0; 4]);
        frame[12..14].copy_from_slice(&length.to_be_bytes());
        closes(&victim, &format!("a client id of {length}"), &frame);
        let body = [&[0, 0, 0, 1][..], &length.to_be_bytes()].concat();
        closes(&victim, &format!("a topic name of {length}"), &request(ApiKey::Metadata, 1, 1, &body));
    }
    // Null is a valid length, but not for a required name.
    let body = [&[0, 0, 0, 1][..], &(-1_i16).to_be_bytes()].concat();
    closes(&victim, "a null topic name", &request(ApiKey::Metadata, 1, 1, &body));
    let end = victim.topic.end(&mut victim.raw);
    for length in [-2_i32, -100, i32::MIN] {
        let records = minimal_body(ApiKey::Produce, 3, &victim.topic);
        // The length of the record set is the last field before it.
        let sound = crate::support::batch(&["value"]).len();
        let mut body = records.clone();
        let place = body.len() - sound - 4;
        body[place..place + 4].copy_from_slice(&length.to_be_bytes());
        closes(&victim, &format!("records of {length}"), &request(ApiKey::Produce, 3, 1, &body));
        assert_eq!(victim.topic.end(&mut victim.raw), end);
    }
    victim.is_well("negative lengths");
}

/// Returns invalid topic names, some of which would leave the data folder.
fn bad_names() -> Vec<String> {
    let names = ["", ".", "..", "../outside", "/tmp/outside", "a/b", "a\\b", "a\0b", "\0", "a b", "ä", "a:b", "*"];
    names.into_iter().map(str::to_owned).chain(["x".repeat(250), "x".repeat(32_000)]).collect()
}

#[test]
fn row_16_invalid_topic_names() {
    let mut victim = Victim::start();
    let before = folders(&victim);
    for name in bad_names() {
        let shown: String = name.chars().take(20).collect();
        for version in 2..=7 {
            let topic = CreatableTopic {
                name: Str::from(name.as_str()),
                num_partitions: 1,
                replication_factor: 1,
                ..Default::default()
            };
            let asked = CreateTopicsRequest { topics: vec![topic], timeout_ms: 30_000, validate_only: false };
            let answer = victim.raw.call(version, &asked);
            let created = &answer.topics[0];
            assert_eq!(created.error_code, ErrorCode::INVALID_TOPIC_EXCEPTION, "{shown:?} by CreateTopics v{version}");
            assert!(created.error_message.is_some(), "{shown:?}: the error must have a message");
        }
        for version in [1, 8, 9, 12, 13] {
            let asked = MetadataRequestTopic { name: Some(Str::from(name.as_str())), ..Default::default() };
            let answer = victim.raw.call(version, &MetadataRequest { topics: Some(vec![asked]), ..Default::default() });
            let error = answer.topics[0].error_code;
            assert_eq!(error, ErrorCode::INVALID_TOPIC_EXCEPTION, "{shown:?} by Metadata v{version}");
        }
    }
    assert_eq!(folders(&victim), before, "no folder was made, within the data folder or beside it");
    let longest = crate::support::Topic::create(&mut victim.raw, &"x".repeat(249), 1, &[]);
    assert_eq!(longest.produce(&mut victim.raw, crate::support::batch(&["value"])), 0);
    victim.is_well("topic names");
}

fn folders(victim: &Victim) -> Vec<String> {
    let data = victim.broker.folder();
    let outside = data.parent().expect("the data folder lies in a temporary one");
    let entries = [data, outside].into_iter().flat_map(|folder| fs::read_dir(folder).expect("a folder"));
    let mut names: Vec<_> = entries.map(|entry| entry.expect("an entry").path().display().to_string()).collect();
    names.sort();
    names
}

/// A name that is not UTF-8 gets the same error as any other bad name, as in Kafka.
#[test]
fn row_16_invalid_utf_8() {
    let mut victim = Victim::start();
    for name in [&b"\xff\xfe"[..], b"a\xc3", b"\xed\xa0\x80", b"\xc0\xaf"] {
        let length = (name.len() as i16).to_be_bytes();
        victim.raw.write(&request(ApiKey::Metadata, 1, 21, &[&[0, 0, 0, 1][..], &length, name].concat()));
        let metadata: MetadataResponse = decode(&mut victim.raw, 21, 0, 1);
        assert_eq!(metadata.topics[0].error_code, ErrorCode::INVALID_TOPIC_EXCEPTION, "{name:?}");

        let compact = [name.len() as u8 + 1];
        let rest = [&[0, 0, 0, 1][..], &[0, 1], &[1, 1, 0], &[0, 0, 0, 0], &[0, 0]].concat();
        victim.raw.write(&request(ApiKey::CreateTopics, 5, 22, &[&[2][..], &compact, name, &rest].concat()));
        let created: CreateTopicsResponse = decode(&mut victim.raw, 22, 1, 5);
        assert_eq!(created.topics[0].error_code, ErrorCode::INVALID_TOPIC_EXCEPTION, "{name:?}");
    }
    // A client id is only used in the log.
    let mut frame = request(ApiKey::ApiVersions, 0, 23, &[]);
    frame[14..17].copy_from_slice(b"\xff\x1b[");
    victim.raw.write(&frame);
    assert_eq!(victim.raw.read_frame().expect("a response")[..4], 23_i32.to_be_bytes());
    victim.is_well("invalid UTF-8");
}

fn decode<M: Message>(raw: &mut Raw, correlation: i32, header_version: i16, version: i16) -> M {
    let mut reader = Reader::new(raw.read_frame().expect("a response"));
    let header = ResponseHeader::decode(&mut reader, header_version).expect("a header");
    assert_eq!(header.correlation_id, correlation);
    M::decode(&mut reader, version).expect("a body")
}

/// As in Kafka, bytes after the end of a request within its frame are ignored. This is documented behaviour.
#[test]
fn row_17_trailing_bytes() {
    let mut victim = Victim::start();
    for api in served(&mut victim) {
        for version in forms(api) {
            // A request that joins a group waits for others.
            if api.key == ApiKey::JoinGroup || api.key == ApiKey::Produce && version < 3 {
                continue;
            }
            let body = [&minimal_body(api.key, version, &victim.topic)[..], &[0xee; 100]].concat();
            victim.raw.write(&request(api.key, version, 31, &body));
            let frame = victim.raw.read_frame();
            let frame = frame.unwrap_or_else(|| panic!("{} v{version}: closed for trailing bytes", api.name));
            assert_eq!(frame[..4], 31_i32.to_be_bytes(), "{} v{version}", api.name);
            // They are not read as the next request.
            let answer = victim.raw.call(0, &DescribeClusterRequest::default());
            assert_eq!(answer.error_code, ErrorCode::NONE, "after {} v{version}", api.name);
        }
    }
    victim.is_well("trailing bytes");
}
