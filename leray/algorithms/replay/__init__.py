"""Replay: flat memory-mapped storage, uniform and n-step sampling, offline-online mixing."""
