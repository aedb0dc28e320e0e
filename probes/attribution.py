"""Captum's layer gradient x activation, for all layers from one forward pass a group."""

import numpy as np
import torch

from probes.measure import Measurement
from probes.preserve import left_as_found
from probes.registry import Column, probe


@probe(
    "attribution",
    effort="probe",
    cost="one forward pass and one backward pass through activations only",
    source="captum LayerGradientXActivation (Kokhlikyan et al., arXiv 2009.07896)",
    columns=[
        Column(
            "grad_x_activation",
            "gain",
            "sum of the absolute activation x gradient at the layer's output, mean over groups",
        )
    ],
)
def measure_attribution(measurement: Measurement) -> dict[str, np.ndarray]:
    """How much of the objective J_i passes through each layer's output, (L,), at least 0.

    The absolute value is summed because the plain sum is 0 at the last layer of models with a final RMSNorm, whatever
    the reward. Grows with the size of the residual stream, so later layers of pre-norm models score high.
    """
    from captum.attr import LayerGradientXActivation

    policy, batches = measurement.policy, measurement.batches
    layers = list(policy.stack.layers)
    totals = np.zeros(len(layers))
    with left_as_found(policy.model):
        policy.model.requires_grad_(False)
        layers[0].requires_grad_(True)  # so that the graph starts at the first layer
        for batch in batches:
            others = {name: value for name, value in batch.inputs.items() if name != "input_ids"}

            def objective(ids: torch.Tensor, batch=batch, others=others) -> torch.Tensor:
                return batch.objective(policy.model(input_ids=ids, **others).logits)[None]

            found = LayerGradientXActivation(objective, layers).attribute(batch.inputs["input_ids"])
            for k, values in enumerate(found):
                values = values[0] if isinstance(values, tuple) else values
                totals[k] += float(values.detach().float().abs().sum())
            measurement.tick()
    return {"grad_x_activation": totals / len(batches)}
