"""The scene layer: MRML nodes of a study, with an explicit scene; no Qt and no Slicer application."""
