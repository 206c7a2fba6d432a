"""What a file of budgets holds, as a definition. No torch."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from mpq.reading.fields import Bytes, Count, Loose, Name, Percent, Positive, Text

_Schemes = Annotated[
    Text | Annotated[list[Text], Meta(min_length=1)], Meta(description="int4-g32 means exactly that scheme, int4 any group size")
]
_Layers = Annotated[
    dict[Name, _Schemes], Meta(min_length=1, extra={"give": "schemes by layer pattern, for example {'*embed*': [int8, fp16]}"})
]


class RuleFile(Struct, forbid_unknown_fields=True):
    """What some files are held to."""

    files: Annotated[
        Loose | Annotated[list[Loose], Meta(min_length=1, max_length=1000)],
        Meta(
            description="plans, artifacts, any .safetensors, .onnx, .gguf, .pt2 or folder: paths and globs, relative to this file",
            examples=["models/**/plan.yaml"],
        ),
    ]
    name: Annotated[Loose | None, Meta(description="what the rule is called in the output")] = None
    max_bits: Annotated[Positive | None, Meta(description="bits per weight over the layers; plans and artifacts")] = None
    max_bytes: Annotated[
        Bytes | None, Meta(description="size of the file or folder; for a plan, of the file that mpq apply would write")
    ] = None
    max_loaded: Annotated[
        Bytes | None, Meta(description="memory of parameters and buffers once mpq.load has loaded the model; plans and artifacts")
    ] = None
    max_loaded_packed: Annotated[
        Bytes | None,
        Meta(description="memory of parameters and buffers once mpq.load(..., packed=True) has loaded the model; plans and artifacts"),
    ] = None
    max_share: Annotated[Percent | None, Meta(description="size of the file as a share of the original; plans")] = None
    max_error: Annotated[
        Positive | None,
        Meta(description="held-out error, in the plan's metric; with data, how much worse an artifact is than its reference on this data"),
    ] = None
    data: Annotated[
        Text | None,
        Meta(
            description="data to evaluate artifacts on, like in mpq eval: a path relative to this file, or module:callable",
            examples=["test.pt"],
        ),
    ] = None
    metric: Annotated[
        Text | None,
        Meta(
            description="which metric of mpq eval: how much worse than the reference; by default kl_divergence if there is one, else "
            "relative_mse"
        ),
    ] = None
    reference: Annotated[Text | None, Meta(description="the unquantized model, if it is not where the artifact says")] = None
    seq_len: Annotated[Count | None, Meta(description="tokens per window, for text")] = None
    num_samples: Annotated[Count | None, Meta(description="use only so many samples, spread evenly over the source")] = None
    max_growth: Annotated[Percent | None, Meta(description="how much larger than the baseline the file may be")] = None
    max_error_growth: Annotated[
        Percent | None, Meta(description="how much larger than the baseline's the held-out error may be; plans")
    ] = None
    baseline: Annotated[
        Loose | None, Meta(description="what growth is measured against: a git revision, or a file", examples=["origin/main"])
    ] = None
    forbid: Annotated[
        _Layers | None,
        Meta(
            description="schemes or formats that layers must not use, by pattern: exact name, glob, or re:...",
            examples=[{"*embed*": ["int2", "int3"]}],
        ),
    ] = None
    require: Annotated[
        _Layers | None,
        Meta(description="schemes or formats of which layers must use one, by pattern", examples=[{"lm_head": ["int8", "fp16"]}]),
    ] = None


class BudgetsFile(Struct, forbid_unknown_fields=True):
    """What `mpq check` holds models to."""

    mpq_budgets: Annotated[Literal[1], Meta(description="version of this format")]
    budgets: Annotated[list[RuleFile], Meta(min_length=1, max_length=1000)]
