"""Improve a dexterous manipulation policy from its own deployment (DexPIE, arXiv 2606.09615)."""

__version__ = "0.1.0"
