#!/usr/bin/env bash
# Installs the peer, LeRobot, into a virtual environment of its own: install_lerobot.sh FOLDER
set -euo pipefail
peer=$1
"${PYTHON:-python3}" -m venv "$peer"
"$peer/bin/pip" install --quiet torch==2.13.0
# Its own pins would replace torch.
"$peer/bin/pip" install --quiet --no-deps lerobot==0.4.4 torchvision==0.28.0 torchcodec==0.13.0
"$peer/bin/pip" install --quiet torch==2.13.0 'numpy<2.4' 'datasets>=4,<5' 'av>=15,<16' \
  'huggingface-hub>=0.34.2,<0.36' 'diffusers<0.36' 'transformers>=4.57.1,<5' accelerate einops \
  'opencv-python-headless<4.13' jsonlines 'draccus==0.10.0' 'gymnasium==1.2.2' \
  'imageio[ffmpeg]' termcolor pyserial deepdiff 'packaging<26'
