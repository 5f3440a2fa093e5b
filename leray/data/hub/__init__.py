"""Hugging Face Hub datasets: `download.resolve` brings one here, `upload.push` publishes one."""
