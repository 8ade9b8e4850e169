"""Clients of the real hardware: UR arm, Inspire hand, RealSense, Vive, ArUco cube, Manus gloves.

Nothing here knows ROS, and no vendor library is imported before a device is started. Every client
has the same shape, so that a node over it stays thin::

    device = InspireHand(InspireConfig(transport="modbus_tcp", host="192.168.11.210"))
    device.start()              # returns at once; a thread (or child process) connects and keeps on
    sample = device.newest()    # newest sample with its capture stamp, or None; never blocks
    device.command(openings)    # where there is something to command; never blocks
    device.status()             # level, message, values: ready for /diagnostics
    device.stop()               # brings it to rest and ends every thread and process
"""
