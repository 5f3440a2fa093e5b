"""What a sweep found: ranked tables for the terminal and as CSV, importance, and one HTML page."""
