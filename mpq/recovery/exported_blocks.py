"""The blocks of an exported program: parts of its graph become modules again, so that they can be called, and watched, one after another.

`torch.export` notes for each operation which modules called it. The operations of one child of a list or a `Sequential` are cut out of the
graph as a module of its own, under the child's name. All tensors stay the program's own, under their old names.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Iterator, Sequence
from typing import Any

from torch import nn
from torch.fx import Graph, GraphModule, Node

from mpq.models.running.habits import share_habits
from mpq.records.layer import Layer

_STACK = "nn_module_stack"
_ACTING = ("call_function", "call_method", "call_module")


class Divided(GraphModule):
    """An exported program whose blocks are modules; it shares all tensors with the program."""


def divided(module: nn.Module, layers: Sequence[Layer]) -> Divided | None:
    """The same program with its blocks as modules; None if it is not an exported program, or has fewer than two blocks.

    Args:
        module: the program, which is unchanged.
        layers: a block holds no more than half of them.
    """
    if not isinstance(module, GraphModule) or isinstance(module, Divided):
        return None
    graph = _copied(module.graph)
    blocks = {name: made for name in _chosen(graph, layers) if (made := _cut(module, graph, name)) is not None}
    if len(blocks) < 2:
        return None
    root = nn.Module()
    for name, block in blocks.items():
        _owner(root, name).add_module(name.rpartition(".")[2], block)
    _share_tensors(module, root)
    for node in graph.find_nodes(op="get_attr"):
        _share_attribute(module, root, str(node.target))
    graph.lint()
    found = Divided(root, graph)
    _share_tensors(root, found)
    for part in found.modules():
        part.training = False
    share_habits(module, found)
    return found


def _copied(graph: Graph) -> Graph:
    made = Graph()
    made.output(made.graph_copy(graph, {}))
    made.set_codegen(copy.copy(graph._codegen))
    return made


def _chosen(graph: Graph, layers: Sequence[Layer]) -> list[str]:
    """Modules that are called once and are children of a list or a `Sequential`: the outermost of at most half of all layers."""
    found: list[str] = []
    for name in sorted(_children(graph), key=lambda name: name.count(".")):
        held = sum(all(parameter.startswith(f"{name}.") for parameter in layer.parameters) for layer in layers)
        if held and 2 * held <= len(layers) and not any(name.startswith(f"{outer}.") for outer in found):
            found.append(name)
    return found


def _children(graph: Graph) -> set[str]:
    found, repeated = set[str](), set[str]()
    for node in graph.nodes:
        kinds = dict(_modules_of(node))
        for name in kinds:
            plain, again, _ = name.partition("@")  # the second call of a module is called NAME@1
            repeated |= {plain} if again else set()
            parent, _, last = plain.rpartition(".")
            if last.isdecimal() or kinds.get(parent, "").endswith(".Sequential"):
                found.add(plain)
    return found - repeated


def _modules_of(node: Node) -> Iterator[tuple[str, str]]:
    """The modules that called an operation, from the outermost to the innermost, by name, each with its class."""
    for name, kind in (node.meta.get(_STACK) or {}).values():
        yield str(name), kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"


def _cut(module: nn.Module, graph: Graph, name: str) -> GraphModule | None:
    """Replace the operations of a module in `graph` by a call of it; None, and nothing replaced, if they cannot be called together."""
    nodes = list(graph.nodes)
    own = [node for node in nodes if node.op in _ACTING and name in dict(_modules_of(node))]
    inside = set(own)
    outputs = [node for node in own if any(user not in inside for user in node.users)]
    if not outputs:
        return None
    place = {node: number for number, node in enumerate(nodes)}
    inputs = list(
        dict.fromkeys(one for node in own for one in node.all_input_nodes if one not in inside and not _is_own(module, one, name))
    )
    user = min((user for node in outputs for user in node.users if user not in inside), key=place.__getitem__)
    between = [node for node in nodes[place[own[0]] : place[user]] if node.op in _ACTING and node not in inside]
    late = any(place[one] >= place[user] for one in inputs)
    if late or (between and any(map(_overwrites, (*own, *between)))):
        return None
    block = _extracted(module, own, inputs, outputs, name)
    with graph.inserting_before(user):
        called = graph.call_module(name, tuple(inputs))
        parts = [called] if len(outputs) == 1 else [graph.call_function(operator.getitem, (called, index)) for index in range(len(outputs))]
    for output, part in zip(outputs, reversed(parts), strict=True):
        output.replace_all_uses_with(part, delete_user_cb=lambda user: user not in inside)
    for node in reversed(own):
        graph.erase_node(node)
    for node in [node for node in graph.find_nodes(op="get_attr") if not node.users]:
        graph.erase_node(node)
    return block


def _extracted(module: nn.Module, own: Sequence[Node], inputs: Sequence[Node], outputs: Sequence[Node], name: str) -> GraphModule:
    """A module of some operations; of several outputs, the one that is computed last comes first."""
    graph, made, attributes = Graph(), dict[Node, Node](), dict[str, Any]()
    for node in inputs:
        made[node] = graph.placeholder(node.name)
    for node in own:
        for one in node.all_input_nodes:
            if one not in made:
                target = str(one.target).removeprefix(f"{name}.")
                attributes[target] = operator.attrgetter(str(one.target))(module)
                made[one] = graph.get_attr(target)
        made[node] = graph.node_copy(node, made.__getitem__)
    results = tuple(made[node] for node in reversed(outputs))
    graph.output(results[0] if len(results) == 1 else results)
    return GraphModule(attributes, graph)


def _is_own(module: nn.Module, node: Node, name: str) -> bool:
    """Whether a node reads a tensor of the module called `name`, or a graph that one of its operations runs."""
    if node.op != "get_attr":
        return False
    return str(node.target).startswith(f"{name}.") or isinstance(operator.attrgetter(str(node.target))(module), nn.Module)


def _overwrites(node: Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return schema is not None and bool(schema.is_mutable)


def _owner(root: nn.Module, name: str) -> nn.Module:
    """The module that holds the tensor or module called `name`; made where it is missing."""
    for part in name.split(".")[:-1]:
        if part not in root._modules:
            root.add_module(part, nn.Module())
        child = root._modules[part]
        assert child is not None
        root = child
    return root


def _share_tensors(module: nn.Module, root: nn.Module) -> None:
    """Give `root` all parameters and buffers of `module` under their names, also those that no operation reads."""
    for path, owner in module.named_modules(remove_duplicate=False):
        for name, parameter in owner._parameters.items():
            _owner(root, f"{path}.{name}".lstrip("."))._parameters[name] = parameter
        for name, buffer in owner._buffers.items():
            holder = _owner(root, f"{path}.{name}".lstrip("."))
            holder.register_buffer(name, buffer, persistent=name not in owner._non_persistent_buffers_set)


def _share_attribute(module: nn.Module, root: nn.Module, name: str) -> None:
    """Give `root` what a node of the graph reads, if it is not a parameter or buffer."""
    owner, leaf = _owner(root, name), name.rpartition(".")[2]
    if not hasattr(owner, leaf):
        setattr(owner, leaf, operator.attrgetter(name)(module))
