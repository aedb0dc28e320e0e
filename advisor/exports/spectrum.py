"""Spectrum: the list of unfrozen parameters that its scans write, for trainers that read it."""

import yaml

from advisor.exports.pick import Pick
from advisor.exports.target import FULL, Order, Written

CHECKED_WITH = "a written copy of the rule of trainers that read it (re.match), and the matcher of axolotl 0.19.0"


def ways(pick: Pick) -> tuple[str, ...]:
    """What can be trained, the default first."""
    return (FULL,)


def write(order: Order) -> Written:
    """One exact name an item. Spectrum's own scans begin with the head and the embeddings: not so here."""
    names = [f"^{name}$" for name in order.pick.parameters]
    text = order.header + yaml.safe_dump({"unfrozen_parameters": names}, sort_keys=False, width=10_000)
    return Written({"spectrum.yaml": text}, "merge spectrum.yaml into the configuration of your trainer")
