"""Each script accepts the options that it uses, and no other ones."""

import ast
import contextlib
import dataclasses
import importlib.util
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mindcv import recipe, recipe_analysis, recipe_classifier, recipe_probe, recipe_validate, recipe_weights
from mindcv.config import (
    PREPROCESSING,
    AnalyzeConfig,
    AverageConfig,
    ExportConfig,
    ExtractConfig,
    InferConfig,
    PretrainConfig,
    RunConfig,
    TrainConfig,
    ValidateAllConfig,
    ValidateConfig,
    parse_args,
)
from mindcv.config.parsing import options_of, used_options
from mindcv.convert import CheckpointContents
from mindcv.utils.errors import ConfigError

ROOT = Path(__file__).parents[2]
CLASSES = {
    "train.py": TrainConfig,
    "pretrain.py": PretrainConfig,
    "validate.py": ValidateConfig,
    "infer.py": InferConfig,
    "tools/extract_features.py": ExtractConfig,
    "tools/analyze.py": AnalyzeConfig,
    "tools/validate_all.py": ValidateAllConfig,
    "tools/average.py": AverageConfig,
    "tools/export.py": ExportConfig,
}
WORKING = {
    TrainConfig: ["--model", "convnext_atto"],
    PretrainConfig: ["--model", "fcmae_convnextv2_atto"],
    ValidateConfig: ["--ckpt_path", "a.ckpt"],
    InferConfig: ["--ckpt_path", "a.ckpt", "--image_path", "cats"],
    ExtractConfig: ["--ckpt_path", "a.ckpt", "--image_path", "cats", "--output", "a.npz"],
    AnalyzeConfig: ["--ckpt_path", "a.ckpt", "--image_path", "cats", "--output_dir", "a"],
    ValidateAllConfig: ["--checkpoints", "a.ckpt", "--results_csv", "a.csv"],
    AverageConfig: ["--checkpoints", "a.ckpt", "b.ckpt", "--dst", "c.ckpt"],
    ExportConfig: ["--ckpt_path", "a.ckpt", "--dst", "a.onnx"],
}
# `build_model` reads these options for every script. They change only the training of a network.
TRAINING_OF_A_NETWORK = {
    *("drop_rate", "drop_path_rate", "head_init_scale", "layer_scale_init_value", "recompute_stages", "freeze", "seed"),
}


def problems(argv, config_class):
    with pytest.raises(ConfigError) as caught:
        parse_args(argv, config_class)
    return caught.value.problems


def test_shared_options_name_their_scripts():
    for option in options_of(RunConfig).values():
        assert option.scripts and set(option.scripts) <= CLASSES.keys(), option.name
    for config_class in CLASSES.values():
        own = used_options(config_class).keys() - options_of(RunConfig).keys()
        assert list(used_options(config_class))[: len(own)] == [n for n in options_of(config_class) if n in own]


