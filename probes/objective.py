"""The policy-gradient objective of rollouts, one group at a time.

For group i with completions y_j, advantages A_j and mean completion length T (tokens of a group, over all groups)

    J_i = 1/T  sum_j A_j  sum_t log pi(y_jt | prompt, y_j<t)

so that the mean of J_i over groups has the gradient of GRPO's token-level loss (with the sign of a gain) at the
first update, where the importance ratio is 1 and clipping does nothing.
"""

import numpy as np

from probes.layout import GroupBatch, choose_layout, shared_layout, unshared_layout
from probes.policy import Policy
from probes.rollouts import Rollouts


def lay_out(policy: Policy, rollouts: Rollouts, *, shared: bool | None = None) -> list[GroupBatch]:
    """A batch for each group with reward spread (the others have gradient 0). `shared` None tests the policy."""
    groups = rollouts.informative
    if not groups:
        return []
    layout = {True: shared_layout, False: unshared_layout}.get(shared) or choose_layout(policy, groups)
    mean_length = float(np.mean([sum(map(len, group.completion_ids)) for group in groups]))
    return [layout(policy, [group], [group.advantages / mean_length], rollouts.temperature) for group in groups]
