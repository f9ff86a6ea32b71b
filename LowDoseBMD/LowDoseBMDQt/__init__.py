"""The window layer: panels, parameters, background jobs and dependencies; bindings only, for Slicer's own Python."""
