"""Sample completions of several branches in one batch, with KV caches, computing once what is the same.

Every completion of the base policy is a row (a *cell*: a prompt and the number of the completion). A branch's row
follows the base row of its cell as long as it has chosen the same tokens: below its layer there is nothing to compute,
at its layer it takes the base row's hidden state and goes on with its own. When it chooses another token it *parts*:
from then on it has a row at every layer, which takes over the base row's cache below its layer. In layer k the rows of
a branch of layer k see that branch's weights, all other rows the frozen ones; each kind has a cache of its own.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from transformers import Cache, DynamicCache

from probes.noise import Noise, choose_tokens
from probes.policy import Policy
from probes.sampling import padded
from probes.tape import replaced_forwards
from probes.training.branch import Branch, hidden_of, like, select_rows

_ROWS_OF_LOGITS = 256  # chosen from at once: bounds float32 copies of the logits


@dataclass
class Rows:
    """Which rows run. Base rows come first, then those of the branches, branch by branch.

    ``cells`` (C,) is the cell of each base row. Of each branch row: ``branch`` (n,) its index, ``cell`` (n,), and
    ``follows`` (n,) the position of the base row that it still follows, -1 where it has parted.
    """

    cells: np.ndarray
    branch: np.ndarray
    cell: np.ndarray
    follows: np.ndarray

    @property
    def n(self) -> int:
        """Rows that give logits: all."""
        return len(self.cells) + len(self.branch)

    @property
    def parted(self) -> np.ndarray:
        return self.follows < 0

    @property
    def input_cells(self) -> np.ndarray:
        """Cells of the rows that the model is given: the base rows and the parted ones."""
        return np.concatenate([self.cells, self.cell[self.parted]])


def follow_all(n_branches: int, cells: np.ndarray) -> Rows:
    """Every branch has a row for each cell and follows the base row there."""
    every = np.arange(len(cells))
    return Rows(
        cells, np.repeat(np.arange(n_branches), len(cells)), np.tile(cells, n_branches), np.tile(every, n_branches)
    )


@dataclass
class _AtLayer:
    """Rows of one layer as indices into the rows that the layer below gave (``take``) and into the model's inputs
    (``source``), for rows with frozen weights, and for each branch whose layer this is. ``position`` (n,) is where
    each branch row is among the rows with frozen weights, -1 where it is not."""

    take: torch.Tensor
    source: torch.Tensor
    own: list[tuple[int, torch.Tensor, torch.Tensor]]
    before_own: int  # frozen rows that come before the own ones in what the layer gives
    position: np.ndarray


class BranchedModel:
    """Runs the model on the next tokens of all rows and keeps caches up to date while rows part and leave."""

    def __init__(self, policy: Policy, branches: Sequence[Branch], prompt_mask: torch.Tensor, rows: Rows) -> None:
        self.policy, self.branches, self.prompt_mask = policy, branches, prompt_mask
        self.layer_of = np.array([branch.layer for branch in branches], dtype=np.int64)
        self.frozen = DynamicCache(config=policy.model.config)
        self.own = [DynamicCache(config=policy.model.config) for _ in branches]
        self.accepts = inspect.signature(policy.model.forward).parameters
        self.n_new = 0
        self._set(rows)

    def __call__(self, ids: torch.Tensor, prompts: np.ndarray) -> torch.Tensor:
        """Logits (n, V) after the last of `ids` (inputs, t); `prompts` say which prompt each input row belongs to."""
        t = ids.shape[1]
        mask = self.prompt_mask[torch.as_tensor(prompts, device=ids.device)]
        if self.frozen.get_seq_length():
            self.n_new += t
        mask = torch.cat([mask, mask.new_ones(len(mask), self.n_new)], 1)
        inputs = {"input_ids": ids, "attention_mask": mask, "past_key_values": self.frozen, "use_cache": True}
        if "position_ids" in self.accepts:
            inputs["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)[:, -t:]
        if "logits_to_keep" in self.accepts:
            # An index, not 1: a slice of the last column would make the head copy its weight for every row.
            inputs["logits_to_keep"] = torch.tensor([t - 1], device=ids.device)
        with replaced_forwards(list(self.policy.stack.layers), self._forward_of):
            return self.policy.model(**inputs).logits[:, -1]

    def become(self, rows: Rows, cell_parent: np.ndarray, row_parent: np.ndarray) -> None:
        """Go on with other rows; the parents (positions among the present rows) are what each continues."""
        old = self.rows
        at = self.at
        base_of = np.where(old.parted, 0, old.follows)[row_parent]  # only looked at where the parent follows
        self._set(rows)
        for k in range(self.policy.n_layers):
            here = np.flatnonzero(self._present(rows, k) & (self.layer_of[rows.branch] != k))
            was = at[k].position[row_parent[here]]
            index = np.concatenate([cell_parent, np.where(was >= 0, was, base_of[here])])
            _reorder(self.frozen, k, index, len(at[k].take))
            for b, _, _ in self.at[k].own:
                mine = np.flatnonzero(old.branch == b)
                index = np.searchsorted(mine, row_parent[rows.branch == b])
                _reorder(self.own[b], k, index, len(mine))

    def _present(self, rows: Rows, k: int) -> np.ndarray:
        """Which branch rows have a row of their own at layer k."""
        return rows.parted | (self.layer_of[rows.branch] <= k)

    def _set(self, rows: Rows) -> None:
        self.rows = rows
        n_cells, device = len(rows.cells), self.policy.device
        source = np.where(rows.parted, n_cells + np.cumsum(rows.parted) - 1, rows.follows)
        layer = self.layer_of[rows.branch]
        position = source  # where each branch row is in what the layer below gave
        self.at: list[_AtLayer] = []
        index = lambda *parts: torch.as_tensor(np.concatenate(parts), device=device)  # noqa: E731
        for k in range(self.policy.n_layers):
            present = self._present(rows, k)
            frozen, cells = np.flatnonzero(present & (layer != k)), np.arange(n_cells)
            own = []
            for b in np.flatnonzero(self.layer_of == k):
                mine = np.flatnonzero(rows.branch == b)
                if len(mine):
                    own.append((int(b), index(position[mine]), index(source[mine])))
            place = np.full(len(layer), -1)
            place[frozen] = n_cells + np.arange(len(frozen))
            self.at.append(
                _AtLayer(
                    index(cells, position[frozen]),
                    index(cells, source[frozen]),
                    own,
                    n_cells + int((layer < k).sum()),
                    place,
                )
            )
            position = np.where(present, n_cells + np.cumsum(present) - 1, rows.follows)

    def _forward_of(self, k: int, layer: nn.Module, original: Callable) -> Callable:
        at, n_inputs = self.at[k], len(self.rows.cells) + int(self.rows.parted.sum())

        def call(run: Callable, hidden: torch.Tensor, source: torch.Tensor, cache: Cache, args: tuple, kwargs: dict):
            args, kwargs = select_rows((args, kwargs), source, n_inputs)
            swap = lambda value: cache if isinstance(value, Cache) else value  # noqa: E731
            return run(hidden, *map(swap, args), **{name: swap(value) for name, value in kwargs.items()})

        def forward(hidden: torch.Tensor, *args, **kwargs):
            result = call(original, hidden[at.take], at.source, self.frozen, args, kwargs)
            found = hidden_of(result)
            if at.own:
                parts = [
                    hidden_of(call(self.branches[b].module.forward, hidden[take], source, self.own[b], args, kwargs))
                    for b, take, source in at.own
                ]
                found = torch.cat([found[: at.before_own], *parts, found[at.before_own :]])
            return like(result, found)

        return forward


def _reorder(cache: DynamicCache, k: int, index: np.ndarray, n_before: int) -> None:
    """Let layer k of the cache hold the rows `index`; nothing is copied where they stay as they are."""
    if len(index) != n_before or (index != np.arange(n_before)).any():
        layer = cache.layers[k]
        layer.reorder_cache(torch.as_tensor(index, device=layer.keys.device))


@torch.no_grad()
def sample_branches(
    policy: Policy,
    branches: Sequence[Branch],
    prompts: Sequence[list[int]],
    group_size: int,
    *,
    max_new_tokens: int,
    temperature: float,
    noise: Noise | None = None,
    first_prompt: int = 0,
) -> tuple[list[list[int]], list[list[list[int]] | None]]:
    """Completions of the base policy and of each branch, as `probes.sampling.sample_completions` gives them.

    A branch whose logits are not finite has None. Branches come lowest layer first. Cost and memory of a branch: those
    of `sample_completions` from its own layer upwards, and below it only for rows that have parted.
    """
    device, eos = policy.device, np.array(policy.eos_ids)
    n_prompts, n_branches, n_cells = len(prompts), len(branches), len(prompts) * group_size
    ids, mask = padded(policy, prompts)
    every = np.arange(n_prompts)
    model = BranchedModel(policy, branches, mask, follow_all(n_branches, every))
    logits = model(ids, every)

    every = np.arange(n_cells)
    rows = follow_all(n_branches, every)
    cell_parent, row_parent = every // group_size, rows.branch * n_prompts + rows.cell // group_size
    model.become(rows, cell_parent, row_parent)
    logits = logits[torch.as_tensor(np.concatenate([cell_parent, n_prompts + row_parent]), device=device)]

    tokens = np.zeros((n_branches + 1, n_cells, max_new_tokens), dtype=np.int64)  # the base policy comes last
    lengths = np.zeros((n_branches + 1, n_cells), dtype=np.int64)
    failed = np.zeros(n_branches + 1, dtype=bool)
    running = np.ones(rows.n, dtype=bool)
    for position in range(max_new_tokens):
        owner = np.concatenate([np.full(len(rows.cells), n_branches), rows.branch])
        cell = np.concatenate([rows.cells, rows.cell])
        chosen = _choose(logits, cell, group_size, temperature, noise, first_prompt, position)
        failed[owner[chosen < 0]] = True
        tokens[owner[running], cell[running], position] = chosen[running]
        lengths[owner[running], cell[running]] += 1
        running &= ~np.isin(chosen, eos) & ~failed[owner]
        if not running.any() or position == max_new_tokens - 1:
            break
        n_base = len(rows.cells)
        parts = (chosen[n_base:] != chosen[rows.follows]) & ~rows.parted & running[n_base:]
        leave = running.sum() * 4 <= len(running) * 3
        if parts.any() or leave:
            follows = np.where(parts, -1, rows.follows)
            keep = running.copy() if leave else np.ones(rows.n, dtype=bool)
            if not keep[:n_base].any():
                keep[0] = True  # layers are never given an empty batch
            kept_base, kept = np.flatnonzero(keep[:n_base]), np.flatnonzero(keep[n_base:])
            renumbered = np.cumsum(keep[:n_base]) - 1
            follows = np.where(follows < 0, -1, renumbered[follows])[kept]
            rows = Rows(rows.cells[kept_base], rows.branch[kept], rows.cell[kept], follows)
            model.become(rows, kept_base, kept)
            running, chosen = running[keep], chosen[keep]
            n_base = len(rows.cells)
        given = np.concatenate([chosen[:n_base], chosen[n_base:][rows.parted]])
        ids = torch.as_tensor(np.maximum(given, 0), device=device)[:, None]
        logits = model(ids, rows.input_cells // group_size)
    found = [[tokens[b, c, : lengths[b, c]].tolist() for c in range(n_cells)] for b in range(n_branches + 1)]
    return found[-1], [None if bad else own for own, bad in zip(found[:-1], failed[:-1], strict=True)]


def _choose(
    logits: torch.Tensor,
    cell: np.ndarray,
    group_size: int,
    temperature: float,
    noise: Noise | None,
    first_prompt: int,
    position: int,
) -> np.ndarray:
    """The next token of each row, (n,), -1 where the logits are not finite; rows of one cell share their noise."""
    if temperature == 0:
        return choose_tokens(logits, 0.0, None).cpu().numpy()
    prompts = np.unique(cell // group_size)
    drawn = noise.draw((prompts + first_prompt).tolist(), position, group_size, logits.shape[1])
    place = torch.as_tensor(np.searchsorted(prompts, cell // group_size) * group_size + cell % group_size)
    place = place.to(logits.device)
    parts = [
        choose_tokens(part, temperature, drawn[where])
        for part, where in zip(logits.split(_ROWS_OF_LOGITS), place.split(_ROWS_OF_LOGITS), strict=True)
    ]
    return torch.cat(parts).cpu().numpy()
