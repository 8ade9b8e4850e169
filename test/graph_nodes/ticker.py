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
        self._greeting = parameters.greeting
        self.create_timer(1 / parameters.rate, self._greet)

    def _greet(self):
        if self._greeting:  # not before it is whole: a signal in the middle of it closes nothing
            name = self.get_fully_qualified_name()
            print(f"{self._greeting} from {name} {os.getpid()}", flush=True)
            self._greeting = ""

    def destroy_node(self):
        print("closed", flush=True)
        super().destroy_node()


if __name__ == "__main__":
    sys.exit(run_node(Ticker))
