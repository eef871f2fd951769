"""Our engine as a Ray Serve deployment: several of it, on one machine or on many, behind one `Engine`.

`RayEngine` is the way in. Importing it brings in neither Ray nor torch.
"""

from engine.backends.ray_serve.front import RayEngine

__all__ = ["RayEngine"]
