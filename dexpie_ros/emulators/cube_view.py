"""The ArUco cube as a camera sees it, for the camera emulator and for tests."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dexpie_ros.devices.aruco_cube import FACES, CubeConfig, face_corners

PIXELS, RIM = 240, 40
"""Of a printed marker, and its white rim of one module."""
FLATTEST = 0.15
"""Cosine of the flattest angle at which a face is still drawn."""


def render_cube(
    pose: ArrayLike,
    settings: CubeConfig,
    matrix: ArrayLike,
    shape: tuple[int, int] = (480, 640),
) -> NDArray[np.uint8]:
    """Grey image ``shape`` of a pinhole camera ``matrix`` (3, 3) at the origin of its optical frame.

    ``pose`` (4, 4) is the cube's in that frame, before the camera.
    """
    import cv2

    place, k = np.asarray(pose, np.float64), np.asarray(matrix, np.float64)
    dictionary = cv2.aruco.getPredefinedDictionary(getattr(cv2.aruco, settings.dictionary))
    image = np.full(shape, 200, np.uint8)
    far = RIM + PIXELS
    edges = np.array([[RIM, RIM], [far, RIM], [far, far], [RIM, far]], np.float32) - 0.5
    for face, (normal, _) in enumerate(FACES):
        corners = face_corners(settings.side, settings.marker)[face]
        outward = place[:3, :3] @ np.array(normal, float)
        centre = place[:3, :3] @ corners.mean(axis=0) + place[:3, 3]
        if settings.ids[face] < 0 or outward @ centre >= -FLATTEST * np.linalg.norm(centre):
            continue
        print_ = np.full((PIXELS + 2 * RIM,) * 2, 255, np.uint8)
        print_[RIM:far, RIM:far] = cv2.aruco.generateImageMarker(
            dictionary, settings.ids[face], PIXELS
        )
        in_camera = corners @ place[:3, :3].T + place[:3, 3]
        seen = (in_camera / in_camera[:, 2:]) @ k.T
        warp = cv2.getPerspectiveTransform(edges, seen[:, :2].astype(np.float32))
        layer = cv2.warpPerspective(print_, warp, shape[::-1], flags=cv2.INTER_AREA)
        mask = cv2.warpPerspective(np.full_like(print_, 255), warp, shape[::-1])
        image[mask > 0] = layer[mask > 0]
    return np.asarray(cv2.GaussianBlur(image, (3, 3), 0.7), np.uint8)
