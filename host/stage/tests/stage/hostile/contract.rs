//! Rows 18 to 22 and 34: files that are not plug-ins of this contract.

use millstream_stage::{Digest, Kind, LoadError, Refusal};

use crate::guests::Guest;
use crate::support::{assert_not_loaded, engine};

fn refused(bytes: &[u8]) -> Refusal {
    match assert_not_loaded(Kind::Filter, bytes) {
        LoadError::Refused(refusals) => refusals.first().clone(),
        error => panic!("rejected, but not by the scan: {error}"),
    }
}

#[test]
fn row_18_not_a_component() {
    assert!(matches!(refused(b""), Refusal::NotWasm(_)));
    assert!(matches!(refused(b"#!/bin/sh\necho hello\n"), Refusal::NotWasm("a text file")));
    assert!(matches!(refused(b"(component)"), Refusal::NotWasm("a text file")));
    assert!(matches!(refused(&[0xa5; 4096]), Refusal::NotWasm(_)));
    assert_eq!(refused(&Guest::filter().core()), Refusal::CoreModule);
    assert_eq!(refused(b"\0asm\x0d\0\x01\0"), Refusal::NoWorld);
}

#[test]
fn row_18_truncated_at_every_length() {
    let whole = Guest::filter().build();
    for length in 0..whole.len() {
        match engine().load(&whole[..length]) {
            Err(error) => assert!(matches!(error, LoadError::Refused(_)), "{length}: {error}"),
            // What is cut off is a whole custom section at the end, with build information.
            Ok(_) => assert_eq!(whole[length], 0, "cut at {length} of {}", whole.len()),
        }
    }
}

