"""Log-probabilities of chosen tokens, the softmax taken in parts: with large vocabularies it would fill the memory."""

import torch

_ROWS_AT_ONCE = 64


class _TokenLogProbs(torch.autograd.Function):
    """See `token_log_probs`. Works through 64 rows of logits at a time, in float32, forward and backward."""

    @staticmethod
    def forward(ctx, logits: torch.Tensor, source: torch.Tensor, targets: torch.Tensor, temperature: float):
        used, place = torch.unique(source, return_inverse=True)  # several tokens may be predicted in one row
        normaliser = torch.empty(len(used), device=logits.device)
        for part in _parts(len(used)):
            normaliser[part] = _scaled(logits[used[part]], temperature).logsumexp(-1)
        ctx.save_for_backward(logits, used, place, targets, normaliser)
        ctx.temperature = temperature
        return logits[source, targets].float() / temperature - normaliser[place]

    @staticmethod
    def backward(ctx, grad: torch.Tensor):
        logits, used, place, targets, normaliser = ctx.saved_tensors
        total = torch.zeros_like(normaliser).index_add_(0, place, grad) / ctx.temperature
        found = torch.zeros_like(logits)
        for part in _parts(len(used)):
            rows = (
                _scaled(logits[used[part]], ctx.temperature)
                .sub_(normaliser[part, None])
                .exp_()
                .mul_(-total[part, None])
            )
            # Added in float32: of a confident token, g and -g p nearly cancel.
            here = ((place >= part.start) & (place < part.stop)).nonzero()[:, 0]
            rows.index_put_((place[here] - part.start, targets[here]), grad[here] / ctx.temperature, accumulate=True)
            found[used[part]] = rows.to(found.dtype)
        return found, None, None, None


def token_log_probs(
    logits: torch.Tensor, source: torch.Tensor, targets: torch.Tensor, temperature: float
) -> torch.Tensor:
    """log softmax(logits[source] / temperature)[targets] in float32, (N,), from logits (R, V).

    Gradients are of first order only. Memory beyond the logits: 64 rows in float32, and their gradient in backward.
    """
    return _TokenLogProbs.apply(logits, source, targets, temperature)


def _scaled(rows: torch.Tensor, temperature: float) -> torch.Tensor:
    rows = rows.float() if rows.dtype != torch.float32 else rows
    return rows / temperature if temperature != 1 else rows


def _parts(n: int) -> list[slice]:
    return [slice(start, start + _ROWS_AT_ONCE) for start in range(0, n, _ROWS_AT_ONCE)]
