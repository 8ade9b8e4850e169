"""What was good: returns, value network, held-out metrics, advantage and optimality labels.

`train.train_critic` learns a value from episodes, `label.label` turns it into sidecar labels,
`report.critic_report` says whether the labels carry anything. No ROS.
"""
