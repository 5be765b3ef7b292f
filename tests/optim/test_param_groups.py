"""Compares weight-decay groups, layer numbers and frozen parameters with tables written by hand."""

from typing import NamedTuple, Optional

import mindspore as ms
import pytest
from mindspore import Parameter, nn
from mindspore.common.initializer import initializer

from mindcv.models import create_model
from mindcv.optim import (
    create_optimizer,
    describe_groups,
    filter_groups,
    freeze,
    is_decayed,
    layer_decay_groups,
    layer_ids,
    weight_decay_groups,
)
from mindcv.utils.errors import UserError

DECAYED = {
    "feature.0.0.weight": ((8, 3, 4, 4), True),
    "feature.0.1.gamma": ((8,), False),
    "feature.0.1.beta": ((8,), False),
    "feature.1.0.dwconv.weight": ((8, 1, 7, 7), True),
    "feature.1.0.dwconv.bias": ((8,), False),
    "feature.1.0.pwconv1.weight": ((32, 8), True),
    "feature.1.0.grn.gamma": ((1, 1, 1, 32), False),
    "feature.1.0.grn.beta": ((1, 1, 1, 32), False),
    "feature.1.0.gamma_": ((8,), False),
    "norm.beta": ((8,), False),
    "classifier.weight": ((10, 8), True),
    "classifier.bias": ((10,), False),
    "vector": ((8,), False),
    "bias": ((2, 2), False),
    # Only the last part of the name counts.
    "gamma.weight": ((2, 2), True),
    "alphabeta": ((2, 2), True),
}


class Role(NamedTuple):
    stage: Optional[int]
    block: Optional[int]
    is_decayed: bool = True


def roles(names):
    """Return the roles that a ConvNeXt declares: feature.2S comes before stage S, and feature.2S+1 is stage S."""
    declared = {}
    for name in names:
        part, *numbers = name.split(".")
        stage, is_stage = divmod(int(numbers[0]), 2) if part == "feature" else (None, False)
        declared[name] = Role(stage, int(numbers[1]) if is_stage else None)
    return declared


def make_params():
    return [Parameter(initializer("zeros", shape, ms.float32), name=name) for name, (shape, _) in DECAYED.items()]


def test_is_decayed_excludes_vectors_and_names_of_norms_and_biases():
    assert {p.name: is_decayed(p) for p in make_params()} == {name: row[1] for name, row in DECAYED.items()}


@pytest.mark.parametrize("rule", ["auto", "norm_and_bias"])
def test_weight_decay_groups_separates_decayed_parameters_and_keeps_the_order(rule):
    params = make_params()
    decayed, undecayed, order = weight_decay_groups(params, 0.05, rule)
    assert decayed["weight_decay"] == 0.05
    assert undecayed["weight_decay"] == 0.0
    assert [p.name for p in decayed["params"]] == [name for name, row in DECAYED.items() if row[1]]
    assert [p.name for p in undecayed["params"]] == [name for name, row in DECAYED.items() if not row[1]]
    assert order == {"order_params": params}


def test_filter_groups_keeps_every_parameter_of_a_group_without_its_own_decay():
    params = make_params()
    first, second, *others = filter_groups([{"params": params, "lr": 0.5}], 0.05, "auto")
    decayed = {p.name: group["weight_decay"] > 0 for group in (first, second) for p in group["params"]}
    assert decayed == {name: is_decayed for name, (_, is_decayed) in DECAYED.items()}
    assert first["lr"] == second["lr"] == 0.5 and others == [{"order_params": params}]


def test_weight_decay_groups_decays_all_parameters_when_disabled():
    params = make_params()
    assert weight_decay_groups(params, 0.05, "disable") == [
        {"params": params, "weight_decay": 0.05},
        {"order_params": params},
    ]


def test_weight_decay_groups_makes_no_empty_group():
    bias = make_params()[2:3]
    assert weight_decay_groups(bias, 0.05, "auto") == [{"params": bias, "weight_decay": 0.0}, {"order_params": bias}]


def test_weight_decay_groups_refuses_an_unknown_rule_and_no_parameters():
    with pytest.raises(UserError, match="auto, disable, norm_and_bias"):
        weight_decay_groups(make_params(), 0.05, "norm")
    with pytest.raises(UserError, match="no parameters"):
        weight_decay_groups([], 0.05, "auto")


