"""``python -m verification``: is anything lost?"""

import asyncio
import json
import sys
import time
from typing import Final

import click

from chassis.settings import read_settings
from verification.addresses import CannotVerify
from verification.report import MAX_EXAMPLES, Check, Report
from verification.settings import VerifySettings
from verification.verify import WAIT_S, verify

BROKEN, CANNOT_VERIFY = 1, 3
_REPORT_EVERY_S: Final = 1.0


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(min=0),
    default=WAIT_S,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait until nothing moves.",
)
def main(*, as_json: bool, wait_s: float) -> None:
    """Check in the databases and on the topics themselves that nothing is lost.

    Their addresses are read from VERIFY_… variables; docs/settings.md lists them. Nothing is
    written.

    Exit codes: 0 all of it holds, 1 something is broken, 2 a setting is wrong, 3 it could not be
    checked: a part does not answer, or the system does not come to rest.
    """
    addresses = read_settings(VerifySettings).addresses()
    try:
        report = asyncio.run(verify(addresses, wait_s=wait_s, progress=_Progress().print))
    except CannotVerify as error:
        click.echo(f"cannot verify: {error}", err=True)
        sys.exit(CANNOT_VERIFY)
    if as_json:
        click.echo(json.dumps(report.as_dict(), indent=2, ensure_ascii=False))
    else:
        _print(report)
    if not report.holds:
        sys.exit(BROKEN)


class _Progress:
    """Prints on standard error how far the verification has come, at most once a second."""

    def __init__(self) -> None:
        self._printed_at = time.monotonic()

    def print(self, text: str) -> None:
        now = time.monotonic()
        if now - self._printed_at >= _REPORT_EVERY_S:
            self._printed_at = now
            click.secho(f"… {text}", err=True, dim=True)


def _print(report: Report) -> None:
    for check in report.checks:
        _print_check(check)
    broken = sum(not check.holds for check in report.checks)
    click.echo()
    if broken:
        click.secho(f"{broken} of {len(report.checks)} are broken", fg="red", bold=True, nl=False)
    else:
        click.secho("nothing is lost", fg="green", bold=True, nl=False)
    click.echo(f" ({report.took_s:.1f} s)")


def _print_check(check: Check) -> None:
    if check.left_out_because:
        click.echo(f"- {check.sentence}: left out, {check.left_out_because}")
        return
    mark = click.style("✓", fg="green") if check.holds else click.style("✗", fg="red", bold=True)
    counted = ", ".join(f"{count:,} {what}" for what, count in check.looked_at.items())
    click.echo(f"{mark} {check.sentence} {click.style(f'({counted})', dim=True)}")
    for each in check.violations:
        click.echo(f"    {each.subject}: {each.problem}")
    if check.violated > MAX_EXAMPLES:
        click.echo(f"    … {check.violated:,} in all")
    if check.explained:
        click.echo(f"    {check.explained:,} more: parked, set aside or expected")


if __name__ == "__main__":
    main()
