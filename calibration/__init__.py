"""Contributions measured (protocol, runs, sweeps), raced for, and what is learnt from them (depth prior, ranking)."""
