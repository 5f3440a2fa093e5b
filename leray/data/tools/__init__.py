"""What `leray dataset <verb>` does: whole datasets looked at, checked, mended and changed."""
