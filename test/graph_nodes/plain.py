"""A process without ROS for the supervisor's tests; what it does comes from the environment."""

import os
import signal
import subprocess
import sys
import time

does = os.environ["PLAIN"]
print(f"{does} {os.getpid()}", flush=True)
if does == "stubborn":  # as a hung rclpy node, which traps both
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("deaf", flush=True)
elif does.startswith("exit"):
    time.sleep(0.2)
    sys.exit(int(does.split()[1]))
elif does.startswith("twice"):  # fails two times, then stays
    with open(does.split()[1], "a+", encoding="utf-8") as starts:
        starts.write("x")
        starts.seek(0)
        if len(starts.read()) <= 2:
            sys.exit(1)
    print(f"stays {os.getpid()}", flush=True)
elif does == "parent":
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    print(f"child {child.pid}", flush=True)
elif does.startswith("noisy"):
    sys.stdout.buffer.write(b"x" * 3_000_000 + b"\nbad \xff byte\nno end of line")
    sys.stdout.buffer.flush()
    for file in does.split()[1:]:  # that it got this far
        with open(file, "w", encoding="utf-8"):
            pass
time.sleep(600)