# Parameter names of convnext_tiny (depths 3, 3, 9, 3) -> layers of the types `single` and `group`.
TINY = {
    "feature.0.0.weight": (1, 0),
    "feature.0.1.gamma": (1, 0),
    "feature.1.0.dwconv.weight": (1, 1),
    "feature.1.2.gamma_": (3, 1),
    "feature.2.0.gamma": (4, 2),
    "feature.2.1.weight": (4, 2),
    "feature.3.0.norm.beta": (4, 2),
    "feature.3.2.pwconv1.weight": (6, 2),
    "feature.4.1.weight": (7, 3),
    "feature.5.0.dwconv.bias": (7, 3),
    "feature.5.2.dwconv.bias": (9, 3),
    "feature.5.3.dwconv.bias": (10, 4),
    "feature.5.8.pwconv2.weight": (15, 5),
    "feature.6.0.beta": (16, 12),
    "feature.7.0.norm.gamma": (16, 12),
    "feature.7.2.grn.gamma": (18, 12),
    "norm.gamma": (19, 13),
    "classifier.weight": (19, 13),
}


def block_names(depths):
    return [f"feature.{2 * stage + 1}.{b}.dwconv.weight" for stage, depth in enumerate(depths) for b in range(depth)]


def test_layer_ids_equal_the_table_of_convnext_tiny():
    names = [*TINY, *block_names((3, 3, 9, 3))]
    for column, (kind, last) in enumerate([("single", 19), ("group", 13)]):
        ids, top = layer_ids(roles(names), kind)
        assert top == last
        assert {name: ids[name] for name in TINY} == {name: row[column] for name, row in TINY.items()}


def test_layer_ids_follow_the_depth_of_stage_2():
    deep, top = layer_ids(roles(block_names((3, 3, 27, 3))), "group")
    assert [deep[f"feature.5.{b}.dwconv.weight"] for b in range(27)] == [3 + b // 3 for b in range(27)]
    assert max(deep.values()) == 12 and top == 13
    deep, top = layer_ids(roles(block_names((3, 3, 27, 3))), "single")
    assert list(deep.values()) == list(range(1, 37)) and top == 37
    shallow, _ = layer_ids(roles(block_names((2, 2, 6, 2))), "group")
    assert list(shallow.values()) == [1, 1, 2, 2, 3, 3, 3, 4, 4, 4, 12, 12]


@pytest.mark.parametrize(("model", "blocks"), [("convnext_atto", 12), ("convnextv2_nano", 14)])
def test_layer_ids_cover_every_parameter_of_a_model(model, blocks):
    network = create_model(model, num_classes=10, drop_path_rate=0.1)
    ids, last = layer_ids(network.parameter_roles(), "single")
    assert last == blocks + 1 and set(ids) == {p.name for p in network.get_parameters()}
    assert sorted(set(ids.values())) == list(range(1, blocks + 2))
    assert {name.split(".")[0] for name, i in ids.items() if i == last} == {"norm", "classifier", "sample_counter"}


def test_layer_decay_groups_scale_by_the_distance_to_the_head():
    params = [Parameter(initializer("zeros", (2, 2), ms.float32), name=n) for n in block_names((1, 1, 1, 1))]
    params.append(Parameter(initializer("zeros", (2,), ms.float32), name="classifier.bias"))
    declared = {**roles(block_names((1, 1, 1, 1))), "classifier.bias": Role(None, None, is_decayed=False)}
    groups = layer_decay_groups(params, 0.05, "auto", 0.5, roles=declared)
    assert groups.pop() == {"order_params": params}
    described = {group["params"][0].name: (group["lr_scale"], group["weight_decay"]) for group in groups}
    assert described == {
        "feature.1.0.dwconv.weight": (0.0625, 0.05),
        "feature.3.0.dwconv.weight": (0.125, 0.05),
        "feature.5.0.dwconv.weight": (0.25, 0.05),
        "feature.7.0.dwconv.weight": (0.5, 0.05),
        "classifier.bias": (1.0, 0.0),
    }
    params[1].requires_grad = False
    assert [p.name for p in layer_decay_groups(params, 0.05, "auto", 0.5, roles=declared)[-1]["order_params"]] == [
        p.name for p in params if p is not params[1]
    ]
    scales = [group["lr_scale"] for group in layer_decay_groups(params, 0.05, "auto", 0.5, "group", declared)[:-1]]
    assert scales == [0.5**12, 0.5**10, 0.5, 1.0]


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (block_names((1, 1, 1, 1)), {"layer_decay": 0.0}, "layer_decay must be"),
        (block_names((1, 1, 1, 1)), {"layer_decay": 1.1}, "layer_decay must be"),
        (block_names((1, 1, 1, 1)), {"layer_decay_type": "groups"}, "did you mean 'group'"),
        (block_names((1, 1, 1)), {}, r"not those of a whole ConvNeXt .*\[1, 1, 1, 0\]"),
        (block_names((1, 1, 3, 1))[:2] + block_names((1, 1, 3, 1))[3:], {}, "not those of a whole"),
        (block_names((1, 1, 1, 1, 1)), {}, "not those of a whole"),
        ([], {}, "give create_optimizer the network itself instead of its parameters"),
    ],
    ids=str,
)
def test_layer_decay_groups_refuses_wrong_options_and_incomplete_roles(names, options, message):
    params = [Parameter(initializer("zeros", (2, 2), ms.float32), name=name) for name in names or ["weight"]]
    with pytest.raises(UserError, match=message):
        layer_decay_groups(params, 0.05, "auto", **{"layer_decay": 0.9, "roles": roles(names), **options})


