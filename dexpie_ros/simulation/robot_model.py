"""MJCF of a UR5 with an Inspire RH56 right hand, made of primitives.

Link offsets and masses are the UR5's public ones (Denavit-Hartenberg table, URDF); the hand's joint
offsets, ranges and couplings are the dimensions given in its public URDF. No mesh files. The world
origin is the robot's base; its fingers point along the TCP's z, its palm along the TCP's x, and its
thumb is on the TCP's +y side.
"""

from __future__ import annotations

import numpy as np

HAND_RANGE = np.array([1.47, 1.47, 1.47, 1.47, 0.6, 1.308])
"""rad each hand motor travels from open (opening 1, joint 0) to closed (opening 0)."""

HAND_MOTOR_JOINTS = (
    "pinky_proximal_joint",
    "ring_proximal_joint",
    "middle_proximal_joint",
    "index_proximal_joint",
    "thumb_proximal_pitch_joint",
    "thumb_proximal_yaw_joint",
)
HAND_LEVER = np.array([0.07, 0.075, 0.08, 0.075, 0.07, 0.07])
"""m from each motor's joint to its fingertip: turns motor torque into force at the finger."""

# Finger: name, where its proximal joint sits on the palm (m), roll about x (rad), last link (m).
_FINGERS = (
    ("index", (0.00029, -0.13653, -0.03227), -3.1067, 0.0405),
    ("middle", (0.00029, -0.13710, -0.01295), -3.1416, 0.0435),
    ("ring", (0.00029, -0.13691, 0.00629), 3.0892, 0.0405),
    ("pinky", (0.00029, -0.13571, 0.02549), 3.0369, 0.0325),
)
_THUMB_CHAIN = ("thumb_base", "thumb_prox", "thumb_int", "thumb_dist")
# Gains that follow a command with 50-60 ms of lag, like servoJ of the real arm.
_ARM_MOTORS = (
    ("shoulder_pan_joint", 4000, 240, 150),
    ("shoulder_lift_joint", 4000, 240, 150),
    ("elbow_joint", 4000, 240, 150),
    ("wrist_1_joint", 1500, 75, 28),
    ("wrist_2_joint", 1500, 75, 28),
    ("wrist_3_joint", 1500, 75, 28),
)

DEFAULTS = """
<default class="link"><geom contype="2" conaffinity="1" material="shell" group="2"/></default>
<default class="look"><geom contype="0" conaffinity="0" group="2" mass="0"/></default>
<default class="palm"><geom contype="2" conaffinity="1" material="hand" friction="0.6 0.005 0.0001"/>
</default>
<default class="pad"><geom type="capsule" contype="2" conaffinity="3" material="finger" condim="4"
  friction="1.0 0.02 0.0001" priority="1"/></default>
<default class="arm_joint"><joint axis="0 1 0" armature="0.1" range="-6.28 6.28"/></default>
<default class="finger_joint"><joint axis="0 0 1" damping="0.02" armature="0.002"/></default>
"""

MATERIALS = """
<material name="shell" rgba="0.80 0.82 0.85 1" specular="0.5" shininess="0.6"/>
<material name="cap" rgba="0.33 0.53 0.72 1" specular="0.4" shininess="0.5"/>
<material name="metal" rgba="0.35 0.36 0.38 1" specular="0.6" shininess="0.7"/>
<material name="hand" rgba="0.17 0.18 0.20 1" specular="0.4" shininess="0.5"/>
<material name="finger" rgba="0.27 0.28 0.31 1" specular="0.5" shininess="0.5"/>
<material name="tip" rgba="0.62 0.62 0.60 1" specular="0.1" shininess="0.1"/>
"""


