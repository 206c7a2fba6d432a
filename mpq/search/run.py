"""Search: from a sensitivity table, a budget and a way to measure plans to the best plan found. No torch."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

from mpq.budget import Budget, Scope
from mpq.choices import SearchChoices, spelled_out
from mpq.config import SearchSettings, chosen_settings
from mpq.errors import BudgetError, UsageError
from mpq.evidence.prediction import interactions_help, unseen_rows
from mpq.evidence.rows_reached import reach_lines
from mpq.progress import reported
from mpq.records.finalist_names import INTERACTIONS, LEAST_MEASURED, START, TABLE_OPTIMUM
from mpq.records.plan import Plan, plan_for
from mpq.records.sensitivity import Errors, Sensitivity, read_sensitivity, standard_error
from mpq.records.stored_sketches import sketch_bytes, watched_layers
from mpq.search.activations import chosen_groups, reserved_bytes, with_groups
from mpq.search.byte_limit import byte_limit
from mpq.search.constraints import choice_of, groups_for, pinned_layers
from mpq.search.costs import cost_limits
from mpq.search.feasible import check_feasible
from mpq.search.final_decision import Decision, Finalist, decide, rounded
from mpq.search.measurers import Measurer, MeasurerWithSlopes, parts_of
from mpq.search.origins import analysis_of, data_of
from mpq.search.problem import Problem
from mpq.search.remarks import remarks
from mpq.search.rest import stored_as
from mpq.search.result import SearchResult as SearchResult
from mpq.search.solvers.knapsack import Solution
from mpq.search.solvers.quadratic import Quadratic, minimise
from mpq.search.stages.schedule import Progress, Schedule, in_plain_words
from mpq.search.stages.uniform import uniform_plans
from mpq.search.storage import storage_failures
from mpq.search.study import Measured, Study
from mpq.search.study_name import study_name


@spelled_out(SearchSettings, SearchChoices)
def search(
    sensitivity: Sensitivity | Path | str,
    budget: Budget | str,
    *,
    measurer: Measurer | None = None,
    scope: Scope = "layers",
    settings: SearchSettings | None = None,
    progress: bool = False,
    on_progress: Progress | None = None,
    **choices: Unpack[SearchChoices],
) -> SearchResult:
    """Find the best plan for a budget.

    Args:
        sensitivity: a complete table, or its file.
        budget: for example "4.5bits", "12MB", "30%".
        measurer: measures plans on the real model; without one, the exact solution of the table is returned without measurements.
        scope: what the budget counts, "layers" or "file".
        progress: show progress: a bar on a terminal, a line in a notebook.
        on_progress: called after each measured plan.
        settings: one object instead of the following keywords.
        **choices: see `SearchSettings`.

    Raises:
        ConfigError: if a keyword is unknown or has the wrong type, or settings and keywords are both given.
        BudgetError: if no plan meets the budget; the message gives the smallest and the largest.
        UsageError: if the table is unfinished, pins and ties cannot be met, `rest` cannot represent the unquantized tensors, or the
        measurer was made without `rest`.
    """
    chosen = chosen_settings(SearchSettings, settings, choices)
    table = sensitivity if isinstance(sensitivity, Sensitivity) else read_sensitivity(Path(sensitivity))
    wanted = budget if isinstance(budget, Budget) else Budget(budget, scope)
    table = stored_as(table, chosen.rest)
    if measurer is not None and table.header.rest.dtype != getattr(measurer, "rest_dtype", None):
        raise UsageError(
            f"the measurer does not store unquantized tensors in {table.header.rest.dtype}: make it with rest_dtype='{chosen.rest}'"
        )
    problem, solution = problem_for(table, wanted, chosen)
    with _told(table, on_progress, progress=progress) as advance:
        run = _Run(table, problem, wanted, chosen, solution, advance)
        if measurer is None:
            result = run.unmeasured()
        else:
            with storage_failures():
                result = run.measured(measurer)
        return with_groups(result, table, chosen_groups(table, result.plan.layers, chosen.activations), measurer)


@contextmanager
def _told(table: Sensitivity, own: Progress | None, *, progress: bool) -> Iterator[Progress]:
    """The callback for each measured plan: calls `own`, and shows progress if wanted."""
    with reported("search", wanted=progress) as advance:
        show = in_plain_words(advance, table.metric)

        def tell(stage: str, done: int, total: int, best: float) -> None:
            show(stage, done, total, best)
            if own is not None:
                own(stage, done, total, best)

        yield tell


def problem_for(table: Sensitivity, budget: Budget, settings: SearchSettings) -> tuple[Problem, Solution]:
    """The allocation problem of a search, and its exact solution.

    Raises:
        BudgetError: if no plan meets the budget and the other limits, or the budget limits nothing.
        UsageError: if the table is unfinished, pins, ties, minimum bits and candidates cannot be met, or a cost file lacks a scheme.
    """
    if not table.finished:
        missing = f"{len(table.missing)} values are missing" if table.missing else "its last step is missing"
        raise UsageError(f"the analysis is unfinished: {missing}; run `mpq analyze` again, it resumes")
    budget.check_possible()
    table = stored_as(table, settings.rest)
    groups = groups_for(table, settings, scope=budget.scope)
    sketches = sketch_bytes(_sketched_layers(table, settings))
    limit = byte_limit(table, budget, reserved=reserved_bytes(table, settings.activations) + sketches)
    problem = Problem(groups, limit.layers, cost_limits(table, groups, settings.costs, settings.memory))
    check_feasible(problem, table, budget, limit, settings)
    solution = problem.solve()
    if solution is None:
        names = ", ".join(f"{each.name} {each.most:g}" for each in problem.beside)
        raise BudgetError(f"budget {budget} and {names} can each be met, but not together: raise one of them")
    return problem, solution


def _sketched_layers(table: Sensitivity, settings: SearchSettings) -> tuple[str, ...] | None:
    return watched_layers([layer.name for layer in table.layers], table.header.model.get("kind")) if settings.sketches else None


class _Run:
    """One search, its stages in order."""

    def __init__(
        self,
        table: Sensitivity,
        problem: Problem,
        budget: Budget,
        settings: SearchSettings,
        solution: Solution,
        on_progress: Progress,
    ) -> None:
        self.table, self.problem, self.budget, self.settings, self.solution = table, problem, budget, settings, solution
        self._pins = pinned_layers(settings.pins, table)
        self._on_progress = on_progress
        self._started = time.monotonic()
        self.quadratic: Quadratic | None = None
        self._notes: tuple[str, ...] = ()
        if problem.limit > problem.largest:
            self._notes += (
                f"the budget fits every layer at its largest candidate, with {problem.limit - problem.largest:,} bytes to spare",
            )

    def unmeasured(self) -> SearchResult:
        """The best plan by the table alone, with interactions if the analysis found that they predict whole plans better."""
        choice, reason = self.solution.choice, f"{TABLE_OPTIMUM}: no plan was measured"
        if interactions_help(self.table):
            self.quadratic = minimise(self.problem, self.table, choice)
        if self.quadratic is not None and self.quadratic.choice != choice:
            choice = self.quadratic.choice
            reason = f"{INTERACTIONS}, which predicted the self-check's plans better; no plan was measured"
        evidence = {**self.table.compared, "predicted": rounded(self.problem.error(choice))} | self._unseen(choice) | self._proof()
        return SearchResult(self._plan(choice, evidence | {"decision": reason}), (), reason, 0, self._notes)

    def measured(self, measurer: Measurer) -> SearchResult:
        """Run the stages, then the final decision."""
        facts = {"model": str(self.table.header.model.get("path")), "budget": str(self.budget)}
        start, seed, storage = self._start(), self.settings.seed, self.settings.storage
        name, metric = study_name(self.table, self.problem, self.budget, seed=seed, start=start), f"mean {self.table.metric}"
        study = Study(self.problem, parts_of(measurer), seed=seed, name=name, storage=storage, facts=facts, metric=metric)
        slopes = measurer.slopes if isinstance(measurer, MeasurerWithSlopes) else None
        stages = Schedule(study, trials=self.settings.trials, stop=self._over_time, on_progress=self._on_progress, slopes=slopes)
        exact = stages.fixed("exact", self.solution.choice)
        entries, best = [(TABLE_OPTIMUM, exact, False)], exact
        self.quadratic = minimise(self.problem, self.table, exact.choice)
        if self.quadratic is not None and self.quadratic.choice != exact.choice:
            entries.append((INTERACTIONS, stages.fixed("quadratic", self.quadratic.choice), False))
            best = _better(entries[-1][1], best)
        for uniform in uniform_plans(self.problem, self.table, self._pins):
            entries.append((uniform.name, stages.fixed(f"uniform {uniform.name}", uniform.choice), True))
        if start is not None:
            entries.append((START, stages.fixed("start", start), False))
            best = _better(entries[-1][1], best)
        entries += [(title, found, False) for title, found in stages.run(best)]
        entries.append((LEAST_MEASURED, stages.lowest, False))
        self._notes += stages.notes
        return self._finals(entries, measurer, study.measurements)

    def _finals(self, entries: Sequence[tuple[str, Measured, bool]], measurer: Measurer, measurements: int) -> SearchResult:
        held: dict[tuple[int, ...], Errors] = {}
        finalists: list[Finalist] = []
        for name, found, uniform in entries:
            if not uniform and any(found.choice == other.choice and not other.uniform for other in finalists):
                continue
            if found.choice not in held:
                held[found.choice] = measurer.held_out(self.problem.schemes(found.choice))
            bits = self._plan(found.choice, {}).size.effective_bits
            predicted = self.problem.error(found.choice)
            finalists.append(Finalist(name, found.choice, uniform, bits, predicted, found.errors, held[found.choice]))
        decision = decide(finalists, spread=self._spread())
        best = decision.best
        evidence = self._evidence(decision, finalists) | self._rest(measurer)
        plan = self._plan(best.choice, evidence, uniform=best.uniform)
        return SearchResult(plan, tuple(finalists), decision.reason, measurements, self._notes)

    def _rest(self, measurer: Measurer) -> dict[str, Any]:
        """The error of storing the unquantized tensors in a smaller dtype with no layer quantized; empty if not requested."""
        dtype = self.table.header.rest.dtype
        if dtype is None:
            return {}
        alone = measurer.held_out({})
        return {"rest": {"dtype": dtype, "held_out": rounded(float(alone.mean())), "held_out_stderr": rounded(standard_error(alone))}}

    def _spread(self) -> float | None:
        """The spread of the table's predictions of whole plans in the analysis's self-check, apart from a common factor."""
        check = (self.table.finish or {}).get("check", {}).get("additive", {})
        spread = check.get("spread")
        return None if spread is None else float(spread)

    def _evidence(self, decision: Decision, finalists: Sequence[Finalist]) -> dict[str, Any]:
        best = decision.best
        row = best.row()
        measured = {key: row[key] for key in ("calibration", "calibration_stderr", "held_out", "held_out_stderr")}
        samples = {"calibration": len(best.calibration), "held_out": len(best.held_out)}
        uniforms = sorted((f for f in finalists if f.uniform), key=lambda f: float(f.held_out.mean()))
        evidence: dict[str, Any] = {**self.table.compared, "predicted": row["predicted"], **self._unseen(best.choice)}
        evidence["measured"] = measured | {"samples": samples}
        if uniforms:
            top = uniforms[0].row()
            evidence["best_uniform"] = {"scheme": top["name"], "effective_bits": top["effective_bits"], "held_out": top["held_out"]}
        evidence |= self._proof()
        evidence["decision"] = decision.reason
        if decision.probability is not None:
            evidence["probability"] = rounded(decision.probability)
        expected = zip(finalists, decision.expected, strict=True)
        evidence["finalists"] = [finalist.row() | {"expected": rounded(value)} for finalist, value in expected]
        return evidence

    def _unseen(self, choice: tuple[int, ...]) -> dict[str, Any]:
        """The error that unseen rows of tables add to the prediction, and what calibration reaches, if there are any."""
        added = unseen_rows(self.table, self.problem.schemes(choice))
        return {} if added is None else {"unseen_rows": rounded(added), "reach": "; ".join(reach_lines(self.table.finish))}

    def _proof(self) -> dict[str, Any]:
        """The proofs: the gap of the additive model, and the best plan and bound of the quadratic model if there is one."""
        proof: dict[str, Any] = {"optimality_gap": rounded(self.solution.gap)}
        if self.quadratic is not None:
            proof["with_interactions"] = {"predicted": rounded(self.quadratic.error), "bound": rounded(self.quadratic.bound)}
        return proof

    def _plan(self, choice: tuple[int, ...], evidence: dict[str, Any], *, uniform: bool = False) -> Plan:
        header, pins = self.table.header, self._pins
        bare = plan_for(
            header.layers,
            self.problem.schemes(choice),
            model=header.model,
            quantizer=str(header.settings["quantizer"]),
            rest=header.rest,
        )
        ties = tuple(tuple(layer.name for layer in group.layers) for group in self.problem.groups if len(group.layers) > 1)
        pinned = tuple(name for name in bare.layers if name in pins)
        told = remarks(self.problem, choice, self.table, exact=choice if uniform else self.solution.choice, pins=pins)
        evidence = {"assignment": bare.assignment} | evidence
        if self.problem.beside:
            evidence["costs"] = {limit.name: {"total": limit.total(choice), "most": limit.most} for limit in self.problem.beside}
        bare = replace(bare, equalization=header.equalization)
        named = replace(bare, data=data_of(self.table), analysis=analysis_of(self.table))
        named = replace(named, sketches=_sketched_layers(self.table, self.settings))
        return replace(named, budget=self.budget, pinned=pinned, ties=ties, evidence=evidence, remarks=told)

    def _over_time(self) -> bool:
        return self.settings.timeout is not None and time.monotonic() - self._started > self.settings.timeout

    def _start(self) -> tuple[int, ...] | None:
        """The choice of the plan to start from; None without one, or if it is over the budget."""
        if self.settings.start is None:
            return None
        choice = choice_of(self.problem, self.settings.start, self.solution.choice)
        if self.problem.fits(choice):
            return choice
        self._notes += ("the plan to start from exceeds the budget, so the search does not use it",)
        return None


def _better(challenger: Measured, incumbent: Measured) -> Measured:
    return challenger if challenger.better_than(incumbent) else incumbent
