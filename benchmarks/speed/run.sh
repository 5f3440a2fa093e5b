#!/usr/bin/env bash
# Installs the peers into a virtual environment of their own, then measures side by side.
set -euo pipefail
cd "$(dirname "$0")/../.."
peers=outputs/benchmarks/peers
if [ ! -x "$peers/bin/python" ]; then
  "${PYTHON:-python3}" -m venv "$peers"
  "$peers/bin/pip" install --quiet torch==2.13.0
  "$peers/bin/pip" install --quiet stable-baselines3==2.9.2 sbx-rl==0.28 'jax[cpu]' \
    'gymnasium[mujoco]==1.2.2' mujoco==3.8.1 torch==2.13.0
fi
exec "${BIN:-.venv/bin}/python" benchmarks/speed/compare.py --peers "$peers/bin/python" "$@"
