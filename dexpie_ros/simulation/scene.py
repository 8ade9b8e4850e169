"""The whole scene: physics options, lights, table, cameras, the robot and a task's bodies.

World frame = robot base; the table's top lies :data:`TABLE_Z` below it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dexpie_ros.simulation import robot_model

TABLE_Z = -0.10
"""m, height of the table's top: the robot stands on a 10 cm foot."""

TABLE_CENTRE = (0.45, 0.0)


@dataclass(frozen=True)
class Eye:
    """Where the front camera stands and what it looks at, m in base; vertical angle in deg."""

    position: tuple[float, float, float] = (1.30, 0.0, 0.50)
    target: tuple[float, float, float] = (0.42, 0.0, -0.01)
    fovy: float = 42.0

    def xml(self, name: str) -> str:
        """MJCF of the camera, upright."""
        back = np.subtract(self.position, self.target)
        back = back / np.linalg.norm(back)
        right = np.cross([0.0, 0.0, 1.0], back)
        right = right / np.linalg.norm(right)
        up = np.cross(back, right)
        axes = " ".join(f"{value:.6f}" for value in (*right, *up))
        x, y, z = self.position
        return f'<camera name="{name}" pos="{x} {y} {z}" xyaxes="{axes}" fovy="{self.fovy}"/>'


def scene_xml(assets: str, bodies: str, eye: Eye, thumb_torque: float, timestep: float) -> str:
    """MJCF of the cell: the task's assets, bodies, front camera and thumb (N m); ``timestep`` in s."""
    x, y = TABLE_CENTRE
    return f"""<mujoco model="dexpie_cell">
<compiler angle="radian" autolimits="true" eulerseq="XYZ"/>
<option timestep="{timestep}" integrator="implicitfast" cone="elliptic" impratio="10" iterations="50"/>
<visual>
 <global offwidth="1280" offheight="960"/>
 <quality shadowsize="2048" offsamples="0"/>
 <map znear="0.01"/>
 <headlight ambient="0.32 0.32 0.33" diffuse="0.30 0.30 0.30" specular="0.1 0.1 0.1"/>
</visual>
<default>
 <geom solref="0.008 1" friction="0.8 0.005 0.0001"/>
 {robot_model.DEFAULTS}
</default>
<asset>
 <texture name="sky" type="skybox" builtin="gradient" rgb1="0.78 0.82 0.86" rgb2="0.52 0.56 0.62"
  width="64" height="64"/>
 <texture name="wood" type="2d" builtin="checker" rgb1="0.66 0.60 0.52" rgb2="0.69 0.63 0.55"
  width="128" height="128"/>
 <material name="table" texture="wood" texrepeat="7 8" specular="0.1" shininess="0.1"/>
 {robot_model.MATERIALS}
 {assets}
</asset>
<worldbody>
 <light pos="0.6 0.5 1.6" dir="-0.1 -0.3 -1" castshadow="true" diffuse="0.55 0.54 0.52"/>
 <light pos="0.9 -0.9 1.4" dir="-0.3 0.6 -1" castshadow="false" diffuse="0.28 0.29 0.31"/>
 <geom name="table" type="box" size="0.6 0.7 0.02" pos="{x} {y} {TABLE_Z - 0.02}" material="table"/>
 <geom name="floor" type="plane" size="3 3 .1" pos="0 0 -0.85" rgba=".62 .64 .67 1" contype="0"
  conaffinity="0"/>
 {eye.xml("front")}
 {robot_model.arm_xml(robot_model.hand_xml())}
 {bodies}
</worldbody>
<equality>{robot_model.coupling_xml()}</equality>
<contact>{robot_model.exclusion_xml()}</contact>
<actuator>{robot_model.motor_xml(thumb_torque)}</actuator>
</mujoco>"""


def arm_only_xml() -> str:
    """The arm's kinematics alone, with the ``tcp`` site: small and fast, for inverse kinematics."""
    tool = """<body name="hand" pos="0 0.0823 0" euler="3.14159265 0 0">
     <site name="tcp" pos="-0.045 -0.135 -0.003" xyaxes="-1 0 0 0 0 -1"/></body>"""
    return f"""<mujoco model="arm"><compiler angle="radian" autolimits="true" eulerseq="XYZ"/>
<default>{robot_model.DEFAULTS}</default><asset>{robot_model.MATERIALS}</asset>
<worldbody>{robot_model.arm_xml(tool)}</worldbody></mujoco>"""
