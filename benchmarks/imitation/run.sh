#!/usr/bin/env bash
# Measures beside LeRobot, installed in a virtual environment of its own; PEER_VENV names another.
set -euo pipefail
cd "$(dirname "$0")/../.."
peer=${PEER_VENV:-outputs/benchmarks/lerobot}
[ -x "$peer/bin/python" ] || benchmarks/data/install_lerobot.sh "$peer"
exec "${BIN:-.venv/bin}/python" benchmarks/imitation/compare.py --peer "$peer/bin/python" "$@"
