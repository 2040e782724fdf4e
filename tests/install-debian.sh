#!/usr/bin/env bash
# Install what the tests need from Debian. Without it those tests skip.
# - chromium: the report and models are opened in it, and its Vulkan driver of software stands for a GPU (libvulkan1
#   loads it); npm fetches what runs models there.
# - openssh-server stands for a board; adb and an adbd, in a network of their own (iproute2), for a phone.
set -euo pipefail
"$(dirname "$0")/install-adbd.sh" || echo "adbd could not be had: its tests skip"
packages=(adb chromium fonts-dejavu-core iproute2 libvulkan1 openssh-server)
command -v npm >/dev/null || packages+=(npm)
dpkg-query --show --showformat '${db:Status-Abbrev}\n' "${packages[@]}" 2>/dev/null | grep -c '^ii' | grep -qx "${#packages[@]}" && exit 0
sudo=$([ "$(id -u)" = 0 ] || echo sudo)
export DEBIAN_FRONTEND=noninteractive
$sudo apt-get update -q
$sudo apt-get install -y -q --no-install-recommends "${packages[@]}"
