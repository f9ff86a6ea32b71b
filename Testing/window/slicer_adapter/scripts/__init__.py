"""Small imitations of Slicer's own Python files, for machines without Slicer's sources.

Where the environment variable SLICER_PYTHON_FOLDER names the folder ``Base/Python/slicer`` of a Slicer checkout, the
session imports the real files instead.
"""
