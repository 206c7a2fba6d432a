"""One search job on the command line: the model opened at most once, plans written, results printed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpq.budget import Budget
from mpq.cli.console import figure, print_json, print_table, progress, say, suggest
from mpq.cli.explain import print_explanation
from mpq.cli.find_inputs import check_output, reopen_data, reopen_model
from mpq.cli.next_step import code_options
from mpq.cli.replaced import say_replaced
from mpq.cli.search_result import print_result, print_sizes
from mpq.cli.search_richer import richer_candidates, richer_lines
from mpq.config import SearchSettings
from mpq.errors import BudgetError, UsageError
from mpq.shown import bits_cell, listed
from mpq.writing.outputs import refuse_special

if TYPE_CHECKING:
    from mpq.evaluate.plan_measurer import PlanMeasurer
    from mpq.formats.scheme import Scheme
    from mpq.records.sensitivity import Sensitivity
    from mpq.search.quality import Drop, QualityLimit
    from mpq.search.run import SearchResult
    from mpq.search.stages.schedule import Progress
    from mpq.search.tie_cost import TieCost


_SHOWN = 3
_HEADS = {"without_ties": "without ties", "held_out": "held-out"}


@dataclass(frozen=True)
class Quality:
    """The user's limits on a plan's quality: the held-out error, the drop of their own metric, both or neither."""

    max_error: float | None = None
    drop: Drop | None = None
    metric: str | None = None

    @property
    def is_empty(self) -> bool:
        """Whether there is no limit."""
        return self.max_error is None and self.drop is None


class Job:
    """Searches on one table.

    Args:
        table: the analysis.
        source: its file.
        settings: how to search.
        quality: quality limits, in addition to a budget or instead of one.
        reference: the model, if it is not where the table says.
        factory: what builds the module for a state dict, if the user names it.
        cache: folder for codes and statistics.
        trust: allow a pickled model, and the factory or data that the table names.
        device: where the model computes.
    """

    def __init__(
        self,
        table: Sensitivity,
        source: Path,
        settings: SearchSettings,
        *,
        quality: Quality,
        reference: Path | None,
        factory: str | None = None,
        cache: Path | None = None,
        trust: bool,
        device: str | None = None,
    ) -> None:
        self._table, self._source, self._settings, self._quality = table, source, settings, quality
        self._reference, self._factory, self._cache, self._trust, self._device = reference, factory, cache, trust, device

    def run(self, budget: Budget | None) -> SearchResult:
        """The best plan within the budget and the quality limits; without a budget, the smallest plan within the quality limits.

        Limits that cannot be met are refused before the model is loaded.
        """
        from mpq.search.run import problem_for, search

        if budget is not None:
            problem_for(self._table, budget, self._settings)
        if self._settings.trials == 0 and self._quality.max_error is not None:
            raise UsageError("--max-error needs the model: leave out --trials 0")
        if self._quality.is_empty and budget is not None:
            if self._settings.trials == 0:
                return search(self._table, budget, settings=self._settings)
            say(f"search: {self._source.name}, budget {budget}, up to {self._settings.trials} trials; --trials 0 uses the table only")
            measurer, settings = self._measurer, self._stored
            with self._progress(measurer) as advance:
                return search(self._table, budget, measurer=measurer, settings=settings, on_progress=advance)
        return self._within(budget)

    def uniform(self, scheme: Scheme, quantizer: str | None) -> SearchResult:
        """The plan that gives every layer one scheme, measured on the model unless the number of trials is 0."""
        from mpq.search.uniform_plan import uniform_plan

        if quantizer is not None:
            from mpq.tensors.quantizers.registry import quantizer_named

            quantizer_named(quantizer)  # refused before the model is loaded
        sketches = self._settings.sketches
        if self._settings.trials == 0:
            return uniform_plan(self._table, scheme, quantizer=quantizer, sketches=sketches)
        say(f"search: {self._source.name}, uniform {scheme}; --trials 0 writes the plan without measuring it")
        measurer = self._opened(quantizer)
        with self._progress(measurer):
            return uniform_plan(self._table, scheme, quantizer=quantizer, measurer=measurer, sketches=sketches)

    def _within(self, budget: Budget | None) -> SearchResult:
        from mpq.models.sources.state_dict import working_directory_importable
        from mpq.search.smallest import search_smallest, search_within

        measurer, settings = self._measurer, self._stored if self._settings.trials else self._settings
        with working_directory_importable():
            limits = self._limits
            wanted = "the smallest plan" if budget is None else f"the best plan for {budget}"
            say(f"search: {self._source.name}, {wanted} with {' and '.join(told for _, told in limits)}")
            asked = [limit for limit, _ in limits]
            with self._progress(measurer) as advance:
                if budget is None:
                    return search_smallest(self._table, asked, measurer=measurer, settings=settings, on_progress=advance)
                return search_within(self._table, budget, asked, measurer=measurer, settings=settings, on_progress=advance)

    @cached_property
    def _limits(self) -> list[tuple[QualityLimit, str]]:
        """The quality limits, each with its description. The user's metric is imported and run on the unquantized model."""
        from mpq.models.sources.state_dict import named
        from mpq.search.quality import drop_limit, held_out_limit

        found, most, drop, own = [], self._quality.max_error, self._quality.drop, self._quality.metric
        if most is not None:
            found.append((held_out_limit(most), f"{self._table.metric} of at most {most:g} on held-out samples"))
        if drop is not None and own is not None:
            try:
                function = named(own, option="--metric")
            except (ImportError, AttributeError) as error:
                raise UsageError(f"--metric {own} cannot be imported: {' '.join(str(error).split())}") from error
            found.append(
                drop_limit(
                    lambda schemes, groups: self._measurer.score(function, schemes, groups), drop, name=own, seed=self._settings.seed
                )
            )
        return found

    def frontier(self, budgets: Sequence[Budget], folder: Path, *, json: bool) -> None:
        """Writes a plan for each budget, and `frontier.csv`, to `folder`."""
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
            say_replaced(path, result.plan)
            write_plan(result.plan, path)
            size, measured = result.plan.size, result.plan.evidence.get("measured", {})
            ties = self._tie_cost(result)
            rows.append(
                {
                    "budget": budget.limit,
                    "effective_bits": round(size.effective_bits, 4),
                    "layer_bytes": size.layer_bytes,
                    "file_bytes": size.file_bytes,
                    "unsearched_bytes": size.unsearched_bytes,
                    "predicted": result.plan.evidence["predicted"],
                    **({} if ties is None else {"without_ties": ties.free}),
                    "held_out": measured.get("held_out"),
                    "plan": path.name,
                }
            )
        lines = [",".join(rows[0]), *(",".join("" if value is None else str(value) for value in row.values()) for row in rows)]
        write_text(folder / "frontier.csv", "\n".join(lines) + "\n")
        if json:
            print_json({"folder": str(folder), "plans": rows})
            return
        errors = [name for name in ("predicted", "without_ties", "held_out") if name in rows[0]]
        print_table(
            ["budget", "bpw", "file bytes", "not searched", *(_HEADS.get(name, name) for name in errors)],
            [
                [
                    row["budget"],
                    bits_cell(row["effective_bits"]),
                    *(f"{row[name]:,}" for name in ("file_bytes", "unsearched_bytes")),
                    *(figure(row[name]) for name in errors),
                ]
                for row in rows
            ],
            title=f"{self._table.metric} by budget",
        )
        say(f"wrote {len(rows)} plans and frontier.csv to {folder}; next: mpq apply {folder}/{rows[0]['plan']}{self._code_options}")

    def report(self, result: SearchResult, output: Path, *, json: bool, explain: Sequence[str] = ()) -> None:
        """Write a plan, print what it is, and explain the schemes of the layers in `explain`."""
        from mpq.records.plan import write_plan

        check_output(output)
        say_replaced(output, result.plan)
        write_plan(result.plan, output)
        size = result.plan.size
        ties, better = self._tie_cost(result), richer_candidates(result, self._table, self._settings)
        if json:
            found: dict[str, Any] = {"output": str(output), "size": size.to_dict(), "evidence": result.plan.evidence}
            found |= {"reason": result.reason, "richer_candidates": [asdict(each) for each in better]}
            print_json(found if ties is None else found | {"ties": asdict(ties)})
            return
        print_result(result, self._table, limited=self._quality.max_error is not None)
        if ties is not None:
            say(str(ties))
        for line in richer_lines(better):
            say(line)
        for layer in explain:
            print_explanation(result.plan, layer, self._table, list(self._settings.costs))
        print_sizes(result, output)
        suggest(f"mpq apply {output}{self._code_options}")

    def _tie_cost(self, result: SearchResult) -> TieCost | None:
        """What the ties cost at the budget of a plan, or at its size if it has none."""
        from mpq.search.tie_cost import tie_cost

        if not self._settings.ties:
            return None
        return tie_cost(self._table, result.plan.budget or Budget(f"{result.plan.size.layer_bytes}B"), self._settings)

    @contextmanager
    def _progress(self, measurer: PlanMeasurer) -> Iterator[Progress]:
        """Shows plans as they are measured and weights as they are quantized; then says what the user should know of that."""
        from mpq.search.stages.schedule import in_plain_words

        with progress("search") as advance:
            measurer.on_progress = advance
            yield in_plain_words(advance, self._table.metric)
        for note in measurer.notes:
            say(note)

    @property
    def _code_options(self) -> str:
        header = self._table.header
        return code_options(header.model, header.data, trust=self._trust)

    @cached_property
    def _measurer(self) -> PlanMeasurer:
        return self._opened(None)

    def _opened(self, quantizer: str | None) -> PlanMeasurer:
        from mpq.evaluate.plan_measurer import PlanMeasurer

        if not self._table.header.data:
            raise UsageError(
                f"{self._source.name} was made without data, so plans cannot be measured: add --trials 0, or analyze with --calib"
            )
        facts, how = self._table.header.model, self._device
        loaded = reopen_model(facts, self._source, given=self._reference, factory=self._factory, trust=self._trust, device=how)
        data = reopen_data(self._table.header.data, self._source, loaded, trust=self._trust)
        return PlanMeasurer(loaded, data, self._table, quantizer=quantizer, cache=self._cache)

    @cached_property
    def _stored(self) -> SearchSettings:
        from mpq.search.storage import open_storage

        return replace(self._settings, storage=open_storage(self._settings.storage, beside=self._source))


def starting_schemes(path: Path, table: Sensitivity) -> dict[str, Scheme]:
    """Schemes by layer, from a plan or from another tool's assignment, which may name fewer layers.

    Raises:
        UsageError: if the file cannot be read, or is a plan that lacks a layer of the analysis.
    """
    from mpq.export.plans.read import read_assignment
    from mpq.reading.documents import read_text
    from mpq.records.plan import read_plan

    is_plan = "mpq_plan:" in read_text(path, error=UsageError, absent="--from takes a plan or another tool's assignment")
    found = dict(read_plan(path).layers) if is_plan else read_assignment(path, table.layers)
    missing = [layer.name for layer in table.layers if layer.name not in found]
    if missing and is_plan:
        raise UsageError(f"{path} has no layer '{missing[0]}': it was made for another analysis")
    if missing:
        say(f"{path} does not name {listed(missing, _SHOWN)}: the search chooses them")
    return found
