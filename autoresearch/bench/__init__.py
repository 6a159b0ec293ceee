"""How fast this machine does what we do, as ratios in one run.

One module per subject (training, mfu, attention ...) with a `measure(...) -> Report`; `samples`
takes and compares, `worker` is the processes that measure, `results` the files and tables.
"""
