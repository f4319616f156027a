//! A second, independent implementation of Kafka's schemas: a table of fields (`schemas.txt`), and a generic writer.
//! The writer fills a message with values, and returns its bytes and what it should decode to.

#![allow(dead_code, reason = "each test uses a part")]

use std::fmt::{Debug, Write};
use std::ops::RangeInclusive;

use bytes::Bytes;
use millstream_wire::{ErrorCode, Message, Reader, WireError, codec};
use uuid::Uuid;

/// A message of the table.
pub(crate) struct Schema {
    pub(crate) name: &'static str,
    pub(crate) versions: RangeInclusive<i16>,
    pub(crate) flexible: i16,
    pub(crate) fields: Vec<Field>,
}

pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) array: bool,
    versions: RangeInclusive<i16>,
    nullable: Option<RangeInclusive<i16>>,
    tag: Option<u32>,
    default: &'static str,
    fields: Vec<Field>,
}

/// The way to fill a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fill {
    /// Every field is set, and arrays have two elements.
    Full,
    /// Nullable fields are null, arrays are empty, and tagged fields are left out.
    Sparse,
    /// Like full, with every other nullable field null.
    Mixed,
    /// As given bytes choose: see [`Schema::chosen`].
    Chosen,
}

/// A filled message.
pub(crate) struct Sample {
    pub(crate) name: &'static str,
    pub(crate) version: i16,
    pub(crate) fill: Fill,
    pub(crate) bytes: Bytes,
    /// The `{:?}` output of the decoded message, without the names of structs.
    pub(crate) debug: String,
}

/// Reads the table.
pub(crate) fn schemas() -> Vec<Schema> {
    let mut schemas = Vec::new();
    let mut lines =
        include_str!("schemas.txt").lines().filter(|line| !line.is_empty() && !line.starts_with('#')).peekable();
    while let Some(line) = lines.next() {
        let mut words = line.split(' ');
        let name = words.next().unwrap();
        let versions = range(words.next().unwrap(), &(0..=i16::MAX));
        let flexible = words.next().map_or(i16::MAX, |word| word.strip_prefix("flexible=").unwrap().parse().unwrap());
        let fields = fields(&mut lines, 2, &versions);
        schemas.push(Schema { name, versions, flexible, fields });
    }
    schemas
}

fn fields(
    lines: &mut std::iter::Peekable<impl Iterator<Item = &'static str>>,
    indent: usize,
    parent: &RangeInclusive<i16>,
) -> Vec<Field> {
    let mut found = Vec::new();
    let depth = |line: &str| line.len() - line.trim_start().len();
    while let Some(line) = lines.next_if(|line| depth(line) == indent) {
        let mut words = line.trim_start().split(' ');
        let name = words.next().unwrap();
        let kind = words.next().unwrap();
        let mut field = Field {
            name,
            kind: kind.trim_start_matches("[]"),
            array: kind.starts_with("[]"),
            versions: parent.clone(),
            nullable: None,
            tag: None,
            default: "",
            fields: Vec::new(),
        };
        for word in words {
            match word.split_once('=') {
                None if word == "nullable" => field.nullable = Some(field.versions.clone()),
                None => field.versions = range(word, parent),
                Some(("nullable", versions)) => field.nullable = Some(range(versions, &field.versions)),
                Some(("tag", tag)) => field.tag = Some(tag.parse().unwrap()),
                Some(("default", value)) => field.default = value,
                Some(_) => panic!("{line}"),
            }
        }
        field.fields = fields(lines, indent + 2, &field.versions);
        assert_eq!(field.kind == "struct", !field.fields.is_empty(), "{line}");
        found.push(field);
    }
    found
}

/// Parses `3+`, `0-12` or `1`.
fn range(text: &str, parent: &RangeInclusive<i16>) -> RangeInclusive<i16> {
    if let Some(first) = text.strip_suffix('+') {
        return first.parse().unwrap()..=*parent.end();
    }
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    first.parse().unwrap()..=last.parse().unwrap()
}

/// Returns every message at every version, filled in every way.
pub(crate) fn samples() -> Vec<Sample> {
    let mut samples = Vec::new();
    for schema in schemas() {
        for version in schema.versions.clone() {
            for fill in [Fill::Full, Fill::Sparse, Fill::Mixed] {
                samples.push(schema.sample(version, fill));
            }
        }
    }
    samples
}

impl Schema {
    pub(crate) fn sample(&self, version: i16, fill: Fill) -> Sample {
        self.fill(version, fill, &[])
    }

    /// Returns a message whose every value is chosen by the bytes: nulls, numbers of elements, texts and numbers.
    pub(crate) fn chosen(&self, version: i16, choices: &[u8]) -> Sample {
        self.fill(version, Fill::Chosen, choices)
    }

