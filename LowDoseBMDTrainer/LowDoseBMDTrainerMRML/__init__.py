"""The scene layer of the Trainer: cases as nodes of a scene that is handed in. Runs on slicer-core."""
