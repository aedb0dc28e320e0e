"""What has been learnt from measured contributions: priors over depth and rankings. Imports `probes`, never `advisor`."""