def arm_xml(tool: str) -> str:
    """UR5 from its base up; ``tool`` is the MJCF that hangs on the flange."""
    return f"""
<geom class="look" type="cylinder" size="0.075 0.05" pos="0 0 -0.05" material="metal"/>
<geom class="look" type="cylinder" size="0.06 0.035" pos="0 0 0.035" material="shell"/>
<body name="shoulder" pos="0 0 0.089159" gravcomp="1">
 <joint class="arm_joint" name="shoulder_pan_joint" axis="0 0 1"/>
 <geom class="link" type="capsule" size="0.055" fromto="0 0 0 0 0.10 0" mass="3.7" contype="0"
  conaffinity="0"/>
 <geom class="look" type="cylinder" size="0.056 0.012" pos="0 -0.055 0" euler="1.5708 0 0"
  material="cap"/>
 <body name="upper_arm" pos="0 0.13585 0" euler="0 1.570796 0" gravcomp="1">
  <joint class="arm_joint" name="shoulder_lift_joint"/>
  <geom class="link" type="capsule" size="0.05" fromto="0 0 0 0 0 0.425" mass="8.393"/>
  <geom class="look" type="cylinder" size="0.056 0.055" euler="1.5708 0 0" material="shell"/>
  <geom class="look" type="cylinder" size="0.056 0.012" pos="0 0.06 0" euler="1.5708 0 0"
   material="cap"/>
  <body name="forearm" pos="0 -0.1197 0.425" gravcomp="1">
   <joint class="arm_joint" name="elbow_joint" range="-3.14 3.14"/>
   <geom class="link" type="capsule" size="0.04" fromto="0 0 0 0 0 0.39225" mass="2.275"/>
   <geom class="look" type="cylinder" size="0.05 0.09" pos="0 0.055 0" euler="1.5708 0 0"
    material="shell"/>
   <geom class="look" type="cylinder" size="0.05 0.012" pos="0 -0.045 0" euler="1.5708 0 0"
    material="cap"/>
   <body name="wrist_1" pos="0 0 0.39225" euler="0 1.570796 0" gravcomp="1">
    <joint class="arm_joint" name="wrist_1_joint"/>
    <geom class="link" type="capsule" size="0.036" fromto="0 0.03 0 0 0.093 0" mass="1.219"/>
    <geom class="look" type="cylinder" size="0.037 0.01" pos="0 -0.035 0" euler="1.5708 0 0"
     material="cap"/>
    <body name="wrist_2" pos="0 0.093 0" gravcomp="1">
     <joint class="arm_joint" name="wrist_2_joint" axis="0 0 1"/>
     <geom class="link" type="capsule" size="0.036" fromto="0 0 0 0 0 0.09465" mass="1.219"/>
     <geom class="look" type="cylinder" size="0.037 0.01" pos="0 0 -0.035" material="cap"/>
     <body name="wrist_3" pos="0 0 0.09465" gravcomp="1">
      <joint class="arm_joint" name="wrist_3_joint"/>
      <geom class="link" type="cylinder" size="0.036 0.02" pos="0 0.06 0" euler="1.5708 0 0"
       mass="0.1879" material="metal"/>
      {tool}
     </body>
    </body>
   </body>
  </body>
 </body>
</body>"""


def hand_xml() -> str:
    """The hand on the flange, with the site ``tcp`` and the camera ``wrist``."""
    fingers = "".join(_finger_xml(*finger) for finger in _FINGERS)
    return f"""
<body name="hand" pos="0 0.0823 0" euler="3.14159265 0 0" gravcomp="1">
 <geom class="palm" type="cylinder" size="0.028 0.0139" pos="0 -0.0136 0" euler="1.5708 0 0"
  mass="0.05" material="metal"/>
 <geom class="palm" type="box" size="0.0195 0.0101 0.0287" pos="-0.0032 -0.038 0" mass="0.1"/>
 <geom class="palm" type="box" size="0.0195 0.020 0.0407" pos="-0.0032 -0.0682 0" mass="0.2"/>
 <geom class="palm" type="box" size="0.0161 0.022 0.0407" pos="0 -0.1101 0" mass="0.15"/>
 <geom class="look" type="box" size="0.002 0.045 0.030" pos="0.0172 -0.085 0" material="metal"/>
 {fingers}
 <body name="thumb_base" pos="-0.01696 -0.0691 -0.02045" euler="1.5708 -1.5708 0" gravcomp="1">
  <joint class="finger_joint" name="thumb_proximal_yaw_joint" axis="0 0 -1" range="0 1.308"/>
  <geom class="palm" type="sphere" size="0.009" pos="-0.004 0 -0.006" mass="0.02" contype="0"
   conaffinity="0"/>
  <body name="thumb_prox" pos="-0.00881 0.010892 -0.00925" euler="1.5708 0 2.8587" gravcomp="1">
   <joint class="finger_joint" name="thumb_proximal_pitch_joint" range="0 0.6"/>
   <geom class="pad" fromto="0.008 0.006 -0.008 0.044 0.0345 -0.008" size="0.009" mass="0.03"/>
   <body name="thumb_int" pos="0.04407 0.034553 -0.0008" gravcomp="1">
    <joint class="finger_joint" name="thumb_intermediate_joint" range="0 0.8004"/>
    <geom class="pad" fromto="0 0 -0.0072 0.020 0.010 -0.0072" size="0.0085" mass="0.02"/>
    <body name="thumb_dist" pos="0.020248 0.010156 -0.0012" gravcomp="1">
     <joint class="finger_joint" name="thumb_distal_joint" range="0 0.4002"/>
     <geom class="pad" name="thumb_tip" fromto="0 0 -0.006 0.0165 0.0115 -0.006" size="0.0075"
      mass="0.02" material="tip"/>
    </body>
   </body>
  </body>
 </body>
 <site name="tcp" pos="-0.045 -0.135 -0.003" xyaxes="-1 0 0 0 0 -1" size="0.004" rgba="0 0 0 0"/>
 <camera name="wrist" pos="-0.03 0.01 -0.085" xyaxes="0.887 -0.378 -0.266 -0.377 -0.260 -0.889"
  fovy="62"/>
</body>"""


