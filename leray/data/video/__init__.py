"""Camera videos of a dataset: mp4 files read by frame number, written, joined and cut."""
