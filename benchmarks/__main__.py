"""`python -m benchmarks` measures everything and writes `benchmarks/results.md`; `--quick` is the regression guard.

--only fit ways steps eager xla memory layers growth    some sections, the others keep their text
--torch-python PATH    an interpreter that has PyTorch, for its column
--repeats N            blocks of each function; the default takes half an hour on 2 cores
--store-bounds         make the ratios of now the bounds of `--quick`
"""

import argparse
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")


def main():
    from benchmarks import guard, report

    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="compare with the stored bounds, status 1 if worse")
    parser.add_argument("--store-bounds", action="store_true")
    parser.add_argument("--only", nargs="*", choices=report.SECTIONS, default=list(report.SECTIONS))
    parser.add_argument("--match", default="", help="only workloads whose name contains this")
    parser.add_argument("--torch-python")
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    if options.quick:
        return guard.check()
    if options.store_bounds:
        return guard.store()
    return report.write(options)


if __name__ == "__main__":
    sys.exit(main())
