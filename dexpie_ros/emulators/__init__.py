"""Peers that speak the devices' own protocols on loopback, each a process of its own.

They stand in for the hardware in tests and in dry runs (``dexpie launch collect
hardware:=emulated``): the drivers run unchanged over the vendors' client libraries. Every emulator
(``python -m dexpie_ros.emulators.ur5``, ``inspire``, ``realsense``, ``vive``, ``manus``) prints one
JSON line when it is ready, takes faults over a small control channel
(:mod:`dexpie_ros.emulators.channel`) and logs what happened with monotonic stamps.
"""