    fn fill(&self, version: i16, fill: Fill, choices: &[u8]) -> Sample {
        let flexible = version >= self.flexible;
        let mut filler = Filler { version, flexible, fill, choices: choices.to_vec(), counter: 0, bytes: Vec::new() };
        filler.choices.reverse();
        let debug = filler.structure(&self.fields);
        Sample { name: self.name, version, fill, bytes: filler.bytes.into(), debug }
    }
}

struct Filler {
    version: i16,
    flexible: bool,
    fill: Fill,
    /// The bytes that choose, the next one last. Without a byte a choice is 0.
    choices: Vec<u8>,
    /// Makes each value different.
    counter: usize,
    bytes: Vec<u8>,
}

impl Filler {
    /// Writes the fields of a struct. Returns what it should decode to.
    fn structure(&mut self, fields: &[Field]) -> String {
        let mut values = Vec::new();
        let mut tagged = Vec::new();
        for field in fields {
            let present = field.versions.contains(&self.version);
            let value = match field.tag {
                _ if !present => field.default(),
                Some(_) if self.fill == Fill::Sparse => field.default(),
                Some(_) if self.fill == Fill::Chosen && self.choice(2) == 0 => field.default(),
                None => self.field(field),
                Some(tag) => {
                    let before = std::mem::take(&mut self.bytes);
                    let value = self.field(field);
                    tagged.push((tag, std::mem::replace(&mut self.bytes, before)));
                    value
                }
            };
            values.push(format!("{}: {value}", field.name));
        }
        if self.flexible {
            tagged.sort();
            self.varint(tagged.len());
            for (tag, value) in tagged {
                self.varint(tag as usize);
                self.varint(value.len());
                self.bytes.extend(value);
            }
        }
        format!("{{ {} }}", values.join(", "))
    }

    fn field(&mut self, field: &Field) -> String {
        self.counter += 1;
        let nullable = field.nullable.as_ref().is_some_and(|versions| versions.contains(&self.version));
        // A tagged field with its default is left out, and null is such a default.
        let null = match self.fill {
            Fill::Full => false,
            Fill::Sparse => nullable,
            Fill::Mixed => nullable && field.tag.is_none() && self.counter.is_multiple_of(2),
            Fill::Chosen => nullable && self.choice(3) == 0,
        };
        if null {
            match field.kind {
                "struct" if !field.array => self.bytes.push(0xff),
                kind => self.length(None, kind == "string" && !field.array),
            }
            return if field.kind == "records" { "Null".into() } else { "None".into() };
        }
        if nullable && field.kind == "struct" && !field.array {
            self.bytes.push(1);
        }
        let value = if field.array { self.elements(field) } else { self.value(field) };
        // Records have their own null.
        if field.nullable.is_some() && field.kind != "records" { format!("Some({value})") } else { value }
    }

    fn elements(&mut self, field: &Field) -> String {
        let count = match self.fill {
            Fill::Sparse => 0,
            Fill::Chosen => self.choice(4),
            Fill::Full | Fill::Mixed => 2,
        };
        self.length(Some(count), false);
        let values: Vec<String> = (0..count)
            .map(|_| {
                self.counter += 1;
                self.value(field)
            })
            .collect();
        format!("[{}]", values.join(", "))
    }

    /// Returns the next choice of a number below `bound`.
    fn choice(&mut self, bound: usize) -> usize {
        usize::from(self.choices.pop().unwrap_or_default()) % bound
    }