@pytest.mark.parametrize(
    ("config_class", "flag", "scripts"),
    [
        (InferConfig, ["--lr", "0.1"], "train.py and pretrain.py"),
        (ValidateConfig, ["--shuffle"], "train.py and pretrain.py"),
        (
            *(InferConfig, ["--data_dir", "images"]),
            "train.py, pretrain.py, validate.py, tools/validate_all.py and tools/average.py",
        ),
        (InferConfig, ["--results_json", "a.json"], "validate.py"),
        (ValidateConfig, ["--epoch_size", "3"], "train.py and pretrain.py"),
        (ValidateConfig, ["--picture", "a.png"], "infer.py"),
        (ValidateConfig, ["--resume", "auto"], "train.py and pretrain.py"),
        (PretrainConfig, ["--mixup", "0.8"], "train.py"),
        (TrainConfig, ["--mask_ratio", "0.6"], "pretrain.py"),
        (TrainConfig, ["--image_size", "64"], "tools/export.py; did you mean 'image_resize'?"),
        (TrainConfig, ["--per_class_csv", "a.csv"], "validate.py"),
        (TrainConfig, ["--probe", "knn"], "validate.py"),
        (ExtractConfig, ["--top_k", "3"], "infer.py"),
        (
            *(ExtractConfig, ["--num_classes", "3"]),
            "train.py, validate.py, infer.py, tools/export.py, tools/validate_all.py and tools/average.py",
        ),
        (ValidateAllConfig, ["--distribute"], "train.py, pretrain.py and validate.py"),
        (
            *(AverageConfig, ["--ckpt_path", "a.ckpt"]),
            "train.py, validate.py, infer.py, tools/extract_features.py, tools/analyze.py and tools/export.py",
        ),
        (InferConfig, ["--output", "a.npz"], "tools/extract_features.py"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_parse_args_names_the_script_that_a_flag_belongs_to(config_class, flag, scripts):
    (found,) = problems([*WORKING[config_class], *flag], config_class)
    assert found == f"{flag[0]}: {config_class.script} does not use this option; it belongs to {scripts}"


@pytest.mark.parametrize("config_class", list(WORKING), ids=lambda config_class: config_class.script)
def test_parse_args_accepts_the_options_of_all_scripts_in_a_yaml_file(tmp_path, config_class):
    path = tmp_path / "recipe.yaml"
    path.write_text("epoch_size: 3\nval_split: test\ntop_k: 2\nresults_json: a.json\nloss: JSD\naug_splits: 3\n")
    config = parse_args(["-c", str(path), *WORKING[config_class]], config_class)
    used = used_options(config_class)
    assert config.as_dict().keys() == used.keys()
    assert ("epoch_size" in config.described()) == (config_class in (TrainConfig, PretrainConfig))
    if config_class is InferConfig:
        assert config.top_k == 2
    path.write_text("epoch_size: many\ntop_k: 0.5\n")
    assert len(problems(["-c", str(path), *WORKING[config_class]], config_class)) == 2


@pytest.mark.parametrize("script", CLASSES)
def test_help_lists_own_options_first_and_no_other_scripts(script, capsys):
    with pytest.raises(SystemExit):
        parse_args(["--help"], CLASSES[script])
    listed = re.findall(r"^  (?:-c, )?--(\w+):", capsys.readouterr().out, re.M)
    used = used_options(CLASSES[script])
    assert sorted(listed) == sorted(used)
    own = [name for name in used if name not in options_of(RunConfig)]
    assert listed[: len(own)] == own


# Each short word in the names of options -> the words that it stands for.
LONG_FORMS = dict(
    amp="precision", aug="augment", ckpt="checkpoint", color="colour", csv="csv", dataset="data set", dir="folder",
    dst="destination", dtype="format", ema="average", eps="epsilon", hflip="flip", lr="learning rate", max="largest",
    min="lowest", num="number", opt="optimizer", pct="crop", prob="probability", re="erasing", std="deviation",
    val="validat", vflip="flip",
)  # fmt: skip


@pytest.mark.parametrize("config_class", list(WORKING), ids=lambda config_class: config_class.script)
def test_help_text_stands_alone(config_class):
    """A help text does not continue the text above it, and it contains the noun of the option's name."""
    for name, option in used_options(config_class).items():
        assert not re.match(r"(its|it|that|to|or|over|and|of|with|such|for)\b", option.help), name
        assert len(option.help.split()) >= 3 and not option.help.endswith("."), name
        nouns = [LONG_FORMS.get(word, word) for word in name.split("_")]
        assert any(noun[:6].rstrip("s") in option.help.lower() for noun in nouns), f"{name}: {option.help}"
        if option.default is None:
            assert "None" in option.help, name


# Commands that MindCV's pages show


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("validate.py", "--model=convnext_tiny --dataset=imagenet --val_split=val --pretrained"),
        ("validate.py", "--model=convnext_tiny --dataset=imagenet --val_split=validation --ckpt_path=a.ckpt"),
        ("validate.py", "--model=convnext_tiny --dataset=cifar10 --val_split=test --num_classes=10 --batch_size=40 "
         "--data_dir=d --ckpt_path=a.ckpt"),
        ("validate.py", "-c configs/convnext/convnext_tiny_ascend.yaml --data_dir=d --ckpt_path=a.ckpt"),
        ("infer.py", "--model=convnext_tiny --image_path=dog.jpg --pretrained"),
    ],
)  # fmt: skip
def test_parse_args_accepts_documented_commands_of_mindcv(script, words, monkeypatch):
    monkeypatch.chdir(ROOT)
    parse_args(words.split(), CLASSES[script])


# Options that the scripts really read


def recording(config):
    """Return a copy of a config, and the set of options that are read from it later. Copying it does not count."""
    read, is_paused = set(), []

    class Recording(type(config)):
        def __getattribute__(self, name):
            if not is_paused:
                read.add(name)
            return super().__getattribute__(name)

        def completed(self, values):
            is_paused.append(True)
            try:
                return super().completed(values)
            finally:
                is_paused.pop()

    fields = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    return Recording(**fields), read


def names_in(*files):
    """Yield every attribute and every string of Python files."""
    for file in files:
        for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute):
                yield node.attr
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def options_read(script, argv, monkeypatch):
    """Return the options that `main` of a script reads. Reading weights and running the network are replaced."""
    config, read = recording(parse_args(argv, CLASSES[script]))
    module_of = importlib.util.spec_from_file_location(f"reading_{Path(script).stem}", ROOT / script)
    module = importlib.util.module_from_spec(module_of)
    module_of.loader.exec_module(module)
    contents = CheckpointContents({}, {"options": {"model": "convnext_atto"}})
    monkeypatch.setattr(recipe, "parse_command_line", lambda config_class: config)
    monkeypatch.setattr(recipe_weights, "open_checkpoint", lambda *args, **keywords: contents)
    monkeypatch.setattr(recipe_weights, "open_backbone", lambda *args, **keywords: contents)
    monkeypatch.setattr(recipe_probe, "fill_weights", lambda *args, **keywords: None)
    monkeypatch.setattr(recipe_classifier, "fill_weights", lambda *args, **keywords: None)
    for name in ("classify", "extract_from_files", "draw_heat_maps"):
        monkeypatch.setattr(module, name, lambda *args, **keywords: [], raising=False)
    for name in ("evaluate", "extract_features"):
        monkeypatch.setattr(recipe_validate, name, lambda *args, **keywords: [])
    for name in ("describe_evaluation", "run_probe"):
        monkeypatch.setattr(recipe_validate, name, lambda *args, **keywords: sys.exit())
    monkeypatch.setattr(recipe_analysis, "analyse_files", lambda *args, **keywords: sys.exit())
    with contextlib.suppress(SystemExit):
        module.main()
    return read


