"""Generated pictures of textured objects on cluttered backgrounds, with ground truth for every object.

    from fastcam.evaluation import scenes
    s = scenes.scene(7, size=256)
    s.image                                   # uint8 [256, 256, 3], RGB
    [(o.color, o.texture, o.class_name, o.box, o.occluded) for o in s.objects]

The class of an object is its outline and nothing else: colour, texture, size, rotation and place are drawn
independently of it, so no shortcut leads to the class unless a caller builds one with :class:`Spec`.

A scene is a function of its arguments alone. The same seed at another size is the same picture at another
resolution. The bytes are the same on every call and in every process; another version of NumPy or OpenCV may round
a few pixels differently.

Needs NumPy and OpenCV, nothing else.
"""

from fastcam.evaluation.scenes.generate import (
    CLASSES,
    COLORS,
    TEXTURES,
    Object,
    Scene,
    Spec,
    scene,
    scene_seeds,
    scenes,
)

__all__ = ["CLASSES", "COLORS", "TEXTURES", "Object", "Scene", "Spec", "scene", "scene_seeds", "scenes"]
