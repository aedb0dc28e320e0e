"""What each block does in one forward pass: how far it turns the residual stream, and towards the rewarded answer."""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from probes.layout import GroupBatch
from probes.measure import Measurement
from probes.registry import Column, probe
from probes.tape import Tape, replaced_forwards

_MAX_ANSWER_TOKENS = 512


@probe(
    "activations",
    effort="probe",
    cost="the forward pass that the gradients need anyway, and the head once a layer on the best answers",
    source="block influence: ShortGPT (Men et al., arXiv 2403.03853); logit lens (nostalgebraist 2020)",
    columns=[
        Column("block_influence", "0 to 2", "1 - cosine of the residual stream before and after the block"),
        Column(
            "answer_gain",
            "nats / token",
            "change that the block makes to the log-probability of rewarded answers, read through the head",
        ),
    ],
)
def measure_activations(measurement: Measurement) -> dict[str, np.ndarray]:
    """Both columns (L,), on the same rollouts as the gradients.

    `block_influence` is the mean over all tokens of groups with reward spread. `answer_gain` reads the residual stream
    before and after each block through the final norm and head, on the best completion of each group (up to 512
    tokens in all), and is positive where the block raises the answer's log-probability; early layers write in a
    basis that the head does not read, so it says little about them.
    """
    tape, policy = measurement.tape, measurement.policy
    n_layers = policy.n_layers
    turned, n_tokens = np.zeros(n_layers), 0.0
    log_probs, n_answer = np.zeros(n_layers + 1), 0
    with torch.no_grad():
        for i, batch in enumerate(tape.batches):
            mask = batch.token_mask.float()
            for k in range(n_layers):
                before, after = tape.hidden(i, k).float(), tape.hidden(i, k + 1).float()
                influence = 1 - torch.cosine_similarity(before, after, dim=-1)
                turned[k] += float((influence * mask).sum())
            n_tokens += float(mask.sum())
            best = _best_answer(batch)
            if n_answer + len(best.targets) <= _MAX_ANSWER_TOKENS or n_answer == 0:
                log_probs += [float(_read_out(tape, best, tape.hidden(i, k)).sum()) for k in range(n_layers + 1)]
                n_answer += len(best.targets)
            measurement.tick()
    return {"block_influence": turned / n_tokens, "answer_gain": np.diff(log_probs) / n_answer}


def _best_answer(batch: GroupBatch) -> GroupBatch:
    """The tokens of the completion with the largest advantage (the first, if several)."""
    return batch.only(batch.completion == batch.completion[batch.weights.argmax()])


def _read_out(tape: Tape, batch: GroupBatch, hidden: torch.Tensor) -> torch.Tensor:
    """Log-probabilities (N,) when the stack's output is `hidden`: the model runs with its layers skipped."""
    policy, last = tape.policy, tape.policy.n_layers - 1

    def forward_of(k: int, layer: nn.Module, original: Callable) -> Callable:
        def forward(hidden_states: torch.Tensor, *args, **kwargs):
            out = hidden if k == last else hidden_states
            return (out, None) if tape.wraps_output else out

        return forward

    with replaced_forwards(list(policy.stack.layers), forward_of):
        return batch.log_probs(policy.model(**batch.inputs).logits)
