#!/usr/bin/env bash
# Install what the tests need from Debian: a browser, to open the report and run models in, whose Vulkan driver of software
# stands for a GPU, that driver's loader, npm, which fetches what runs models in the browser, and an ssh server, which
# stands for a board. Without them those tests skip.
set -euo pipefail
command -v chromium >/dev/null && command -v npm >/dev/null && test -x /usr/sbin/sshd \
  && /sbin/ldconfig -p | grep 'libvulkan\.so\.1' >/dev/null && exit 0
sudo=$([ "$(id -u)" = 0 ] || echo sudo)
export DEBIAN_FRONTEND=noninteractive
$sudo apt-get update -q
$sudo apt-get install -y -q --no-install-recommends chromium fonts-dejavu-core libvulkan1 openssh-server \
  $(command -v npm >/dev/null || echo npm)
