"""One search job on the command line: the model opened at most once, plans written, results printed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpq.budget import Budget
from mpq.cli.console import figure, print_json, print_table, progress, say
from mpq.cli.explain import print_explanation
from mpq.cli.sources import check_output, reopen_data, reopen_model
from mpq.config import SearchSettings
from mpq.errors import BudgetError, UsageError
from mpq.outputs import refuse_special

if TYPE_CHECKING:
    from mpq.evaluate.measurer import PlanMeasurer
    from mpq.records.sensitivity import Sensitivity
    from mpq.schemes import Scheme
    from mpq.search.run import SearchResult
    from mpq.search.stages import Progress


_SHOWN = 3


class Job:
    """Searches on one table.

    Args:
        table: the analysis.
        source: its file.
        settings: how to search.
        reference: the model, if it is not where the table says.
        trust: allow a pickled model.
    """

    def __init__(self, table: Sensitivity, source: Path, settings: SearchSettings, *, reference: Path | None, trust: bool) -> None:
        self._table, self._source, self._settings = table, source, settings
        self._reference, self._trust = reference, trust

    def run(self, budget: Budget) -> SearchResult:
        """The plan for one budget; what cannot be met is refused before the model is loaded."""
        from mpq.search.run import problem_for, search

        if self._settings.trials == 0:
            return search(self._table, budget, settings=self._settings)
        problem_for(self._table, budget, self._settings)
        say(f"search: {self._source.name}, budget {budget}, {self._settings.trials} trials at most; --trials 0 searches the table alone")
        measurer, settings = self._measurer, self._stored
        with self._progress() as advance:
            return search(self._table, budget, measurer=measurer, settings=settings, on_progress=advance)

    def smallest(self, max_error: float) -> SearchResult:
        """The smallest plan within an error."""
        from mpq.search.smallest import search_smallest

        if self._settings.trials == 0:
            raise UsageError("--max-error needs the model: leave out --trials 0")
        say(f"search: {self._source.name}, the smallest plan with {self._table.metric} of at most {max_error:g} on held-out samples")
        measurer, settings = self._measurer, self._stored
        with self._progress() as advance:
            return search_smallest(self._table, max_error, measurer=measurer, settings=settings, on_progress=advance)

    def smallest_drop(self, text: str, own: str) -> SearchResult:
        """The smallest plan that loses at most `text` of the user's own metric."""
        from mpq.models.factory import named, working_directory_importable
        from mpq.search.smallest import halves, search_smallest

        number, share = text.removesuffix("%"), text.endswith("%")
        try:
            most = float(number)
        except ValueError as error:
            raise UsageError(f"--max-drop '{text}' is not a number or a share: write for example 0.005 or 0.5%") from error
        if not most >= 0:
            raise UsageError(f"--max-drop '{text}' is negative: write for example 0.005 or 0.5%")
        measurer, settings = self._measurer, self._stored if self._settings.trials else self._settings
        with working_directory_importable():
            try:
                function = named(own, option="--metric")
            except (ImportError, AttributeError) as error:
                raise UsageError(f"--metric {own} cannot be imported: {' '.join(str(error).split())}") from error
            reference = measurer.score(function, {})
            most = most * abs(float(reference.mean())) / 100 if share else most
            wanted = f"{own} of at least {reference.mean() - most:.6g} (the model has {reference.mean():.6g})"
            say(f"search: {self._source.name}, the smallest plan with {wanted}")
            steering, deciding = halves(len(reference), seed=self._settings.seed)
            if deciding is None:
                say("the metric is one number, so that what steers also decides: return one figure per sample to have half of them decide")
            else:
                say(f"the metric gives {len(reference)} figures: half of them steer, the others decide")

            def drop(result: SearchResult, part: Any) -> float:
                scores = measurer.score(function, result.plan.layers)
                if len(scores) != len(reference):
                    raise UsageError(
                        f"the metric returned {len(scores)} figures, and {len(reference)} before: it must return as many each time"
                    )
                return float((reference - scores)[part].mean())

            with self._progress() as advance:
                return search_smallest(
                    self._table,
                    most,
                    measurer=measurer,
                    loss=lambda result: drop(result, steering),
                    judge=None if deciding is None else lambda result: drop(result, deciding),
                    name=f"drop of {own}",
                    settings=settings,
                    on_progress=advance,
                )

    def frontier(self, budgets: Sequence[Budget], folder: Path, *, json: bool) -> None:
        """A plan for each budget in `folder`, and `frontier.csv` beside them."""
        from mpq.files import write_text
        from mpq.records.plan import write_plan

        rows: list[dict[str, Any]] = []
        for name in ("frontier.csv", *(f"plan-{budget.limit}.yaml" for budget in budgets)):
            refuse_special(folder / name)
        for budget in budgets:
            try:
                result = self.run(budget)
            except BudgetError as error:
                if budget is budgets[-1] and not rows:
                    raise
                say(f"left out: {error}")
                continue
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"plan-{budget.limit}.yaml"
            write_plan(result.plan, path)
            size, measured = result.plan.size, result.plan.evidence.get("measured", {})
            rows.append(
                {
                    "budget": budget.limit,
                    "effective_bits": round(size.effective_bits, 4),
                    "layer_bytes": size.layer_bytes,
                    "file_bytes": size.file_bytes,
                    "predicted": result.plan.evidence["predicted"],
                    "held_out": measured.get("held_out"),
                    "plan": path.name,
                }
            )
        lines = [",".join(rows[0]), *(",".join("" if value is None else str(value) for value in row.values()) for row in rows)]
        write_text(folder / "frontier.csv", "\n".join(lines) + "\n")
        if json:
            print_json({"folder": str(folder), "plans": rows})
            return
        print_table(
            ["budget", "bpw", "file bytes", "predicted", "held-out"],
            [
                [row["budget"], f"{row['effective_bits']:.3f}", f"{row['file_bytes']:,}", figure(row["predicted"]), figure(row["held_out"])]
                for row in rows
            ],
            title=f"{self._table.metric} by budget",
        )
        say(f"wrote {len(rows)} plans and frontier.csv to {folder}; next: mpq apply {folder}/{rows[0]['plan']}")

    def report(self, result: SearchResult, output: Path, *, json: bool, explain: Sequence[str] = ()) -> None:
        """Write a plan and say what it is, and why the layers in `explain` have their schemes."""
        from mpq.records.plan import write_plan

        check_output(output)
        write_plan(result.plan, output)
        size = result.plan.size
        if json:
            print_json({"output": str(output), "size": vars(size), "evidence": result.plan.evidence, "reason": result.reason})
            return
        if result.finalists:
            print_table(
                ["finalist", "bpw", "predicted", "calibration", "held-out"],
                [_finalist(finalist.uniform, finalist.row()) for finalist in result.finalists],
                title=f"{self._table.metric} by finalist",
            )
        for note in result.notes:
            say(note)
        say(f"chosen: {result.reason}")
        gap = result.plan.evidence["optimality_gap"]
        proof = "proven optimal for the table" if gap == 0 else f"within {gap:.2%} of the table's optimum"
        say(f"exact stage: {proof}; {result.measurements} plans measured")
        for name, cost in result.plan.evidence.get("costs", {}).items():
            say(f"{name}: {cost['total']:.6g} of at most {cost['most']:g}")
        if asked := result.plan.evidence.get("asked"):
            say(f"{asked['name']}: {figure(asked['value'])} of at most {asked['most']:g}")
        for layer in explain:
            print_explanation(result.plan, layer, self._table, list(self._settings.costs))
        say(f"wrote {output}: {size.effective_bits:.4g} bits per weight over the layers ({size.layer_bytes:,} bytes),")
        say(f"{size.file_effective_bits:.4g} over the file ({size.file_bytes:,} bytes)")
        say(f"next: mpq apply {output}")

    @contextmanager
    def _progress(self) -> Iterator[Progress]:
        with progress("search") as advance:
            yield lambda stage, done, total, best: advance(done, total, f"{stage}, {self._table.metric} {figure(best)}")

    @cached_property
    def _measurer(self) -> PlanMeasurer:
        from mpq.evaluate.measurer import PlanMeasurer

        loaded = reopen_model(self._table.header.model, self._source, given=self._reference, trust=self._trust)
        return PlanMeasurer(loaded, reopen_data(self._table.header.data, self._source, loaded), self._table)

    @cached_property
    def _stored(self) -> SearchSettings:
        from mpq.search.storage import open_storage

        return replace(self._settings, storage=open_storage(self._settings.storage, beside=self._source))


