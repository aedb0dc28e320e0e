"""Measured sweeps that the predictor is fitted on, a compressed file of plain JSON lines for each policy and task.

    python -m calibration.corpus ZOO         measure the pairs of a zoo that are not here yet

`published_sweeps.json` holds the sweeps of arXiv 2607.01232, which no probe was measured for.
"""
