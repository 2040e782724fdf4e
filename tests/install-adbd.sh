#!/usr/bin/env bash
# Download what stands for a phone in the tests, a real adbd for Linux, and unpack it without root into a cache folder.
# It is not installed: Debian's package would start it, and it lets anybody in who reaches its port.
set -euo pipefail
place=${XDG_CACHE_HOME:-$HOME/.cache}/edgecv-tests/adbd
test -x "$place/usr/lib/android-sdk/platform-tools/adbd" && exit 0
keys=/usr/share/keyrings/debian-archive-keyring.gpg
mirror=$(apt-get indextargets --format '$(REPO_URI)' | grep -m 1 '/debian/$' || echo http://deb.debian.org/debian/)
part=$(mktemp -d)
trap 'rm -rf "$part"' EXIT
cd "$part"
mkdir -p lists/partial archives/partial root
touch status
for suite in bookworm bookworm-backports; do echo "deb [signed-by=$keys] $mirror $suite main"; done >sources.list
apt=(apt-get -q "-oDir::State=$part" "-oDir::State::status=$part/status" "-oDir::Cache=$part"
  "-oDir::Etc::SourceList=$part/sources.list" -oDir::Etc::SourceParts=- -oAPT::Sandbox::User=)
"${apt[@]}" update
"${apt[@]}" download adbd {android-libbase,android-libcutils,android-liblog}/bookworm-backports \
  android-libboringssl libbrotli1 liblz4-1 libprotobuf32 libsystemd0 libzstd1
for package in *.deb; do dpkg-deb -x "$package" root; done
mkdir -p "$(dirname "$place")"
rm -rf "$place"
mv root "$place"