    /// Returns the next choice of a number of `N` bytes.
    fn chosen<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.choice(256) as u8)
    }

    /// Returns the choice of a length. Few are long, so that the bytes last for many fields.
    fn chosen_length(&mut self) -> usize {
        if self.choice(8) == 7 { self.choice(200) } else { self.choice(6) }
    }

    /// Writes a value that the bytes choose.
    fn chosen_value(&mut self, field: &Field) -> String {
        macro_rules! number {
            ($type:ty) => {{
                let bytes = self.chosen();
                self.bytes.extend(bytes);
                format!("{:?}", <$type>::from_be_bytes(bytes))
            }};
        }
        match field.kind {
            "struct" => self.structure(&field.fields),
            "bool" => {
                let value = self.choice(2) == 1;
                self.bytes.push(u8::from(value));
                value.to_string()
            }
            "int8" => number!(i8),
            "int16" => number!(i16),
            "uint16" => number!(u16),
            "int32" => number!(i32),
            "int64" => number!(i64),
            "float64" => number!(f64),
            "error" => {
                let bytes = self.chosen();
                self.bytes.extend(bytes);
                format!("{:?}", ErrorCode(i16::from_be_bytes(bytes)))
            }
            "uuid" => {
                let bytes = self.chosen();
                self.bytes.extend(bytes);
                format!("{:?}", Uuid::from_bytes(bytes))
            }
            "string" => {
                let length = self.chosen_length();
                // Without braces: one after a space would pass for the end of a struct's name.
                let text: String = (0..length).map(|_| ['a', 'é', '/', '\0', '"', '√'][self.choice(6)]).collect();
                self.length(Some(text.len()), true);
                self.bytes.extend(text.as_bytes());
                format!("{text:?}")
            }
            "bytes" | "records" => {
                let length = self.chosen_length();
                let bytes: Bytes = (0..length).map(|_| self.choice(usize::from(b'{')) as u8).collect();
                self.length(Some(bytes.len()), false);
                self.bytes.extend(&bytes);
                if field.kind == "records" { format!("Bytes({bytes:?})") } else { format!("{bytes:?}") }
            }
            kind => panic!("type {kind}"),
        }
    }

    fn value(&mut self, field: &Field) -> String {
        if self.fill == Fill::Chosen {
            return self.chosen_value(field);
        }
        let number = self.counter;
        match field.kind {
            "struct" => self.structure(&field.fields),
            "bool" => {
                // A tagged field that is false would be left out.
                let value = number.is_multiple_of(3) || self.fill == Fill::Full || field.tag.is_some();
                self.bytes.push(u8::from(value));
                value.to_string()
            }
            "int8" => self.number(1, (number % 100) as i64),
            "int16" => self.number(2, 300 + number as i64),
            "uint16" => self.number(2, 40_000 + number as i64),
            "int32" => self.number(4, 70_000 + number as i64),
            "int64" => self.number(8, 5_000_000_000 + number as i64),
            "float64" => {
                let value = 0.5 + number as f64;
                self.bytes.extend(value.to_be_bytes());
                format!("{value:?}")
            }
            "error" => {
                let code = 1 + (number % 100) as i16;
                self.number(2, code.into());
                format!("{:?}", ErrorCode(code))
            }
            "uuid" => {
                let id = Uuid::from_u128(0x1234_5678_9abc_def0 << 64 | number as u128);
                self.bytes.extend(id.as_bytes());
                format!("{id:?}")
            }
            "string" => {
                let text = format!("text-{number}-é");
                self.length(Some(text.len()), true);
                self.bytes.extend(text.as_bytes());
                format!("{text:?}")
            }
            "bytes" | "records" => {
                let bytes = Bytes::from(vec![number as u8; 3 + number % 5]);
                self.length(Some(bytes.len()), false);
                self.bytes.extend(&bytes);
                if field.kind == "records" { format!("Bytes({bytes:?})") } else { format!("{bytes:?}") }
            }
            kind => panic!("type {kind}"),
        }
    }

    fn number(&mut self, size: usize, value: i64) -> String {
        self.bytes.extend(&value.to_be_bytes()[8 - size..]);
        value.to_string()
    }

    fn length(&mut self, length: Option<usize>, string: bool) {
        let signed = length.map_or(-1, |length| length as i64);
        if self.flexible {
            self.varint((signed + 1) as usize);
        } else {
            self.number(if string { 2 } else { 4 }, signed);
        }
    }

    fn varint(&mut self, mut value: usize) {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }
}

impl Field {
    /// Returns what it decodes to where it is absent.
    fn default(&self) -> String {
        match self.kind {
            _ if !self.default.is_empty() => self.default.to_owned(),
            _ if self.nullable.is_some() => "None".to_owned(),
            _ if self.array => "[]".to_owned(),
            "struct" => {
                let fields: Vec<String> =
                    self.fields.iter().map(|field| format!("{}: {}", field.name, field.default())).collect();
                format!("{{ {} }}", fields.join(", "))
            }
            "string" => "\"\"".to_owned(),
            "bytes" => "b\"\"".to_owned(),
            "bool" => "false".to_owned(),
            "uuid" => format!("{:?}", Uuid::nil()),
            "error" => "NONE".to_owned(),
            _ => "0".to_owned(),
        }
    }
}

/// Returns the `{:?}` output without the names of structs.
pub(crate) fn plain_debug(value: &impl Debug) -> String {
    let mut text = String::new();
    write!(text, "{value:?}").unwrap();
    let mut plain = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(brace) = rest.find(" {") {
        let name = rest[..brace].trim_end_matches(|c: char| c.is_ascii_alphanumeric());
        plain.push_str(name);
        plain.push('{');
        rest = &rest[brace + 2..];
    }
    plain + rest
}

/// The result of our codec for some bytes: the value, the number of bytes left, and the encoded value.
pub(crate) struct Ours {
    pub(crate) debug: String,
    pub(crate) left: usize,
    pub(crate) bytes: Bytes,
}