def test_describe_groups_lists_each_trained_parameter():
    network = Declaring(block_names((1, 1, 1, 1)))
    optimizer = create_optimizer(
        network, "adamw", weight_decay=0.05, weight_decay_filter="auto", layer_decay=0.5, loss_scale=1024.0
    )
    assert describe_groups(optimizer).splitlines() == [
        "parameter                  shape  lr scale  weight decay",
        "feature.1.0.dwconv.weight    2x2    0.0625          0.05",
        "feature.3.0.dwconv.weight    2x2     0.125          0.05",
        "feature.5.0.dwconv.weight    2x2      0.25          0.05",
        "feature.7.0.dwconv.weight    2x2       0.5          0.05",
        "bias                          10         1             0",
    ]


class Declaring(nn.Cell):
    """Declares the roles of its parameters [2, 2], but not the role of its bias."""

    def __init__(self, names):
        super().__init__()
        self.names = names
        for i, name in enumerate(names):
            self.insert_param_to_cell(f"weight{i}", Parameter(initializer("zeros", (2, 2), ms.float32), name=name))
        self.bias = Parameter(initializer("zeros", (10,), ms.float32), name="bias")

    def parameter_roles(self):
        return roles(self.names)


def test_layer_decay_scales_a_backbone_inside_another_network():
    """In a detector, the names have a prefix, and the other layers have the full learning rate."""
    detector = nn.Cell()
    detector.backbone = create_model("convnext_atto", features_only=True)
    detector.neck = nn.Dense(320, 2)
    detector.update_parameters_name("detector.")
    optimizer = create_optimizer(detector, "sgd", layer_decay=0.5)
    scales = dict(zip((p.name for p in optimizer.parameters), optimizer.lr_scales))
    assert scales["detector.neck.weight"] == 1.0
    blocks = [scales[name] for name in scales if name.endswith("dwconv.weight")]
    assert blocks == [0.5**i for i in range(12, 0, -1)]
    assert [scales[name] for name in scales if name.endswith("feature.0.0.weight")] == [0.5**12]


def test_layer_decay_refuses_parameters_without_their_network():
    network = create_model("convnext_atto", num_classes=2)
    with pytest.raises(UserError, match="give create_optimizer the network itself instead of its parameters"):
        create_optimizer(network.trainable_params(), "adamw", layer_decay=0.9)


@pytest.mark.parametrize("model", ["convnext_atto", "convnextv2_atto"])
def test_is_decayed_equals_the_roles_that_a_network_declares(model):
    network = create_model(model, num_classes=2)
    declared = {name: role.is_decayed for name, role in network.parameter_roles().items()}
    assert declared == {p.name: is_decayed(p) for p in network.get_parameters()}
    assert declared == {name: name.endswith("weight") for name in declared}


def test_freeze_excludes_matching_parameters_from_the_optimizer():
    model = create_model("convnext_atto", num_classes=10, drop_path_rate=0.1)
    names = [p.name for p in model.trainable_params()]
    assert freeze(model, ["feature.0.*", "*.gamma_"]) == [
        n for n in names if n.startswith("feature.0.") or n.endswith(".gamma_")
    ]
    assert freeze(model, ["feature.*"]) == [n for n in names if n.startswith("feature.")]
    left = [p.name for p in model.trainable_params()]
    assert left == ["norm.gamma", "norm.beta", "classifier.weight", "classifier.bias"]
    assert [p.name for p in create_optimizer(model, "adamw", layer_decay=0.9).parameters] == left
    assert freeze(model, []) == []


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (["norm.*", "faeture.0.*"], r"no parameter matches 'faeture.0.\*'; did you mean 'feature.0.\*'"),
        (["classifer.weight"], "did you mean 'classifier.weight'"),
        (["Feature.0.*"], "no parameter matches"),
        (["feature.*", "norm.*", "classifier.*"], "no parameter to train"),
        (["*"], "no parameter to train"),
        ("feature.*", "patterns must be a list of strings"),
    ],
    ids=str,
)
def test_freeze_refuses_patterns_that_match_nothing_or_all(patterns, message):
    model = create_model("convnext_atto", num_classes=10)
    with pytest.raises(UserError, match=message):
        freeze(model, patterns)
    assert all(p.requires_grad for p in model.get_parameters() if p.name.split(".")[0] in ("feature", "norm"))
