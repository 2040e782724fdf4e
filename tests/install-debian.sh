#!/usr/bin/env bash
# Install what the tests need from Debian. Without it those tests skip.
# - chromium: the report and models are opened in it, and its Vulkan driver of software stands for a GPU (libvulkan1
#   loads it); npm fetches what runs models there.
# - openssh-server stands for a board, whose user may have one of several shells; adb and an adbd, in a network of their
#   own (iproute2), for a phone.
# - The apps of a bundle are built by cmake and g++, with libraries that read pictures and JSON; for a microcontroller by
#   Arm's gcc, and run on one by qemu.
set -euo pipefail
"$(dirname "$0")/install-adbd.sh" || echo "adbd could not be had: its tests skip"
packages=(adb chromium fonts-dejavu-core iproute2 libvulkan1 openssh-server fish tcsh zsh
  cmake g++ libpng-dev libssl-dev libturbojpeg0-dev make nlohmann-json3-dev pkg-config
  gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm)
command -v npm >/dev/null || packages+=(npm)
dpkg --status "${packages[@]}" >/dev/null 2>&1 && exit 0
sudo=$([ "$(id -u)" = 0 ] || echo sudo)
export DEBIAN_FRONTEND=noninteractive
$sudo apt-get update -q
$sudo apt-get install -y -q --no-install-recommends "${packages[@]}"
