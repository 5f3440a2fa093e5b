#!/usr/bin/env bash
# Installs the peer, LeRobot, into a virtual environment of its own, then measures side by side.
# PEER_VENV names another one that has it.
set -euo pipefail
cd "$(dirname "$0")/../.."
peer=${PEER_VENV:-outputs/benchmarks/lerobot}
[ -x "$peer/bin/python" ] || benchmarks/data/install_lerobot.sh "$peer"
exec "${BIN:-.venv/bin}/python" benchmarks/data/compare.py --peer "$peer/bin/python" "$@"
