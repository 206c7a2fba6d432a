import torch

from mpq.activations.operators import Numbers, operation_named, operator_of

X, W = torch.ones(2, 3), torch.ones(3, 4)


def test_products_convolutions_additions_joins_and_averages_are_integer_operators() -> None:
    assert [
        None if (found := operator_of(name, given)) is None else found.kind
        for name, given in (
            ("mm", {"self": X, "mat2": W}),
            ("convolution", {"input": X, "weight": W, "transposed": False}),
            ("convolution", {"input": X, "weight": W, "transposed": True}),
            ("add", {"self": X, "other": X}),
            ("add", {"self": X, "other": 1.0}),
            ("add", {"self": X.long(), "other": X.long()}),
            ("cat", {"tensors": [X, X]}),
            ("cat", {"tensors": [X]}),
            ("mean", {"self": X}),
            ("softmax", {"self": X}),
        )
    ] == ["linear", "conv", None, "add", None, None, "cat", None, "average", None]


def test_operators_are_counted_by_kind_and_those_of_several_inputs_name_each() -> None:
    numbers = Numbers()
    add, product = operator_of("add", {"self": X, "other": X}), operator_of("mm", {"self": X, "mat2": W})
    assert add is not None
    assert product is not None
    assert [numbers.readers(each) for each in (add, product, add, product)] == [
        ["add.0.0", "add.0.1"],
        ["linear.0"],
        ["add.1.0", "add.1.1"],
        ["linear.1"],
    ]


def test_a_variant_in_place_is_the_same_operator() -> None:
    assert (operation_named(torch.ops.aten.add_.Tensor), operation_named(torch.ops.aten.add.Tensor)) == ("add", "add")
