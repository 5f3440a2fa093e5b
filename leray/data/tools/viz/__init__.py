"""`leray dataset viz`: a dataset as one page that a browser opens from disk."""
