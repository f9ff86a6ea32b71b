"""Trabecular vBMD of T12, L1 and L2 from a chest CT: the library layer, free of Slicer and Qt."""

__version__ = "0.1.0"
