#!/usr/bin/env bash
# Seen with cargo 1.95.0 and semver 1.0.28, on 2026-11-27.
#
# Guess: a package without a build script has no use for [build-dependencies], so cargo ignores them.
# Behaviour: cargo never builds them for that package, and prints no warning. But their features still count. If the same
# crate is a build dependency of another package in the same build, it is compiled with the features that the package without
# a build script asks for.
#
# Output seen:
#   tool alone: semver without serde
#   hub alone: no semver
#   tool and hub: semver with serde
#
# This is of use: a workspace member can fix the host-side features of shared dependencies, so that `cargo build -p A` and
# `cargo build --workspace` share one compilation. It is also a trap: a left-over section changes other packages' builds.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
mkdir -p tool/src hub/src
printf '[workspace]\nresolver = "3"\nmembers = ["tool", "hub"]\n' > Cargo.toml
for name in tool hub; do
  printf '[package]\nname = "%s"\nversion = "0.1.0"\nedition = "2024"\n[build-dependencies]\n' "$name" > "$name/Cargo.toml"
  : > "$name/src/lib.rs"
done
echo 'semver = { version = "=1.0.28", default-features = false }' >> tool/Cargo.toml
echo 'semver = { version = "=1.0.28", default-features = false, features = ["serde"] }' >> hub/Cargo.toml
# Only this package has a build script.
echo 'fn main() { let _ = semver::Version::new(1, 0, 0); }' > tool/build.rs
cargo generate-lockfile --quiet

# Says how the packages of a selection compile semver, in a target folder of its own.
semver_of() {
  local lines
  lines=$(CARGO_TARGET_DIR="$folder/target-$#" cargo build --verbose "$@" 2>&1 | grep -- '--crate-name semver' || true)
  case "$lines" in
    "") echo "no semver" ;;
    *'feature="serde"'*) echo "semver with serde" ;;
    *) echo "semver without serde" ;;
  esac
}

rm -rf "$folder"/target-*
tool=$(semver_of -p tool)
rm -rf "$folder"/target-*
hub=$(semver_of -p hub)
rm -rf "$folder"/target-*
both=$(semver_of -p tool -p hub)
printf 'tool alone: %s\nhub alone: %s\ntool and hub: %s\n' "$tool" "$hub" "$both"
[ "$tool" = "semver without serde" ] && [ "$hub" = "no semver" ] && [ "$both" = "semver with serde" ] || {
  echo "cargo $(cargo --version) behaves otherwise now"
  exit 1
}
