//! The cache of compiled code is only a cache: whatever its folder is like, it costs at most compilations and one
//! warning. Only files that this host wrote are loaded.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use millstream_stage::{Compiler, Digest, Engine, EngineConfig, LoadError, Stage};

use crate::guests::Guest;
use crate::support::{Lines, call};

/// Returns an engine for a few instances, with this cache.
fn engine(cache: &Path, compiler: Compiler) -> Engine {
    let config = EngineConfig { cache_dir: Some(cache.to_owned()), instances: 4, compiler, ..EngineConfig::default() };
    Engine::new(config).expect("an engine")
}

/// Loads a plug-in and calls it, as a process that has just started does.
fn works(cache: &Path) {
    let plugin = engine(cache, Compiler::InProcess).load(&Guest::filter().build()).expect("a plug-in");
    call(&Stage::new(plugin, "{}").expect("a stage")).expect("a response");
}

/// Returns whether the plug-in is loaded from the cache, without a compiler.
fn is_kept(cache: &Path) -> bool {
    let compiler = Compiler::Child("/nowhere/at/all".into());
    match engine(cache, compiler).load(&Guest::filter().build()) {
        Ok(_) => true,
        Err(LoadError::CompilerMissing { .. }) => false,
        Err(error) => panic!("{error}"),
    }
}

/// Checks a folder that cannot be used: everything works, and each process logs one warning.
fn assert_off(what: &str, cache: &Path) {
    for attempt in 1..=2 {
        let ((), warnings) = Lines::warnings_of(|| works(cache));
        assert_eq!(warnings.len(), 1, "{what}, attempt {attempt}: {warnings:?}");
    }
    let (kept, _) = Lines::warnings_of(|| is_kept(cache));
    assert!(!kept, "{what}: code was loaded from the cache");
}

/// Checks a damaged folder: the next process works with at most one warning, and the one after it loads from the cache
/// again.
fn assert_mended(what: &str, cache: &Path) {
    let ((), warnings) = Lines::warnings_of(|| works(cache));
    assert!(warnings.len() <= 1, "{what}: {warnings:?}");
    let (kept, warnings) = Lines::warnings_of(|| is_kept(cache));
    assert!(kept && warnings.is_empty(), "{what}: {warnings:?}");
}

/// Returns a cache that holds the plug-in.
fn filled(folder: &Path) -> PathBuf {
    let cache = folder.join("cache");
    works(&cache);
    assert!(is_kept(&cache));
    cache
}

/// Returns the cached file of the plug-in.
fn artefact(cache: &Path) -> PathBuf {
    let digest = Digest::of(&Guest::filter().build()).to_string();
    let files = fs::read_dir(cache).expect("the cache").map(|entry| entry.expect("a file").path());
    let mut found = files.filter(|path| path.to_string_lossy().contains(&digest));
    found.next().expect("a kept file")
}

fn pipe(path: &Path) {
    rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, 0o600.into(), 0).expect("a pipe");
}

#[test]
fn a_folder_that_cannot_be_made_costs_compilations() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    File::create(path("file")).expect("a file");
    symlink(path("loop"), path("loop")).expect("a link");
    symlink(path("nowhere"), path("dangling")).expect("a link");
    pipe(&path("pipe"));
    for cache in [
        path("file"),
        path("file/cache/millstream"),
        path("loop"),
        path("loop/cache"),
        path("dangling"),
        path("pipe"),
        path("x").join("y".repeat(300)),
        // Even root may not write there.
        "/proc/cache".into(),
        "/proc".into(),
        "/dev/full".into(),
        "/dev/full/cache".into(),
    ] {
        assert_off(&cache.display().to_string(), &cache);
    }
}

#[test]
fn a_folder_of_another_user_is_not_used() {
    let folder = tempfile::tempdir().expect("a folder");
    if rustix::process::geteuid().is_root() {
        let cache = filled(folder.path());
        chown(&cache, Some(65_534), None).expect("root may give it away");
        assert_off("another user's folder", &cache);
        chown(&cache, Some(0), None).expect("and take it again");
        chown(cache.join("key"), Some(65_534), None).expect("a file too");
        assert_off("another user's key", &cache);
    } else {
        assert_off("root's folder", Path::new("/"));
    }
}

#[test]
fn a_folder_that_others_may_write_is_not_used() {
    let folder = tempfile::tempdir().expect("a folder");
    let cache = filled(folder.path());
    for mode in [0o777, 0o770, 0o702] {
        fs::set_permissions(&cache, Permissions::from_mode(mode)).expect("its mode");
        assert_off(&format!("mode {mode:o}"), &cache);
    }
    fs::set_permissions(&cache, Permissions::from_mode(0o755)).expect("its mode");
    assert!(is_kept(&cache));
    fs::set_permissions(cache.join("key"), Permissions::from_mode(0o666)).expect("its mode");
    assert_off("a key that others may write", &cache);
}

