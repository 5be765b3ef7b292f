"""The roles that a network declares for its parameters are compared with MindCV's table of names and by hand."""

import pytest
from mindspore import nn

from mindcv.convert import weight_parameters
from mindcv.convert.layout_tables import LAYOUTS, entries
from mindcv.models import ConvNeXtFeatures
from mindcv.models.convnext import ConvNeXt

DEPTHS = (1, 2, 3, 1)
# Parts of the table -> parts of a network.
PARTS = {
    "stem conv": "stem",
    "stem norm": "stem",
    "downsampling norm": "downsampling",
    "downsampling conv": "downsampling",
    "depthwise conv": "block",
    "block norm": "block",
    "expansion": "block",
    "grn": "block",
    "projection": "block",
    "layer scale": "block",
    "last norm": "last norm",
    "head": "head",
}


def build(**options):
    return ConvNeXt(3, 5, DEPTHS, (8, 16, 24, 32), **options)


@pytest.mark.parametrize("use_grn", [False, True])
def test_parameter_roles_agree_with_the_layout_table_of_mindcv(use_grn):
    network = build(use_grn=use_grn, drop_path_rate=0.2)
    roles = {name: role.part for name, role in network.parameter_roles().items()}
    missing = "layer scale" if use_grn else "grn"
    assert set(PARTS) == set(LAYOUTS["mindcv"].names)
    expected = {e.own_name: PARTS[e.part] for e in entries("mindcv", "", DEPTHS) if e.part != missing}
    assert roles == {**expected, "sample_counter.count": "state"}
    assert weight_parameters(network).keys() == expected.keys()


def test_parameter_roles_number_stages_and_blocks():
    roles = build().parameter_roles()
    places = {name: (role.stage, role.block) for name, role in roles.items()}
    assert places["feature.0.0.weight"] == (0, None)
    assert places["feature.2.1.bias"] == (1, None)
    assert places["feature.5.2.norm.gamma"] == (2, 2)
    assert places["norm.gamma"] == places["classifier.weight"] == (None, None)
    blocks = {place for place in places.values() if place[1] is not None}
    assert blocks == {(stage, block) for stage, depth in enumerate(DEPTHS) for block in range(depth)}


def test_parameter_roles_of_replaced_layers_are_those_of_the_old_layers():
    network = build()
    network.classifier = nn.Dense(32, 9)
    network.feature[3][1].act = nn.PReLU()
    roles = network.parameter_roles()
    (activation,) = (p.name for p in network.feature[3][1].act.get_parameters())
    assert roles[activation][:3] == ("block", 1, 1)
    assert {roles[p.name].part for p in network.classifier.get_parameters()} == {"head"}


def test_parameter_roles_of_a_backbone_cover_its_remaining_parameters():
    network = build(drop_path_rate=0.2)
    all_roles, backbone = network.parameter_roles(), ConvNeXtFeatures(network, [0, 1])
    roles = backbone.parameter_roles()
    assert roles.keys() == {p.name for p in backbone.get_parameters()}
    assert roles.items() <= all_roles.items()
