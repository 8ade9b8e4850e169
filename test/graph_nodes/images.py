"""Sends numbered images, or receives until 60 have come by number and prints how many arrived."""

import array
import sys

from rclpy.node import Node
from sensor_msgs.msg import Image

from dexpie_ros.runtime import qos_profile, run_node

QOS = qos_profile("sensor", depth=5, best_effort=True)


class Sender(Node):
    def __init__(self):
        super().__init__("sender")
        self.count = 0
        self.image = Image(height=480, width=640, step=1920, encoding="rgb8")
        self.image.data = array.array("B", bytes(480 * 1920))
        self.out = self.create_publisher(Image, "test_image", QOS)
        self.create_timer(0.03, self.send)

    def send(self):
        self.count += 1
        self.image.header.stamp.sec = self.count
        self.out.publish(self.image)


class Receiver(Node):
    def __init__(self):
        super().__init__("receiver")
        self.numbers = []
        self.create_subscription(Image, "test_image", self.receive, QOS)

    def receive(self, image):
        self.numbers.append(image.header.stamp.sec)
        span = self.numbers[-1] - self.numbers[0] + 1
        if span >= 60:
            print(len(self.numbers), span, flush=True)
            raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(run_node(Sender if sys.argv[1] == "send" else Receiver))