pub(crate) type RoundTrip = fn(Bytes, i16) -> Result<Ours, WireError>;
pub(crate) type Decode = fn(Bytes, i16) -> Result<(), WireError>;

pub(crate) fn round_trip<M: Message + Debug>(bytes: Bytes, version: i16) -> Result<Ours, WireError> {
    let mut reader = Reader::new(bytes);
    let message = M::decode(&mut reader, version)?;
    let bytes = codec::to_bytes(&message, version)?;
    Ok(Ours { debug: plain_debug(&message), left: reader.remaining(), bytes })
}

pub(crate) fn decode<M: Message>(bytes: Bytes, version: i16) -> Result<(), WireError> {
    M::decode(&mut Reader::new(bytes), version).map(drop)
}

/// Returns our types by the names of the table.
pub(crate) fn ours() -> Vec<(&'static str, RoundTrip, Decode)> {
    use millstream_wire::messages::*;
    use millstream_wire::records::*;
    macro_rules! types {
        ($($name:ident)*) => {
            vec![$((stringify!($name), round_trip::<$name> as RoundTrip, decode::<$name> as Decode),)*]
        };
    }
    types! {
        ApiVersionsRequest ApiVersionsResponse ProduceRequest ProduceResponse FetchRequest FetchResponse
        ListOffsetsRequest ListOffsetsResponse MetadataRequest MetadataResponse
        OffsetForLeaderEpochRequest OffsetForLeaderEpochResponse CreateTopicsRequest CreateTopicsResponse
        DeleteTopicsRequest DeleteTopicsResponse CreatePartitionsRequest CreatePartitionsResponse
        DescribeConfigsRequest DescribeConfigsResponse AlterConfigsRequest AlterConfigsResponse
        IncrementalAlterConfigsRequest IncrementalAlterConfigsResponse
        DescribeClusterRequest DescribeClusterResponse InitProducerIdRequest InitProducerIdResponse
        AddPartitionsToTxnRequest AddPartitionsToTxnResponse AddOffsetsToTxnRequest AddOffsetsToTxnResponse
        EndTxnRequest EndTxnResponse TxnOffsetCommitRequest TxnOffsetCommitResponse
        DescribeTransactionsRequest DescribeTransactionsResponse ListTransactionsRequest ListTransactionsResponse
        FindCoordinatorRequest FindCoordinatorResponse JoinGroupRequest JoinGroupResponse
        SyncGroupRequest SyncGroupResponse HeartbeatRequest HeartbeatResponse LeaveGroupRequest LeaveGroupResponse
        OffsetCommitRequest OffsetCommitResponse OffsetFetchRequest OffsetFetchResponse
        ListGroupsRequest ListGroupsResponse DescribeGroupsRequest DescribeGroupsResponse
        DeleteGroupsRequest DeleteGroupsResponse OffsetDeleteRequest OffsetDeleteResponse
        DeleteRecordsRequest DeleteRecordsResponse DescribeLogDirsRequest DescribeLogDirsResponse
        ListPartitionReassignmentsRequest ListPartitionReassignmentsResponse
        ElectLeadersRequest ElectLeadersResponse DescribeAclsRequest DescribeAclsResponse
        DescribeClientQuotasRequest DescribeClientQuotasResponse
        DescribeUserScramCredentialsRequest DescribeUserScramCredentialsResponse
        DescribeProducersRequest DescribeProducersResponse
        DescribeTopicPartitionsRequest DescribeTopicPartitionsResponse
        ListConfigResourcesRequest ListConfigResourcesResponse
        ConsumerGroupHeartbeatRequest ConsumerGroupHeartbeatResponse
        ConsumerGroupDescribeRequest ConsumerGroupDescribeResponse
        AlterPartitionReassignmentsRequest AlterPartitionReassignmentsResponse
        AlterReplicaLogDirsRequest AlterReplicaLogDirsResponse
        DescribeQuorumRequest DescribeQuorumResponse
        AlterPartitionRequest AlterPartitionResponse
        UpdateFeaturesRequest UpdateFeaturesResponse
        WriteTxnMarkersRequest WriteTxnMarkersResponse
        BrokerRegistrationRequest BrokerRegistrationResponse
        BrokerHeartbeatRequest BrokerHeartbeatResponse
        UnregisterBrokerRequest UnregisterBrokerResponse
        AllocateProducerIdsRequest AllocateProducerIdsResponse
        AddRaftVoterRequest AddRaftVoterResponse
        RemoveRaftVoterRequest RemoveRaftVoterResponse
        UnregisterControllerRequest UnregisterControllerResponse
        ConsumerProtocolSubscription ConsumerProtocolAssignment
        OffsetCommitKey OffsetCommitValue GroupMetadataKey GroupMetadataValue
        TransactionLogKey TransactionLogValue
    }
}