#[test]
fn a_key_that_is_not_a_file_is_not_used() {
    let folder = tempfile::tempdir().expect("a folder");
    let cache = filled(folder.path());
    let key = cache.join("key");
    let kept = fs::read(&key).expect("the key");
    let make: [(&str, &dyn Fn()); 4] = [
        ("a folder", &|| fs::create_dir(&key).expect("a folder")),
        ("a pipe", &|| pipe(&key)),
        ("a link to itself", &|| symlink(&key, &key).expect("a link")),
        ("a link to nothing", &|| symlink("nothing", &key).expect("a link")),
    ];
    for (what, make) in make {
        fs::remove_file(&key).or_else(|_| fs::remove_dir(&key)).expect("removed");
        make();
        assert_off(what, &cache);
    }
    fs::remove_file(&key).expect("removed");
    fs::write(&key, kept).expect("the key");
    fs::set_permissions(&key, Permissions::from_mode(0o600)).expect("its mode");
    assert!(is_kept(&cache));
}

#[test]
fn damaged_files_are_compiled_again_and_replaced() {
    let folder = tempfile::tempdir().expect("a folder");
    let cache = filled(folder.path());
    let (key, artefact) = (cache.join("key"), artefact(&cache));
    let whole = fs::read(&artefact).expect("compiled code");
    for (what, bytes) in [
        ("empty", &[][..]),
        ("one byte", b"m"),
        ("the magic alone", &whole[..8]),
        ("cut in the hash", &whole[..20]),
        ("cut in the code", &whole[..whole.len() - 1]),
        ("zeroes", &vec![0; whole.len()]),
        ("a text", b"not compiled code\n"),
    ] {
        fs::write(&artefact, bytes).expect("written");
        assert_mended(&format!("compiled code: {what}"), &cache);
    }
    for (what, bytes) in [("empty", &[][..]), ("cut", &[7; 31]), ("longer", &[7; 33]), ("other", &[7; 32])] {
        fs::write(&key, bytes).expect("written");
        assert_mended(&format!("key: {what}"), &cache);
    }
    fs::remove_file(&key).expect("removed");
    assert_mended("no key", &cache);
    fs::remove_file(&artefact).expect("removed");
    symlink(&artefact, &artefact).expect("a link");
    assert_mended("a link to itself", &cache);
    fs::remove_file(&artefact).expect("removed");
    pipe(&artefact);
    assert_mended("a pipe", &cache);
    fs::remove_dir_all(&cache).expect("removed");
    assert_mended("no folder", &cache);
}

#[test]
fn a_file_that_cannot_be_replaced_costs_compilations() {
    let folder = tempfile::tempdir().expect("a folder");
    let cache = filled(folder.path());
    let artefact = artefact(&cache);
    fs::remove_file(&artefact).expect("removed");
    fs::create_dir_all(artefact.join("inner")).expect("a folder of its name");
    assert_off("a folder of the file's name", &cache);
}

#[test]
fn files_of_other_names_do_no_harm() {
    let folder = tempfile::tempdir().expect("a folder");
    let cache = filled(folder.path());
    for name in ["x.stage", "x.tmp", ".stage", "key.1-0.tmp", "note\u{fffd}.txt"] {
        fs::write(cache.join(name), b"garbage").expect("written");
    }
    for name in ["folder.stage", "folder.tmp"] {
        fs::create_dir_all(cache.join(name).join("inner")).expect("a folder");
    }
    symlink("loop.stage", cache.join("loop.stage")).expect("a link");
    pipe(&cache.join("pipe.stage"));
    fs::remove_file(artefact(&cache)).expect("removed");
    let ((), warnings) = Lines::warnings_of(|| works(&cache));
    assert!(warnings.is_empty(), "{warnings:?}");
    assert!(is_kept(&cache));
}

#[test]
fn a_folder_that_is_lost_while_the_process_runs_costs_one_warning() {
    let folder = tempfile::tempdir().expect("a folder");
    let cache = folder.path().join("cache");
    let engine = engine(&cache, Compiler::InProcess);
    fs::remove_dir_all(&cache).expect("removed");
    File::create(&cache).expect("a file");
    let ((), warnings) = Lines::warnings_of(|| {
        for version in ["1.0.0", "2.0.0", "3.0.0"] {
            engine.load(&Guest::filter().version(version).build()).expect("a plug-in");
        }
    });
    assert_eq!(warnings.len(), 1, "{warnings:?}");
}
