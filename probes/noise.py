"""The random numbers of sampling, one set for each prompt and position: they do not depend on what is sampled beside.

Sampling adds Gumbel noise to the logits and takes the largest (the Gumbel-max trick, exact: Maddison, Tarlow & Minka
2014, arXiv 1411.0030, section 2). Two policies that are given the same noise differ only where their probabilities do,
so comparisons between them share their luck; and a batch may be cut or joined without changing a single token.
"""

import numpy as np
import torch


class Noise:
    """Gumbel noise of one random stream: `seed` and `stream` say which."""

    def __init__(self, device: torch.device, seed: int, stream: int) -> None:
        self.device, self._key = device, (seed, stream)
        self._generator = torch.Generator(device)

    def draw(self, prompts: list[int], position: int, group_size: int, n_words: int) -> torch.Tensor:
        """Noise for the token at `position` of every completion of `prompts` (numbers): (len * group_size, V) float32.

        Cost: one uniform number and two logarithms each, on the policy's device.
        """
        drawn = torch.empty((len(prompts), group_size, n_words), device=self.device)
        for row, prompt in zip(drawn, prompts, strict=True):
            state = np.random.SeedSequence([*self._key, prompt, position]).generate_state(1, np.uint64)[0]
            self._generator.manual_seed(int(state >> np.uint64(1)))
            row.uniform_(generator=self._generator)
        return drawn.log_().neg_().log_().neg_().flatten(0, 1)


def choose_tokens(logits: torch.Tensor, temperature: float, noise: torch.Tensor | None) -> torch.Tensor:
    """The next token of each row from logits (B, V), with noise (B, V) or greedily (None): (B,), -1 if not finite."""
    if noise is None:
        best = logits.max(-1)
    else:
        scores = logits.float()
        best = (noise.add(scores) if temperature == 1 else noise.add(scores, alpha=1 / temperature)).max(-1)
    # The largest of a row with NaN is NaN; a row of -inf only cannot be chosen from either.
    return torch.where(torch.isfinite(best.values), best.indices, -1)
