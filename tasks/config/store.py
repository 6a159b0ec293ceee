"""Settings of the log store. They are read, not run: each is a number."""

BLOCK_RECORDS = 4  # compressed together: 1 to 100000
LEVEL = 1  # how hard to look for repetitions: 0 to 9
WINDOW_BITS = 9  # how far back, as a power of two: 9 to 15
MEMORY_LEVEL = 1  # how much memory for that: 1 to 9
