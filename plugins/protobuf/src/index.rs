//! The place of a message in its schema. Confluent's framing has it between the id of the schema and the data: the
//! number of indexes and the index at each level of messages inside messages, as zigzag numbers. A single byte 0 stands
//! for the first message of the schema.

use millstream_sdk::Result;
use prost::encoding::{decode_varint, encode_varint};
use prost_reflect::{FileDescriptor, MessageDescriptor};

/// The most messages inside each other.
const DEPTH_MAX: i64 = 64;

/// Returns the bytes for a message.
pub(crate) fn of(message: &MessageDescriptor) -> Vec<u8> {
    let mut path = Vec::new();
    let mut inner = message.clone();
    while let Some(outer) = inner.parent_message() {
        path.insert(0, outer.child_messages().position(|child| child == inner).unwrap_or(0));
        inner = outer;
    }
    path.insert(0, inner.parent_file().messages().position(|message| message == inner).unwrap_or(0));
    let mut bytes = Vec::new();
    if path == [0] {
        bytes.push(0);
    } else {
        write(path.len(), &mut bytes);
        path.iter().for_each(|index| write(*index, &mut bytes));
    }
    bytes
}

/// Finds the message that the first bytes name. Also returns the bytes after these.
///
/// # Errors
/// The schema has no such message.
pub(crate) fn find<'a>(file: &FileDescriptor, mut bytes: &'a [u8]) -> Result<(MessageDescriptor, &'a [u8])> {
    let count = read(&mut bytes)?;
    if !(0..=DEPTH_MAX).contains(&count) {
        return Err(format!("{count} indexes of a message").into());
    }
    let first = if count == 0 { 0 } else { read(&mut bytes)? };
    let mut message = nth(file.messages(), first)?;
    for _ in 1..count {
        message = nth(message.child_messages(), read(&mut bytes)?)?;
    }
    Ok((message, bytes))
}

fn nth(mut messages: impl Iterator<Item = MessageDescriptor>, index: i64) -> Result<MessageDescriptor> {
    let found = usize::try_from(index).ok().and_then(|index| messages.nth(index));
    found.ok_or_else(|| format!("the schema has no message with the index {index}").into())
}

fn write(index: usize, bytes: &mut Vec<u8>) {
    encode_varint((index as u64) << 1, bytes);
}

fn read(bytes: &mut &[u8]) -> Result<i64> {
    let number = decode_varint(bytes).map_err(|_| "the indexes of the message are cut off")?;
    Ok((number >> 1).cast_signed() ^ -(number & 1).cast_signed())
}
