"""What Slicer's application does with a scene and slicer-core leaves to whoever uses it."""

from __future__ import annotations

from pathlib import Path

import slicer


def reopened(scene: slicer.vtkMRMLScene, folder: Path) -> slicer.vtkMRMLScene:
    """The scene written as .mrb to ``folder`` and read into a new one."""
    file = str(folder / "study.mrb")
    assert scene.WriteToMRB(file)
    (folder / "cache").mkdir()
    (folder / "cache" / ".slicer-cache").touch()
    cache, manager, other = slicer.vtkCacheManager(), slicer.vtkDataIOManager(), slicer.vtkMRMLScene()
    cache.SetRemoteCacheDirectory(str(folder / "cache"))
    manager.SetCacheManager(cache)
    other.SetCacheManager(cache)
    other.SetDataIOManager(manager)
    assert other.ReadFromMRB(file)
    return other
