"""The window of the Trainer: bindings between the form, the cases and Slicer."""
