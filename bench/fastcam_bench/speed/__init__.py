"""What an explanation costs: exported files beside their source's plain forward pass, and beside the peers.

`python -m fastcam_bench.speed` measures; models.py says on which networks, contestants.py what of ours, peers.py and
engines.py what else, environments.py where, job.py how; report.py and plot.py say what was found.
"""
