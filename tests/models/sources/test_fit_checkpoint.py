"""Which weights fit a module, by the judgement of its own load_state_dict."""

from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mpq.models.sources.checkpoint_entries import Entry
from mpq.models.sources.checkpoint_names import Naming
from mpq.models.sources.fit_checkpoint import fit_below, fits_of, load_fit, try_naming
from tests.models.small import tied


def module() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))


def state(fill: float = 1.0, prefix: str = "", **more: Any) -> dict[str, Any]:
    return {prefix + name: torch.full_like(tensor, fill) for name, tensor in module().state_dict().items()} | more


def test_a_fit_that_reads_every_name_is_the_only_one() -> None:
    (fit,) = fits_of(Entry("net", state()), module())
    assert (fit.fills, fit.missing, fit.unexpected, fit.left_out, fit.error, fit.label, fit.known) == (True, (), (), (), "", "net", 7)


def test_the_nearest_miss_says_what_is_missing_and_what_is_over() -> None:
    content = state(extra=torch.ones(2))
    del content["0.bias"]
    (fit,) = fits_of(Entry("", content), module())
    assert not fit.fills
    assert (fit.missing, fit.left_out, fit.error) == (("0.bias",), ("extra",), "")


def test_a_wrong_shape_is_said_with_both() -> None:
    (fit,) = fits_of(Entry("", state() | {"0.weight": torch.ones(5, 2)}), module())
    assert fit.error == "'0.weight' is [5, 2] in the file and [3, 2] in the module"


def test_names_over_are_left_out_under_the_names_of_the_file() -> None:
    (fit,) = fits_of(Entry("", state(prefix="module.") | {"module.aux.w": torch.ones(1, 2)}), module())
    assert fit.fills
    assert fit.left_out == ("module.aux.w",)


def test_other_prefixes_in_one_entry_are_other_fits_with_labels() -> None:
    fits = fits_of(Entry("all", state(prefix="a.") | state(2.0, prefix="b.")), module())
    assert sorted(fit.label for fit in fits) == ["all.a", "all.b"]
    assert not fits[0].same_as(fits[1])
    assert fits[0].same_as(fits[0])


def test_counters_of_averaging_wrappers_are_no_names_over() -> None:
    (fit,) = fits_of(Entry("", state(prefix="module.") | {"n_averaged": torch.tensor(7), "decay": 0.9}), module())
    assert fit.fills
    assert (sorted(fit.counters), fit.left_out) == (["decay", "n_averaged"], ())


def test_below_a_prefix_the_rest_does_not_count() -> None:
    entry = Entry("e", state(prefix="gen.") | {"disc.w": torch.ones(2)})
    fit = fit_below(entry, "gen", module())
    assert fit is not None
    assert (fit.fills, fit.left_out, fit.label) == (True, (), "e.gen")
    assert fit_below(entry, "none", module()) is None


def test_a_tied_tensor_may_be_stored_under_one_of_its_names() -> None:
    content = {name: tensor for name, tensor in tied().state_dict().items() if name != "head.weight"}
    (fit,) = fits_of(Entry("", content), tied())
    assert fit.fills
    assert torch.equal(fit.state["head.weight"], content["embedding.weight"])


def test_versions_that_the_checkpoint_states_reach_the_modules() -> None:
    class Versioned(nn.Linear):
        _version = 2
        seen: Any = None

        def _load_from_state_dict(self, state_dict: Any, prefix: str, local_metadata: Any, *rest: Any) -> None:
            Versioned.seen = local_metadata.get("version")
            super()._load_from_state_dict(state_dict, prefix, local_metadata, *rest)

    content: Any = OrderedDict({f"module.{name}": tensor for name, tensor in nn.Linear(2, 3).state_dict().items()})
    content._metadata = {"": {}, "module": {"version": 1}}
    target = Versioned(2, 3)
    (fit,) = fits_of(Entry("", content), target)
    load_fit(fit, target)
    assert Versioned.seen == 1


def test_loading_what_fits_is_strict_and_leaves_out_what_is_over() -> None:
    target = module()
    (fit,) = fits_of(Entry("", state(3.0, extra=torch.ones(2))), target)
    load_fit(fit, target)
    assert all(bool((tensor == 3).all()) for tensor in target.state_dict().values())
    del fit.state["0.bias"]  # type: ignore[attr-defined]
    with pytest.raises(RuntimeError, match=r"Missing key\(s\) in state_dict: \"0\.bias\""):
        load_fit(fit, target)


def test_an_error_of_the_modules_own_code_is_the_reason() -> None:
    class Picky(nn.Linear):
        def load_state_dict(self, *_: Any, **__: Any) -> Any:
            raise ValueError("not today\nsecond line")

    target = Picky(2, 3)
    fit = try_naming(Entry("", dict(target.state_dict())), Naming("", {"weight": "weight", "bias": "bias"}), target)
    assert (fit.fills, fit.error) == (False, "not today")


def test_the_same_values_under_other_names_are_the_same() -> None:
    first, second = (fits_of(Entry(key, state(prefix=prefix)), module())[0] for key, prefix in (("a", ""), ("b", "module.")))
    assert first.same_as(second)
    changed: dict[str, Tensor] = {**state(), "0.bias": torch.zeros(3)}
    assert not first.same_as(fits_of(Entry("c", changed), module())[0])
