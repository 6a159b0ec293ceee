"""Studies on machines that are shared: the runs of one on the nodes of a Ray cluster
(`run --engine ray`, the extra `cluster`), and the files that start one elsewhere (`files`).

Of the runs: `executor` submits and collects, in the study's own process. `actor` is what works on a
node: an actor per slot and not a task per run, since a slot keeps its place and what it has loaded
from one run to the next, and since Ray ends the actors of a study that died. `nodes` tells devices
apart and gives each study its share of them, `package` brings this program to nodes that lack it,
`tokens` what it trains on. `wire` is how all of that travels: bytes and JSON, nothing pickled.
"""
