#!/usr/bin/env bash
# Install what the tests need from Debian: a browser, to open the report and run models in, npm, which fetches what runs
# them there, and an ssh server, which stands for a board.
# Without them those tests skip.
set -euo pipefail
command -v chromium >/dev/null && command -v npm >/dev/null && test -x /usr/sbin/sshd && exit 0
sudo=$([ "$(id -u)" = 0 ] || echo sudo)
export DEBIAN_FRONTEND=noninteractive
$sudo apt-get update -q
$sudo apt-get install -y -q --no-install-recommends chromium fonts-dejavu-core openssh-server \
  $(command -v npm >/dev/null || echo npm)
