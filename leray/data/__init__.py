"""Datasets: LeRobot files in and out, features, statistics.

Import from the modules that hold what you need (`leray.data.features`, `leray.data.lerobot.reader`,
...); this package itself imports nothing.
"""
