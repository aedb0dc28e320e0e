"""What has been learnt from measured contributions: the prior over depth, and rankings."""
