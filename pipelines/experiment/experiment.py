"""`endcap experiment`: flags and A/B/n of strategies, from the document to the results."""

from pathlib import Path
from typing import Annotated, Any, Literal

import orjson
import typer
from redis import Redis

from feature_repo.errors import DataError, EndcapError
from feature_repo.online.connection import connect
from feature_repo.params import load
from pipelines.release.aliases import act_of
from serving.flags import flag_versions
from serving.flags.flag_document import Flag, Flags, parse, render

Action = Literal["plan", "publish", "start", "status", "stop", "results", "show"]


class Usage(EndcapError):
    """An option that this action needs, or has no use for."""


def main(
    action: Annotated[Action, typer.Argument(help="plan, publish, start, status, stop, results or show.")],
    name: Annotated[
        str, typer.Argument(help="publish: a file (docs/flags.md); else the key of a flag, or `holdout`.")
    ] = "",
    why: Annotated[str, typer.Option(help="publish, start, stop: the reason, for the audit.")] = "",
    ramp: Annotated[
        float | None, typer.Option(help="start: percent of its slice who take part; plan: of all visitors.")
    ] = None,
    metric: Annotated[str, typer.Option(help="plan: the metric that decides.")] = "conversion",
    effect: Annotated[
        float | None,
        typer.Option(help="plan: relative, the smallest that matters; default: the flag's, 0.05."),
    ] = None,
    base: Annotated[
        float | None, typer.Option(help="plan: the metric today; default: measured in the logs.")
    ] = None,
    spread: Annotated[
        float | None, typer.Option(help="plan: its standard deviation between visitors, of its mean.")
    ] = None,
    visitors_per_day: Annotated[float | None, typer.Option(help="plan: default: rollout.assumed.")] = None,
    variants: Annotated[int, typer.Option(min=2, help="plan: with the control.")] = 2,
    report: Annotated[Path | None, typer.Option(help="results: also a page, .html.")] = None,
    json_output: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> int:
    """Experiments: publish, plan, start, status, stop, results."""
    if action == "plan":
        from pipelines.experiment import prospects

        asked = prospects.Asked(metric, effect, base, spread, visitors_per_day, variants, ramp)
        return prospects.run(asked, name, json_output)
    redis = connect()
    seen = flag_versions.read(redis)
    if action == "publish":
        _say(flag_versions.publish(redis, _draft(name), act_of(_reason(why)), seen), json_output)
    elif action == "start":
        _say(flag_versions.start(redis, _key(name), ramp, act_of(_reason(why)), seen), json_output)
    elif action == "stop":
        _say(flag_versions.stop(redis, _key(name), act_of(_reason(why)), seen), json_output)
    elif action == "show":
        print(render(seen.flags(), salts=False).decode())
    elif action == "status" and not name:
        _say(seen.flags(), json_output)
    else:
        return _results(redis, seen.flags(), _key(name), action == "results", report, json_output)
    return 0


def _results(
    redis: Redis, flags: Flags, key: str, whole: bool, report: Path | None, json_output: bool
) -> int:
    from monitoring.trials.verdicts import Trials
    from pipelines.experiment import readout

    found = readout.of(redis, flags, key, load("trials", Trials))
    if json_output:
        print(orjson.dumps(found.told(), option=orjson.OPT_SERIALIZE_NUMPY).decode())
    else:
        print("\n".join(found.lines() if whole else found.head()))
    if report:
        report.write_text(found.page())
        print(f"written: {report}") if not json_output else None
    return 0


def _draft(name: str) -> Flags:
    try:
        return parse(Path(name).read_bytes())
    except OSError as error:
        step = "name a file of experiments, as docs/flags.md shows one"
        raise DataError(name or "FILE", f"cannot be read ({error.strerror})", next_step=step) from None


def _key(name: str) -> str:
    if not name:
        raise Usage("KEY: this action needs the key of a flag; `endcap experiment status` lists them")
    return name


def _reason(why: str) -> str:
    if not why.strip():
        raise Usage('--why: a change of the experiments needs a reason for the audit; allowed: --why "text"')
    return why


def _say(flags: Flags, json_output: bool) -> None:
    if json_output:
        print(
            orjson.dumps({"version": flags.version, "flags": [_brief(one) for one in flags.flags]}).decode()
        )
        return
    print(f"version {flags.version or 0}: {len(flags.flags)} flags")
    for flag in flags.flags:
        names = " / ".join(f"{name} {share:.0%}" for name, share in flag.shares.items())
        state = f"{flag.ramp:g} %" if flag.running else "off"
        place = f" in {flag.layer} {flag.slice.begin:g}-{flag.slice.end:g}" if flag.layer else ""
        print(f"  {flag.key[:24]:<24} {state:>6}  {names}{place}"[:80])


def _brief(flag: Flag) -> dict[str, Any]:
    told = {name: getattr(flag, name) for name in ("key", "status", "ramp", "layer", "metric", "effect")}
    return told | {"variants": flag.shares, "since": flag.since, "started_us": flag.started_us}