#[test]
fn row_18_bits_flipped() {
    // A flipped bit in a name or in the code may leave a valid component. The file must either load or be rejected, and
    // nothing else.
    let whole = Guest::filter().build();
    let (mut refused, mut loaded) = (0, 0);
    let mut state = 1u64;
    for _ in 0..400 {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let bit = (state >> 33) as usize % (whole.len() * 8);
        let mut flipped = whole.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        match engine().load(&flipped) {
            Ok(_) => loaded += 1,
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 50 && loaded > 0, "{refused} rejected, {loaded} loaded");
}

/// Returns a guest whose contract has one more import.
fn with_import(import: &str, package: &str) -> Vec<u8> {
    Guest::filter()
        .contract(|contract| {
            let world = "world filter {";
            let imported = contract.replace(world, &format!("{world}\n    import {import};"));
            format!("{imported}\n{package}")
        })
        // An import that no code uses would be left out of the component.
        .import(&format!(r#"(import "{import}" "ask" (func $ask))"#))
        .build()
}

#[test]
fn row_19_unknown_import() {
    let package = "package acme:db@1.0.0 { interface query { ask: func(); } }";
    let guest = with_import("acme:db/query@1.0.0", package);
    assert_eq!(refused(&guest), Refusal::UnknownImport("acme:db/query@1.0.0".to_owned()));
}

#[test]
fn row_20_wasi_import() {
    for (package, interface) in [
        ("wasi:filesystem", "types"),
        ("wasi:sockets", "tcp"),
        ("wasi:clocks", "wall-clock"),
        ("wasi:random", "random"),
    ] {
        let import = format!("{package}/{interface}@0.2.6");
        let package = format!("package {package}@0.2.6 {{ interface {interface} {{ ask: func(); }} }}");
        let guest = with_import(&import, &package);
        let refusal = refused(&guest);
        assert_eq!(refusal, Refusal::Wasi(import.clone()));
        assert!(refusal.to_string().contains(&import), "{refusal}");
    }
}

#[test]
fn row_20_a_function_of_the_host_that_the_contract_lacks() {
    let guest = Guest::filter()
        .contract(|contract| contract.replace("interface host {", "interface host {\n    ask: func();\n"))
        .import(r#"(import "millstream:stage/host@1.0.0" "ask" (func $ask))"#)
        .build();
    let error = assert_not_loaded(Kind::Filter, &guest);
    let LoadError::Contract(problem) = &error else {
        panic!("{error}");
    };
    assert!(problem.contains("ask"), "{problem}");
}

#[test]
fn row_21_missing_export() {
    let configure = "export configure: func(json: string) -> result<_, config-error>;";
    let guest = Guest::filter()
        .contract(|contract| contract.replace(configure, ""))
        .edit(r#"(export "configure")"#, "")
        .edit(r#"(export "cabi_post_configure" (func $forget))"#, "");
    let refusal = refused(&guest.build());
    let expected = Refusal::MissingExport { kind: Kind::Filter, name: "configure" };
    assert_eq!(refusal, expected);
    assert!(refusal.to_string().contains("`configure`"), "{refusal}");
}

#[test]
fn row_21_one_of_two_calls() {
    let decompress = "export decompress: func(data: list<u8>, max: u32) -> result<list<u8>, string>;";
    let guest = Guest::compressor()
        .contract(|contract| contract.replace(decompress, ""))
        .edit(r#"(export "decompress")"#, "")
        .edit(r#"(export "cabi_post_decompress" (func $forget))"#, "");
    let expected = Refusal::MissingExport { kind: Kind::Compressor, name: "decompress" };
    assert_eq!(refused(&guest.build()), expected);
}

#[test]
fn row_21_wrong_signature() {
    // The core function fits; only the contract has the type.
    let guest = Guest::compressor()
        .contract(|contract| contract.replace("data: list<u8>, max: u32", "data: list<u8>, max: s32"));
    let error = assert_not_loaded(Kind::Compressor, &guest.build());
    let LoadError::Contract(problem) = &error else {
        panic!("{error}");
    };
    assert!(problem.contains("`decompress`") && problem.contains("u32"), "{problem}");
    // The types of imports are compared with the contract too.
    let guest = Guest::filter()
        .contract(|contract| contract.replace("delta: u64", "delta: s64"))
        .import(crate::guests::IMPORT_COUNT);
    let error = assert_not_loaded(Kind::Filter, &guest.build());
    assert!(matches!(&error, LoadError::Contract(problem) if problem.contains("count")), "{error}");
}

#[test]
fn row_21_another_kind_than_it_says() {
    // The kind is the byte after the two strings of the description, at 1024 + 16.
    let guest = Guest::filter().hook("describe", "(i32.store8 (i32.const 1040) (i32.const 0))");
    let error = assert_not_loaded(Kind::Filter, &guest.build());
    assert!(
        matches!(&error, LoadError::Description(problem) if problem.to_string().contains("partitioner")),
        "{error}"
    );
    // With a kind that does not exist, the description is invalid.
    let guest = Guest::filter().hook("describe", "(i32.store8 (i32.const 1040) (i32.const 9))");
    let error = assert_not_loaded(Kind::Filter, &guest.build());
    assert!(matches!(error, LoadError::Start(_)), "{error}");
}

#[test]
fn row_21_an_invalid_name() {
    for name in ["", "a b", "a\u{1b}[31m", "../../etc/passwd"] {
        let error = assert_not_loaded(Kind::Filter, &Guest::filter().name(name).build());
        assert!(matches!(error, LoadError::Description(_)), "{name:?}: {error}");
        assert!(!error.to_string().contains('\u{1b}'));
    }
}

#[test]
fn row_22_world_of_another_version() {
    for version in ["2.0.0", "1.1.0", "0.9.0"] {
        let guest = Guest::filter().contract(|contract| {
            contract.replace("package millstream:stage@1.0.0", &format!("package millstream:stage@{version}"))
        });
        let refusal = refused(&guest.build());
        let text = refusal.to_string();
        assert!(text.contains(version) && text.contains("1.0.0"), "{text}");
        assert!(matches!(refusal, Refusal::OtherVersion { .. }), "{text}");
    }
    // A later patch of the same contract is accepted.
    let guest = Guest::filter()
        .contract(|contract| contract.replace("package millstream:stage@1.0.0", "package millstream:stage@1.0.9"));
    crate::support::call(&crate::support::stage(&guest)).expect("the same contract");
}

#[test]
fn row_34_wrong_digest() {
    let guest = Guest::filter().build();
    let right = Digest::of(&guest);
    let wrong = Digest::of(b"something else");
    let error = engine().load_exactly(&guest, &wrong).expect_err("another digest");
    let text = error.to_string();
    assert!(text.contains(&right.to_string()) && text.contains(&wrong.to_string()), "{text}");
    assert_eq!(engine().load_exactly(&guest, &right).expect("its digest").digest(), right);
}

#[test]
fn row_34_precompiled_artefact_from_a_user() {
    // What the host itself would cache: read from the cache of an engine, without its header.
    let folder = tempfile::tempdir().expect("a folder");
    let config = millstream_stage::EngineConfig { cache_dir: Some(folder.path().to_owned()), ..Default::default() };
    let other = millstream_stage::Engine::new(config).expect("an engine");
    other.load(&Guest::filter().build()).expect("a guest");
    let kept = std::fs::read_dir(folder.path())
        .expect("the cache")
        .map(|entry| entry.expect("a file").path())
        .find(|path| path.extension().is_some_and(|extension| extension == "stage"))
        .expect("a kept artefact");
    let bytes = std::fs::read(kept).expect("the artefact");
    let start = bytes.windows(4).position(|window| window == b"\x7fELF").expect("machine code");
    for artefact in [&bytes[..], &bytes[start..]] {
        assert!(matches!(refused(artefact), Refusal::NotWasm(_)));
    }
}
