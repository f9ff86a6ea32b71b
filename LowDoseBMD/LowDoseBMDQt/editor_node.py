"""A module's own parameters of the Segment Editor, so that two modules with an editor do not disturb each other."""

from __future__ import annotations

from typing import Any

import slicer


def ownEditorNode(editor: Any, tag: str, saved: bool = True) -> Any:
    """The parameter node of a module, made when it is not in the scene, and shown by the editor widget from now on.

    tag: singleton tag of the module. saved: whether it is saved with the scene.
    """
    scene = slicer.mrmlScene
    node = scene.GetSingletonNode(tag, "vtkMRMLSegmentEditorNode")
    if node is None:
        node = slicer.vtkMRMLSegmentEditorNode()
        node.SetSingletonTag(tag)
        node.SetHideFromEditors(True)
        node.SetSaveWithScene(saved)
        node = scene.AddNode(node)
    if editor.mrmlScene() is not scene:
        editor.setMRMLScene(scene)
    if editor.mrmlSegmentEditorNode() is not node:
        editor.setMRMLSegmentEditorNode(node)
    return node
