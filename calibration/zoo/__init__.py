"""Small policies of several families, made from configs and pre-trained here, on which sweeps are affordable.

    python -m calibration.zoo DIR            every member of the zoo; a member that is there already is kept

Weights are not committed: the same seeds give the same policies on the same number of threads.
"""
