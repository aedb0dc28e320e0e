"""Contributions measured (protocol, runs, sweeps), raced for (`race`), and what is learnt from them (prior, ranking)."""
