"""The package for pip and for colcon (ament_python); the only place that names dependencies."""

from pathlib import Path

from setuptools import find_packages, setup

PACKAGE = "dexpie_ros"
HERE = Path(__file__).parent

# Name and range, and what for. A range begins where the API that is used begins (and where the
# version of a ROS 2 distribution's Ubuntu lies, if it does) and ends before the next major version.
REQUIRES = [
    "numpy>=1.22,<3",  # arrays; 1.x where a ROS 2 built against it is sourced
    "transforms3d>=0.4.1,<0.5",  # quaternions
    "pydantic>=2.6,<3",  # typed configs
    "PyYAML>=5.4,<7",  # config files, bag metadata
    "typing_extensions>=4.6,<5",  # dataclass_transform on Python 3.10
    "rich>=12,<16",  # tables and progress in the terminal
    "mujoco>=3.2,<5",  # the simulated cell
    "opencv-python-headless>=4.8,<6",  # JPEG, image resizing, ArUco
    "mcap>=1.5,<2",  # episodes: writing bags (flush of unfinished chunks)
    "lz4>=4,<5",  # episodes: reading and repairing compressed chunks
    "zstandard>=0.21,<1",  # the same
    "rosbags>=0.11.6,<0.12",  # episodes: message types and CDR without ROS, strict on malformed CDR
    "matplotlib>=3.7,<4",  # curves and bars of reports
    # actor and critic; the upper end is the newest that was tested. Where the index offers a
    # CPU-only wheel (2.13.0+cpu), pip prefers it.
    "torch>=2.4,<2.14",
    "safetensors>=0.4,<1",  # weights
    "diffusers>=0.31,<1",  # noise schedulers
    "accelerate>=0.34,<2",  # devices, mixed precision and checkpoints of training
]
EXTRAS = {
    # ROS 2 Kilted where no ROS 2 is installed (x86_64). Exact, because msg/ is compiled against
    # them: keep in step with msg/pyproject.toml.
    "wheels": [
        "ros-rclpy[fastrtps]==9.1.2",
        "ros-std-msgs==5.5.1",
        "ros-sensor-msgs==5.5.1",
        "ros-geometry-msgs==5.5.1",
        "ros-diagnostic-msgs==5.5.1",
        "ros-std-srvs==5.5.1",
        "ros-rosgraph-msgs==2.3.0",
    ],
    # Libraries of the real devices; each is imported when its driver starts.
    "hardware": [
        "ur_rtde>=1.6,<2",  # UR5
        "pymodbus>=3.10,<4",  # Inspire hand over Modbus TCP and RTU
        "pyserial>=3.5,<4",  # Inspire hand over its own serial protocol
        "pyrealsense2>=2.55,<3",  # cameras
        "libusb-package>=1.0.26,<2",  # libusb for pyrealsense2 where the system has none
        "openvr>=2,<3",  # Vive tracker
        "pyzmq>=25,<28",  # Manus glove without ROS
    ],
    # Other data set formats: `dexpie episodes export|import`.
    "formats": [
        "pyarrow>=15,<27",  # LeRobotDataset v3
        "h5py>=3.8,<4",  # robomimic, the authors' HDF5
        "zarr>=2.16,<4",  # the authors' Zarr
    ],
    # Curves of a training run while it goes on: `loop.tensorboard`, `loop.wandb`.
    "track": [
        "tensorboard>=2.14,<3",  # files beside the run
        "wandb>=0.17,<1",  # a service, or offline with WANDB_MODE=offline
    ],
    # The page of `dexpie web`.
    "web": [
        "starlette>=0.40,<2",
        "anyio>=4,<5",  # what starlette runs on: waiting beside requests
        "uvicorn>=0.30,<1",
    ],
    # Drives the system's chromium: tests of the page, `dexpie bench web`.
    "browser": [
        "playwright>=1.40,<2",
    ],
    "dev": [
        "pytest>=8,<10",
        "pytest-timeout>=2.3,<3",
        "pytest-rerunfailures>=15,<17",  # tests of running processes get a second try, openly
        "hypothesis>=6.100,<7",
        "ruff>=0.9,<1",
        "mypy>=1.11,<3",
    ],
}

NODES = sorted(
    path.stem
    for path in (HERE / PACKAGE / "nodes").glob("*.py")
    if "def main(" in path.read_text(encoding="utf-8")
)


def shipped(folder: str) -> list[str]:
    return sorted(f"{folder}/{p.name}" for p in (HERE / folder).iterdir() if p.is_file())


setup(
    name=PACKAGE,
    version="0.1.0",
    description="Improve a dexterous manipulation policy from its own deployment, on ROS 2",
    license="Apache-2.0",
    maintainer="dexpie_ros maintainers",
    maintainer_email="maintainers@dexpie-ros.invalid",
    python_requires=">=3.10,<3.13",
    packages=find_packages(include=[PACKAGE, f"{PACKAGE}.*"]),
    package_data={PACKAGE: ["**/*.yaml", "**/*.xml", "**/*.html", "**/*.js", "**/*.css"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (f"share/{PACKAGE}", ["package.xml"]),
        (f"share/{PACKAGE}/launch", shipped("launch")),
        (f"share/{PACKAGE}/config", shipped("config")),
    ],
    install_requires=REQUIRES,
    extras_require=EXTRAS,
    zip_safe=False,
    entry_points={
        "console_scripts": [
            f"dexpie = {PACKAGE}.cli:main",
            *(f"dexpie-{name} = {PACKAGE}.nodes.{name}:main" for name in NODES),
        ]
    },
)
