"""`python -m tests.prove`: removes each guard in turn, and checks that its tests fail.

It works in a copy of the tracked files, so the checkout does not change, and all runs share one
PostgreSQL and one Kafka.
"""

import argparse
import sys
import time
from collections.abc import Sequence

from tests.prove.bench import NotRun, Proof, bench, unnoticed_by
from tests.prove.mutation import Mutation
from tests.prove.mutations import MUTATIONS


def _chosen(names: Sequence[str]) -> Sequence[Mutation]:
    known = {each.name: each for each in MUTATIONS}
    unknown = [name for name in names if name not in known]
    if unknown:
        sys.exit(f"no guard of that name: {', '.join(unknown)}; --list shows them")
    return [known[name] for name in names] or MUTATIONS


def _prove(mutations: Sequence[Mutation]) -> bool:
    """Print whether each guard's tests fail without it; return whether all do."""
    began = time.monotonic()
    tests = list(dict.fromkeys(test for each in mutations for test in each.proven_by))
    width = max(len(each.name) for each in mutations)
    proofs: list[Proof] = []
    with bench() as copy:
        with_all = copy.run(tests)
        red = [test for test in tests if unnoticed_by(test, with_all) != "stays green"]
        if red:
            _print("These fail, or were not run, although no guard is removed:", *red)
            return False
        _print(f"{len(tests)} tests pass while no guard is removed.")
        for mutation in mutations:
            proof = copy.prove(mutation)
            proofs.append(proof)
            noticed = "NOT NOTICED" if proof.unnoticed else "red"
            _print(f"  {mutation.name:{width}}  {noticed:11}  {proof.seconds:4.0f} s")
    _print_table(proofs, width)
    unnoticed = [each for each in proofs if each.unnoticed]
    _print(
        "",
        f"{len(proofs) - len(unnoticed)} of {len(proofs)} guards are shown to be needed,"
        f" in {time.monotonic() - began:.0f} s.",
    )
    return not unnoticed


def _print_table(proofs: Sequence[Proof], width: int) -> None:
    _print("", f"{'guard':{width}}  red?  tests", "-" * (width + 30))
    for proof in proofs:
        name = proof.mutation.name
        tests = proof.unnoticed or [each.rpartition("/")[2] for each in proof.mutation.proven_by]
        for line in tests:
            _print(f"{name:{width}}  {'no ' if proof.unnoticed else 'yes'}   {line}")
            name = ""


def _print(*lines: str) -> None:
    print(*lines, sep="\n", flush=True)  # noqa: T201 - the command's output


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.prove", description=__doc__)
    parser.add_argument("--only", metavar="NAME", action="append", default=[])
    parser.add_argument("--list", action="store_true", help="print the guards and exit")
    arguments = parser.parse_args()
    mutations = _chosen(arguments.only)
    if arguments.list:
        for each in mutations:
            _print(f"{each.name}: {each.guard}")
        return 0
    try:
        return 0 if _prove(mutations) else 1
    except NotRun as error:
        sys.exit(str(error))


if __name__ == "__main__":
    sys.exit(main())