@pytest.fixture
def images(tmp_path):
    for name in ("val/a", "val/b"):
        (tmp_path / name).mkdir(parents=True)
        for number in range(4):
            Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(tmp_path / name / f"{number}.png")
    return tmp_path


@pytest.mark.parametrize("script", ["validate.py", "infer.py", "tools/extract_features.py", "tools/analyze.py"])
def test_script_reads_every_option_it_accepts(script, images, monkeypatch, tools):
    where = ["--data_dir", images] if script == "validate.py" else ["--image_path", images / "val" / "a"]
    names = images / "names.txt"
    names.write_text("a\nb\n")
    if script == "infer.py":
        where += ["--class_names_file", names, "--num_classes", 2, "--explain", "gradcam", "--explain_stage", 2]
    where += ["--output", images / "a.npz"] if script == "tools/extract_features.py" else []
    where += ["--output_dir", images / "out"] if script == "tools/analyze.py" else []
    argv = ["--ckpt_path", "a.ckpt", "--mode", 1, "--image_resize", 32, "--ema", True, *where]
    read = options_read(script, list(map(str, argv)), monkeypatch)
    if script == "validate.py":
        argv += ["--val_fraction", 0.5, "--train_split", "val"]
        read |= options_read(script, list(map(str, argv)), monkeypatch)
        argv += ["--probe", "knn", "--probe_k", 2]
        read |= options_read(script, list(map(str, argv)), monkeypatch)
    if script == "tools/analyze.py":  # read with weights to compare with only, for which the configuration is copied
        read |= {"compare_model"} & set(names_in("mindcv/recipe_analysis.py"))
    # Results are written at the end.
    read |= set(CLASSES[script].outputs) & set(names_in("mindcv/recipe_validate.py", "tools/analyze.py"))
    used = used_options(CLASSES[script]).keys() - {"config"}
    assert used - read == set(), "accepted, but never read"
    assert (read & options_of(CLASSES[script]).keys()) - used <= TRAINING_OF_A_NETWORK | {"config"}, (
        "read, not accepted"
    )


def test_training_reads_every_option_it_accepts():
    read = set(
        names_in(
            *("train.py", "mindcv/resume.py"),
            *(f"mindcv/recipe{part}.py" for part in ("", "_weights", "_checks", "_data", "_callbacks")),
        )
    )
    unread = used_options(TrainConfig).keys() - read - set(PREPROCESSING)
    assert unread == set(), "accepted, but never read"


def test_export_reads_every_option_it_accepts():
    parts = ("", "_weights", "_classes", "_export")
    read = set(names_in("tools/export.py", *(f"mindcv/recipe{part}.py" for part in parts)))
    unread = used_options(ExportConfig).keys() - {"config", *PREPROCESSING} - read
    assert unread == set(), "accepted, but never read"


@pytest.mark.parametrize(
    ("config_class", "option", "example"),
    [
        (ExportConfig, "dst", "for example --dst model.onnx"),
        (AverageConfig, "dst", "for example --dst mean.ckpt"),
        (ExtractConfig, "image_path", "give the folder of the images"),
        (AnalyzeConfig, "image_path", "give the folder of the images"),
    ],
)
def test_missing_option_is_told_with_an_example_that_the_script_takes(config_class, option, example):
    with pytest.raises(ConfigError) as error:
        parse_args([], config_class)
    (problem,) = [each for each in error.value.problems if each.startswith(f"{option}: is required")]
    assert example in problem and problem.count("for example") == 1
