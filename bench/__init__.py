"""aiready-bench: is this GPU node ready for AI work? This package imports nothing on purpose."""

__version__ = "0.1.0"
