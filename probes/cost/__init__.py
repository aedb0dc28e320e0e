"""What an RL step costs, by what is trained, from the configuration alone.

shape.py          how large a step is
arms.py           what is trained: all, one layer, LoRA on one layer
built.py          models of a configuration, on fake tensors or with random weights
counting.py       operations and bytes of a pass, counted as they happen
layer_work.py     operations by layer; what a step of each layer alone takes
bench.py          a few layers with random weights, for the clock
clock.py          seconds of each layer in a real pass
sampling_time.py  seconds of drawing completions
pass_time.py      seconds of forward, backward and the optimiser
step.py           all of it for one step
"""

from probes.cost.arms import Arm
from probes.cost.layer_work import LayerWork, count_layers, layer_costs
from probes.cost.shape import StepShape
from probes.cost.step import Counted, Machine, Seconds, count_step, make_bench, roofline, time_step

__all__ = [
    "Arm",
    "Counted",
    "LayerWork",
    "Machine",
    "Seconds",
    "StepShape",
    "count_layers",
    "count_step",
    "layer_costs",
    "make_bench",
    "roofline",
    "time_step",
]
