"""LeRay trains robot policies on Ray.

Importing this package is light: no torch, no Ray, no simulator is loaded until a command needs it.
"""

__version__ = "0.1.0"
