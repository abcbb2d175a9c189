"""Disks that fail at the n-th call, for every n, and processes that are ended in the middle.

    python -m fastcam_bench.faults [--only CASE] [--every K] [--kills N] [--json FILE]

Each verb that reads or writes files (``cases``) runs in processes forked for the purpose, in which one system call on
its files fails (``injection``). What must hold afterwards (``verdict``): exit status 0 means that every file is there
and has the bytes of a run that nothing disturbed; otherwise there is one line, exit status 2, and the folder is as it
was. After a kill every file is as it was or as it should be, and the next call works.
"""
