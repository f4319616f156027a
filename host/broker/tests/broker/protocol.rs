//! Bytes that are not a request, and requests that are not supported.

use std::time::Duration;

use bytes::{BufMut, BytesMut};
use millstream_wire::frame::decode_response;
use millstream_wire::messages::*;
use millstream_wire::{ApiKey, ErrorCode};
use tokio::io::AsyncWriteExt;

use super::client::{Client, PATIENCE, broker};

/// Returns a frame with a header of version 1 and this body.
fn raw(api_key: i16, version: i16, body: &[u8]) -> BytesMut {
    let mut frame = BytesMut::new();
    frame.put_i32(10 + body.len() as i32);
    frame.put_i16(api_key);
    frame.put_i16(version);
    frame.put_i32(77);
    frame.put_i16(-1);
    frame.put_slice(body);
    frame
}

async fn closes(client: &mut Client, bytes: &[u8]) -> bool {
    client.stream.write_all(bytes).await.expect("sent");
    client.frame().await.is_none()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invalid_request_ends_its_connection_and_no_other() {
    let broker = broker(&["socket.request.max.bytes=1000"]).await;
    let mut neighbour = broker.connect().await;
    let frames: [&[u8]; 11] = [
        &(-1i32).to_be_bytes(),
        &0i32.to_be_bytes(),
        &i32::MAX.to_be_bytes(),
        &1001i32.to_be_bytes(),
        b"GET / HTTP/1.1\r\n\r\n",
        &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc],
        b"SSH-2.0-OpenSSH_9.2\r\n",
        // An unknown API, and versions that do not exist.
        &raw(9999, 0, &[]),
        &raw(ApiKey::Produce as i16, 99, &[]),
        &raw(ApiKey::Fetch as i16, 3, &[]),
        // A count of topics that the frame cannot hold.
        &raw(ApiKey::Metadata as i16, 1, &i32::MAX.to_be_bytes()),
    ];
    for bytes in frames {
        let mut client = broker.connect().await;
        assert!(closes(&mut client, bytes).await, "{bytes:?}");
        assert_eq!(neighbour.ask(0, &ApiVersionsRequest::default()).await.error_code, ErrorCode::NONE);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_response_to_a_future_api_versions_is_in_version_0() {
    let broker = broker(&[]).await;
    let mut client = broker.connect().await;
    client.stream.write_all(&raw(ApiKey::ApiVersions as i16, 99, &[0, 1, 2, 3])).await.expect("sent");
    let frame = client.frame().await.expect("a response");
    let (header, response) = decode_response::<ApiVersionsRequest>(frame, 0).expect("version 0");
    assert_eq!((header.correlation_id, response.error_code), (77, ErrorCode::UNSUPPORTED_VERSION));
    assert_eq!(response.api_keys[0].api_key, ApiKey::ApiVersions as i16);
    // The connection still works.
    let named = ApiVersionsRequest {
        client_software_name: "a".into(),
        client_software_version: "1.0".into(),
        ..Default::default()
    };
    let response = client.ask(3, &named).await;
    let produce = response.api_keys.iter().find(|api| api.api_key == 0).expect("produce");
    assert_eq!((produce.min_version, produce.max_version), (0, 13));
    let nameless = ApiVersionsRequest { client_software_version: "1 0".into(), ..Default::default() };
    assert_eq!(client.ask(3, &nameless).await.error_code, ErrorCode::INVALID_REQUEST);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_counted_by_api() {
    let broker = broker(&[]).await;
    let mut client = broker.connect().await;
    for _ in 0..2 {
        client.ask(0, &ApiVersionsRequest::default()).await;
    }
    // The zero ends the header: it has no tagged fields.
    assert!(closes(&mut client, &raw(ApiKey::Produce as i16, 99, &[0])).await);
    let counts = |api| {
        let stats = broker.running.request_stats();
        let stats = stats.iter().find(|stats| stats.api == api).expect("a served API");
        (stats.requests, stats.responses, stats.errors, !stats.total_time.is_zero())
    };
    assert_eq!(counts("ApiVersions"), (2, 2, 0, true));
    assert_eq!(counts("Produce"), (1, 0, 1, false));
    assert_eq!(counts("Fetch"), (0, 0, 0, false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_after_a_request_are_ignored() {
    let broker = broker(&[]).await;
    let mut client = broker.connect().await;
    let frame = raw(ApiKey::Metadata as i16, 1, &[0, 0, 0, 0, 1, 2, 3]);
    client.stream.write_all(&frame).await.expect("sent");
    let answer = client.frame().await.expect("a response");
    let (header, _) = decode_response::<MetadataRequest>(answer, 1).expect("metadata");
    assert_eq!(header.correlation_id, 77);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_byte_a_second_is_too_slow_and_a_silent_client_is_not() {
    let broker = broker(&[]).await;
    let mut silent = broker.connect().await;
    let mut slow = broker.connect().await;
    let mut sent = 0;
    let frame = raw(ApiKey::Metadata as i16, 1, &[0; 30]);
    for byte in &frame {
        if slow.stream.write_all(&[*byte]).await.is_err() {
            break;
        }
        sent += 1;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(sent < 20, "{sent} bytes were taken");
    assert_eq!(silent.ask(0, &ApiVersionsRequest::default()).await.error_code, ErrorCode::NONE);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_number_of_connections_is_bounded() {
    let broker = broker(&["max.connections.per.ip=2"]).await;
    let (mut first, mut second) = (broker.connect().await, broker.connect().await);
    for client in [&mut first, &mut second] {
        assert_eq!(client.ask(0, &ApiVersionsRequest::default()).await.error_code, ErrorCode::NONE);
    }
    assert_eq!(broker.connect().await.frame().await, None);
    drop(first);
    // There is room again once the broker has seen the end of the first connection.
    let third = async {
        loop {
            let mut third = broker.connect().await;
            let request = raw(ApiKey::ApiVersions as i16, 0, &[]);
            if third.stream.write_all(&request).await.is_ok() && third.frame().await.is_some() {
                break;
            }
        }
    };
    tokio::time::timeout(PATIENCE, third).await.expect("the place is free");
}
