"""What can be measured on one policy: its layers, rollouts on a task, and a number a layer from every probe.

Knows nothing of `calibration` and `advisor`. Start with `policy`, `tasks`, `rollouts`, then `measure`.
"""
