"""A real ROS node for the supervisor's tests: says when it is there, and how it ended."""

import os
import sys

from rclpy.node import Node

from dexpie_ros.config import config
from dexpie_ros.runtime import declare_config, run_node


@config
class TickerParameters:
    rate: float = 10.0
    greeting: str = "hello"


class Ticker(Node):
    def __init__(self):
        super().__init__("unnamed")
        parameters = declare_config(self, TickerParameters)
        self.create_timer(1 / parameters.rate, lambda: None)
        print(
            f"{parameters.greeting} from {self.get_fully_qualified_name()} {os.getpid()}",
            flush=True,
        )

    def destroy_node(self):
        print("closed", flush=True)
        super().destroy_node()


if __name__ == "__main__":
    sys.exit(run_node(Ticker))
