"""`leray submit` and `leray jobs`: this command line as jobs on a running Ray cluster."""
