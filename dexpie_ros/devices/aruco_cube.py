"""The pose of a cube with an ArUco marker on each face, from a camera (DexHiL's tracker).

At least two visible faces are required: a single flat marker has two mirrored solutions and may
flip by tens of degrees. The world is the camera's optical frame.
"""

from __future__ import annotations

import re
import threading

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dexpie_ros import config, geometry
from dexpie_ros.devices.device import Backoff, DeviceError
from dexpie_ros.devices.pose_source import PoseTracker, Reading
from dexpie_ros.geometry import Array

FACES = (
    ((1, 0, 0), (0, 0, 1)),
    ((-1, 0, 0), (0, 0, 1)),
    ((0, 1, 0), (0, 0, 1)),
    ((0, -1, 0), (0, 0, 1)),
    ((0, 0, 1), (0, 1, 0)),
    ((0, 0, -1), (0, 1, 0)),
)
"""(outward normal, up direction of the print) of the six faces in the cube's frame."""


DICTIONARY = re.compile(r"DICT_([4-7])X\1_(50|100|250|1000)")
OTHER_DICTIONARIES = {
    "DICT_ARUCO_ORIGINAL": 1024, "DICT_APRILTAG_16h5": 30, "DICT_APRILTAG_25h9": 35,
    "DICT_APRILTAG_36h10": 2320, "DICT_APRILTAG_36h11": 587, "DICT_ARUCO_MIP_36h12": 250,
}  # fmt: skip
"""Name -> number of markers."""


@config.config
class CubeConfig:
    """A cube and how strictly its pose is judged."""

    dictionary: str = "DICT_4X4_50"
    """DICT_<n>X<n>_<markers> with n of 4 to 7 and 50, 100, 250 or 1000 markers, or another of OpenCV's"""
    ids: tuple[int, int, int, int, int, int] = (0, 1, 2, 3, 4, 5)
    """Markers on +x -x +y -y +z -z; -1 for a face without one."""
    side: float = 0.060
    """m, edge of the cube."""
    marker: float = 0.045
    """m, edge of the printed marker."""
    min_faces: int = 2
    max_error: float = 1.0
    """px, root mean square of the reprojection."""
    rate_hz: float = 120.0
    max_speed: float = 4.0
    """m/s; faster changes are detection errors and left out."""

    def __post_init__(self) -> None:
        used = [number for number in self.ids if number >= 0]
        if len(set(used)) != len(used) or len(used) < self.min_faces:
            raise ValueError(f"ids = {self.ids}: each marker once, at least {self.min_faces}")
        if not 0 < self.marker <= self.side:
            raise ValueError(f"marker = {self.marker} m must fit on the side of {self.side} m")
        for name in ("max_error", "rate_hz", "max_speed"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} = {getattr(self, name)}: must be positive")
        if self.min_faces < 2:
            raise ValueError("min_faces must be at least 2: a single face flips")
        named = DICTIONARY.fullmatch(self.dictionary)
        other = OTHER_DICTIONARIES.get(self.dictionary.replace("H", "h"))  # OpenCV has both
        size = int(named[2]) if named else other
        if size is None:
            others = ", ".join(OTHER_DICTIONARIES)
            raise ValueError(
                f"dictionary = {self.dictionary!r}: one of DICT_4X4_50 ... DICT_7X7_1000, {others}"
            )
        if max(used) >= size:
            raise ValueError(f"ids = {self.ids}: {self.dictionary} has the markers 0..{size - 1}")


