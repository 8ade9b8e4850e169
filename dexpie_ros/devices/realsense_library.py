"""Import of pyrealsense2, which needs libusb 1.0 and does not bring it."""

from __future__ import annotations

import ctypes
import importlib
from typing import Any

from dexpie_ros.devices.device import DeviceError


def load() -> Any:
    """The module ``pyrealsense2``; DeviceError that says what to install."""
    try:
        return importlib.import_module("pyrealsense2")
    except ImportError as error:
        if "libusb" not in str(error):
            raise DeviceError(
                f"pyrealsense2 cannot be loaded ({error}); pip install 'dexpie_ros[hardware]'"
            ) from None
    try:
        package = importlib.import_module("libusb_package")
        # Global, so that the loader finds it under its name when pyrealsense2 asks for it.
        ctypes.CDLL(str(package.get_library_path()), mode=ctypes.RTLD_GLOBAL)
        return importlib.import_module("pyrealsense2")
    except (ImportError, OSError) as error:
        raise DeviceError(
            f"pyrealsense2 needs libusb ({error}); apt install libusb-1.0-0, or pip install "
            "libusb-package"
        ) from None
