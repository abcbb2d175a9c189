"""Hours of work in one process: answers stay the same bit for bit, and nothing grows.

    python -m fastcam_bench.speed.soak [--minutes 5] [--threads 32] [--calls 2000] [--cycles 300] [--json FILE]

Three things, one after the other: calls of one Explainer (``repeated``), Explainers that are made, used and dropped
(``repeated``), and many threads that share Explainers of all methods of one pass (``mixed``). In each the size of the
process, its open files and its threads are read at rest (``process``). Exits with 1 where an answer differed, a call
failed, memory grew by 1 % or more, or files or threads were left.
"""