class CubeDetector:
    """Finds the cube in images of one camera."""

    def __init__(self, settings: CubeConfig, matrix: ArrayLike, distortion: ArrayLike = ()) -> None:
        """``matrix``: K (3, 3) in px; ``distortion``: plumb_bob coefficients or none."""
        try:
            import cv2
        except ImportError as error:
            raise DeviceError(f"ArUco needs OpenCV: {error}") from None
        self._cv, self._config = cv2, settings
        self._matrix = np.asarray(matrix, np.float64).reshape(3, 3)
        self._distortion = np.asarray(distortion, np.float64)
        number = getattr(cv2.aruco, settings.dictionary, None)
        if not isinstance(number, int):
            raise DeviceError(f"this OpenCV does not have {settings.dictionary}; take another")
        dictionary = cv2.aruco.getPredefinedDictionary(number)
        parameters = cv2.aruco.DetectorParameters()
        parameters.cornerRefinementMethod = cv2.aruco.CORNER_REFINE_SUBPIX
        self._detector = cv2.aruco.ArucoDetector(dictionary, parameters)
        corners = face_corners(settings.side, settings.marker)
        self._corners = {
            number: corners[face] for face, number in enumerate(settings.ids) if number >= 0
        }

    def detect(self, image: NDArray[np.uint8]) -> tuple[Array | None, str]:
        """Cube in the camera's optical frame (4, 4), or None and why.

        ``image`` (H, W) grey or (H, W, 3) RGB.
        """
        cv2 = self._cv
        grey = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        found, ids, _ = self._detector.detectMarkers(grey)
        seen = {
            int(number): np.asarray(corners, np.float64).reshape(4, 2)
            for number, corners in zip([] if ids is None else np.ravel(ids), found, strict=False)
            if int(number) in self._corners
        }
        if len(seen) < self._config.min_faces:
            return None, f"{len(seen)} faces of the cube in view, {self._config.min_faces} needed"
        points = np.concatenate([self._corners[number] for number in seen])
        pixels = np.concatenate(list(seen.values()))
        return self._solve(points, pixels)

    def _solve(self, points: Array, pixels: Array) -> tuple[Array | None, str]:
        cv2, k, d = self._cv, self._matrix, self._distortion
        try:
            done, rvec, tvec = cv2.solvePnP(points, pixels, k, d, flags=cv2.SOLVEPNP_SQPNP)
            if not done:
                return None, "the markers seen fit no pose of the cube"
            rvec, tvec = cv2.solvePnPRefineLM(points, pixels, k, d, rvec, tvec)
            projected, _ = cv2.projectPoints(points, rvec, tvec, k, d)
        except cv2.error as error:
            return None, f"the markers seen fit no pose of the cube: {error.err}"
        miss = float(np.sqrt(np.mean(np.sum((projected.reshape(-1, 2) - pixels) ** 2, axis=1))))
        if not miss <= self._config.max_error:
            return None, f"reprojection error {miss:.1f} px; is the cube's size right?"
        position = np.ravel(tvec)
        if not position[2] > 0:
            return None, "the cube would be behind the camera"
        return geometry.make_pose(geometry.rotation_exp(np.ravel(rvec)), position), ""


class ArucoSource:
    """Poses from images that someone offers, for instance a camera topic's callback."""

    def __init__(
        self, settings: CubeConfig, matrix: ArrayLike | None = None, distortion: ArrayLike = ()
    ) -> None:
        """Without ``matrix`` it cannot be opened before :meth:`calibrate`."""
        self._settings = settings
        self._camera = None if matrix is None else (matrix, distortion)
        self._detector: CubeDetector | None = None
        self._calibrated = self._camera
        """What the detector was made for."""
        self._condition = threading.Condition()
        self._image: tuple[int, NDArray[np.uint8]] | None = None

    @property
    def where(self) -> str:
        return "ArUco cube"

    def calibrate(self, matrix: ArrayLike, distortion: ArrayLike = ()) -> None:
        """What the camera says of itself, see :class:`CubeDetector`; from the next image on."""
        self._camera = (matrix, distortion)

    def offer(self, time_ns: int, image: NDArray[np.uint8]) -> None:
        """A new image with its capture stamp; an older one that was not read yet is dropped."""
        with self._condition:
            self._image = (time_ns, image)
            self._condition.notify()

    def open(self) -> None:
        if self._camera is None:
            raise DeviceError("no camera_info yet; is the driver of the fixed camera running?")
        self._calibrated = self._camera
        self._detector = CubeDetector(self._settings, *self._calibrated)

    def close(self) -> None:
        self._detector = None

    def read(self) -> Reading | None:
        with self._condition:
            self._condition.wait_for(lambda: self._image is not None, 0.1)
            taken, self._image = self._image, None
        if taken is None or self._detector is None:
            return None
        if self._camera is not self._calibrated:  # another resolution, another camera
            self.open()
        pose, reason = self._detector.detect(taken[1])
        return Reading(taken[0], pose, reason)


def face_corners(side: float, marker: float) -> list[Array]:
    """Corners (4, 3) of each face's marker in the cube's frame: top left, top right, bottom right,
    bottom left as seen from outside.
    """
    faces = []
    for normal, up in FACES:
        n, u = np.array(normal, np.float64), np.array(up, np.float64)
        r = np.cross(u, n)
        signs = ((-1, 1), (1, 1), (1, -1), (-1, -1))
        faces.append(np.array([n * side / 2 + (x * r + y * u) * marker / 2 for x, y in signs]))
    return faces


def aruco_tracker(
    source: ArucoSource, settings: CubeConfig, name: str = "tracker", backoff: Backoff | None = None
) -> PoseTracker:
    """A tracker device over images; feed ``source.offer``."""
    return PoseTracker(source, name, settings.rate_hz, settings.max_speed, backoff)
