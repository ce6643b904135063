"""The probes' statistics against the paper's appendix taken literally, in one thread, and the same results asserted.

    python benchmarks/probes.py              about ten minutes
    python benchmarks/probes.py --quick      small sizes, under a minute

Sizes are the paper's. Ours and the reference run in turn, several rounds; ratios are within a round. What the reference
would take hours for it does on a part (named in the table), and its time is extrapolated. Predictors are the 66 real
ratings of 1,854 concepts if MOE_SHARED_DATA or ../shared/data has them, else random numbers of that size.
"""

import argparse
import sys
from pathlib import Path


def main() -> None:
    """Read the options and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes; ratios say little")
    parser.add_argument("--probe", action="append", default=[], help="only this one; may be repeated")
    options = parser.parse_args()
    # Python puts this file's folder first, where its own name would hide the package `probes`.
    folder = str(Path(__file__).parent)
    sys.path[:] = [*(path for path in sys.path if path != folder), folder]
    from probe_comparisons import PROBES, print_table

    for name in options.probe:
        if name not in PROBES:
            parser.error(f"--probe {name}: there are {', '.join(PROBES)}")
    print_table(quick=options.quick, names=options.probe)


if __name__ == "__main__":
    main()