def _finger_xml(name: str, base: tuple[float, float, float], roll: float, tip: float) -> str:
    x, y, z = base
    return f"""
<body name="{name}_prox" pos="{x} {y} {z}" euler="{roll} 0 0" gravcomp="1">
 <joint class="finger_joint" name="{name}_proximal_joint" range="0 1.47"/>
 <geom class="pad" fromto="0 0.002 -0.006 0 0.032 -0.006" size="0.008" mass="0.02"/>
 <body name="{name}_int" pos="-0.0025 0.032 -0.001" gravcomp="1">
  <joint class="finger_joint" name="{name}_intermediate_joint" range="-0.0455 1.56"/>
  <geom class="pad" name="{name}_tip" fromto="0.002 0.002 -0.005 0.001 {tip - 0.007:.4f} -0.005"
   size="0.0075" mass="0.02" material="tip"/>
 </body>
</body>"""


def coupling_xml() -> str:
    """One motor bends the whole finger: the far joints follow the near one."""
    rows = [
        f'<joint joint1="{name}_intermediate_joint" joint2="{name}_proximal_joint" '
        f'polycoef="-0.04545 1.06399 0 0 0" solref="0.005 1"/>'
        for name, *_ in _FINGERS
    ]
    for joint, ratio in (("intermediate", 1.334), ("distal", 0.667)):
        rows.append(
            f'<joint joint1="thumb_{joint}_joint" joint2="thumb_proximal_pitch_joint" '
            f'polycoef="0 {ratio} 0 0 0" solref="0.005 1"/>'
        )
    return "\n".join(rows)


def exclusion_xml() -> str:
    """Pairs of neighbouring bodies whose primitives overlap by design."""
    pairs = [("hand", f"{n}_prox") for n, *_ in _FINGERS]
    pairs += [(f"{n}_prox", f"{n}_int") for n, *_ in _FINGERS]
    pairs += [("hand", part) for part in _THUMB_CHAIN[:3]]
    pairs += list(zip(_THUMB_CHAIN, _THUMB_CHAIN[1:], strict=False))
    names = [n for n, *_ in _FINGERS]
    for a, b in zip(names, names[1:], strict=False):
        pairs += [(f"{a}_{p}", f"{b}_{q}") for p in ("prox", "int") for q in ("prox", "int")]
    return "\n".join(f'<exclude body1="{a}" body2="{b}"/>' for a, b in pairs)


def motor_xml(thumb_torque: float) -> str:
    """Twelve position servos: six arm joints, then six hand motors in the hand's own order.

    ``thumb_torque`` in N m limits the two thumb motors; each finger has 1 N m.
    """
    rows = [
        f'<position joint="{joint}" kp="{kp}" kv="{kv}" forcerange="-{force} {force}" '
        f'ctrlrange="-6.3 6.3"/>'
        for joint, kp, kv, force in _ARM_MOTORS
    ]
    for joint, travel in zip(HAND_MOTOR_JOINTS, HAND_RANGE, strict=True):
        force = thumb_torque if joint.startswith("thumb") else 1.0
        rows.append(
            f'<position joint="{joint}" kp="6" kv="0.3" forcerange="-{force} {force}" '
            f'ctrlrange="0 {travel}"/>'
        )
    return "\n".join(rows)
