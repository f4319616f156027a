//! Where partitions are placed, and what a node knows when a folder is gone.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use millstream_log::DataDir;
use millstream_partition::ReplicaFault;
use tempfile::TempDir;
use uuid::Uuid;

use crate::log_dirs::{self, LogDirs};
use crate::placement::{Place, Placement, Wanted};

const TOPIC: Uuid = Uuid::from_u128(7);

/// Opens folders; the first one has the metadata.
fn open(paths: &[PathBuf]) -> (Placement, Arc<LogDirs>, Vec<DataDir>) {
    let metadata = DataDir::open(&paths[0], None, 1).expect("a folder");
    let (dirs, mut opened) = LogDirs::open(paths, &metadata, 0).expect("folders");
    opened.push(metadata);
    let dirs = Arc::new(dirs);
    (Placement::open(Arc::clone(&dirs)).expect("a file"), dirs, opened)
}

fn wanted(index: i32, topic_id: Uuid) -> Vec<Wanted> {
    vec![Wanted { key: ("t".to_owned(), index), topic_id }]
}

fn place(placement: &Placement, index: i32) -> Place {
    placement.place(&wanted(index, TOPIC), |_| false).remove(0)
}

fn is_in(place: &Place, folder: &Path) -> bool {
    matches!(place, Place::In(found) if **found == *folder)
}

#[test]
fn a_new_partition_goes_to_the_folder_with_the_fewest() {
    let temporary = TempDir::new().expect("a folder");
    let paths = ["a", "b"].map(|name| temporary.path().join(name));
    let (placement, dirs, _opened) = open(&paths);
    for (index, folder) in [(0, &paths[0]), (1, &paths[1]), (2, &paths[0]), (3, &paths[1])] {
        assert!(is_in(&place(&placement, index), folder), "partition {index}");
    }
    let cordoned = placement.place(&wanted(4, TOPIC), |dir| **dir.path() == *paths[0]);
    assert!(is_in(&cordoned[0], &paths[1]), "{cordoned:?}");
    let all = placement.place(&wanted(5, TOPIC), |_| true);
    assert!(is_in(&all[0], &paths[0]), "one that must be here is placed all the same: {all:?}");
    // A deleted one makes room, and a folder that was asked for wins.
    placement.forget("t", 5);
    placement.forget("t", 2);
    assert!(is_in(&place(&placement, 6), &paths[0]));
    placement.prefer("t", 7, dirs.find(&paths[1]).expect("a folder"));
    assert!(is_in(&place(&placement, 7), &paths[1]));
    dirs.fail(dirs.find(&paths[1]).expect("a folder"), "a test");
    assert!((8..12).all(|index| is_in(&place(&placement, index), &paths[0])));
}

#[test]
fn a_partition_whose_folder_is_gone_is_not_new() {
    let temporary = TempDir::new().expect("a folder");
    let paths = ["a", "b"].map(|name| temporary.path().join(name));
    let (placement, _, opened) = open(&paths);
    assert!(is_in(&place(&placement, 0), &paths[0]) && is_in(&place(&placement, 1), &paths[1]));
    drop((placement, opened));

    // A folder that cannot be opened may have any partition that is not found.
    std::fs::remove_dir_all(&paths[1]).expect("removable");
    std::fs::write(&paths[1], "not a folder").expect("a file");
    let (placement, _, opened) = open(&paths);
    let offline = place(&placement, 1);
    assert!(matches!(&offline, Place::Nowhere(ReplicaFault::Offline(_))), "{offline:?}");
    drop((placement, opened));

    let (placement, _, _opened) = open(&paths[..1]);
    assert!(is_in(&place(&placement, 0), &paths[0]));
    let lost = place(&placement, 1);
    assert!(matches!(&lost, Place::Nowhere(ReplicaFault::Damaged(why)) if why.contains("log.dirs")), "{lost:?}");
    // Another topic of the same name is new.
    let other = placement.place(&wanted(1, Uuid::from_u128(8)), |_| false);
    assert!(is_in(&other[0], &paths[0]), "{other:?}");
}

#[test]
fn folders_are_compared_by_where_they_are() {
    let temporary = TempDir::new().expect("a folder");
    let path = |name: &str| temporary.path().join(name);
    std::fs::create_dir(path("real")).expect("a folder");
    std::os::unix::fs::symlink(path("real"), path("link")).expect("a link");
    assert!(log_dirs::is_same(&path("real"), &path("link")));
    assert!(log_dirs::is_same(&path("missing/inner/.."), &path("missing")));
    let check = |one: &str, other: &str| log_dirs::check(&[path(one), path(other)], &path(one), |_| false, true);
    for (one, other, words) in
        [("real", "link", "twice"), ("real", "link/inner", "inside of"), ("new", "new/../new", "twice")]
    {
        let error = check(one, other).expect_err("rejected").to_string();
        assert!(error.contains(words), "{one} and {other}: {error}");
    }
    assert!(check("real", "realm").is_ok());
}
