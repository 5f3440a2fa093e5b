"""Writing chosen episodes of any datasets as a new v3.0 dataset: what converting and editing do."""
