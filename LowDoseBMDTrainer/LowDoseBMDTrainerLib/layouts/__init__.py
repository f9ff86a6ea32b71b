"""Public data sets by their published layout, one file each: which CTs a folder holds, and how their labels are read."""
