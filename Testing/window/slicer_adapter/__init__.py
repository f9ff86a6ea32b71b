"""The names that code inside 3D Slicer imports (`qt`, `ctk`, `slicer`), on PySide6 and slicer-core, for tests only.

The adapter imitates, it never decides: what it does not know raises, and no rule of the product lives here.
"""

from slicer_adapter.session import Session, grab_png, installed_session

__all__ = ["Session", "grab_png", "installed_session"]
