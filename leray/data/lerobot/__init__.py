"""LeRobot dataset folders: the reader (v2.0, v2.1, v3.0) and the writer (v3.0)."""
