#!/usr/bin/env bash
# Packs the built program with completions, man pages, README and licenses into dist/.
#
#   scripts/package_release.sh VERSION TARGET
set -euo pipefail
cd "$(dirname "$0")/.."
version=$1 target=$2
name="mbconv-$version-$target"
release="${CARGO_TARGET_DIR:-target}/release"
program=$release/mbconv
[ -f "$program" ] || program=$release/mbconv.exe

rm -rf "dist/$name"
mkdir -p "dist/$name/completions" "dist/$name/man"
cp "$program" README.md CHANGELOG.md LICENSE-MIT LICENSE-APACHE "dist/$name"
for shell in bash zsh fish powershell elvish; do
    "$program" completions "$shell" > "dist/$name/completions/mbconv.$shell"
done
"$program" man "dist/$name/man"

cd dist
case "$target" in
    *windows*) 7z a -bso0 "$name.zip" "$name" ;;
    *) tar -czf "$name.tar.gz" "$name" ;;
esac
rm -r "$name"
ls -l
