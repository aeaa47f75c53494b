"""The version, alone in its file: hatchling reads it without importing anything."""

__version__ = "0.1.0"
