"""``python -m fastcam_bench.accuracy.conformance``, see :mod:`fastcam_bench.accuracy.conformance.comparison`."""

from __future__ import annotations

from fastcam_bench.accuracy.conformance.comparison import main

if __name__ == "__main__":
    main()
