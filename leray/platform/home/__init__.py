"""Where a run's outputs live when that is an object store: `home.open_home` opens the place."""