def _finalist(uniform: bool, row: Mapping[str, Any]) -> list[str]:
    return [
        f"uniform {row['name']}" if uniform else str(row["name"]),
        f"{row['effective_bits']:.3f}",
        figure(row["predicted"]),
        figure(row["calibration"], row["calibration_stderr"]),
        figure(row["held_out"], row["held_out_stderr"]),
    ]


def starting_schemes(path: Path, table: Sensitivity) -> dict[str, Scheme]:
    """Schemes by layer of a plan, or of another tool's assignment, which may name fewer layers.

    Raises:
        UsageError: if the file cannot be read, or is a plan that lacks a layer of the analysis.
    """
    from mpq.export.assignment import read_assignment
    from mpq.records.plan import read_plan

    try:
        is_plan = "mpq_plan:" in path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path}: {error}; --from takes a plan or another tool's assignment") from error
    found = dict(read_plan(path).layers) if is_plan else read_assignment(path, table.layers)
    missing = [layer.name for layer in table.layers if layer.name not in found]
    if missing and is_plan:
        raise UsageError(f"{path} has no layer '{missing[0]}': it was made for another analysis")
    if missing:
        shown = ", ".join(missing[:_SHOWN]) + (f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else "")
        say(f"{path} does not name {shown}: the search chooses there")
    return found
