"""The options are compared with MindCV's table of flags, and every mistake of a user gets its message."""

import ast
import csv
from dataclasses import replace
from pathlib import Path

import pytest

from mindcv.config import InferConfig, RunConfig, TrainConfig, ValidateConfig, parse_args
from mindcv.config.parsing import options_of, used_options
from mindcv.optim import create_optimizer, weight_decay_groups
from mindcv.scheduler import create_scheduler
from mindcv.utils.errors import ConfigError

FLAGS = Path(__file__).parents[1] / "data" / "reference" / "mindcv_flags.csv"
MODEL = ["--model", "convnext_tiny"]
# Decision 0038 says why these defaults are not MindCV's.
OWN_DEFAULTS = {"device_target": "auto", "model": "", "weight_decay_filter": "auto", "std": [58.395, 57.12, 57.375]}
TEXT_IF_BLANK = ("config", "ckpt_path")


def problems(*argv, config_class=RunConfig):
    with pytest.raises(ConfigError) as caught:
        parse_args(list(argv), config_class)
    assert str(caught.value) == "\n".join(caught.value.problems)
    return caught.value.problems


def recipe(tmp_path, text):
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return ["-c", str(path)]


def mindcv_default(row):
    if row["default"] == "":
        return "" if row["flag"] in TEXT_IF_BLANK else None
    try:
        return ast.literal_eval(row["default"])
    except (ValueError, SyntaxError):
        return row["default"]


def test_options_have_the_flags_and_defaults_of_mindcv():
    with FLAGS.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 87
    options, config = options_of(RunConfig), RunConfig()
    for row in rows:
        name = row["flag"]
        expected = OWN_DEFAULTS.get(name, mindcv_default(row))
        assert getattr(config, name) == expected, name
        assert type(getattr(config, name)) is type(expected), name
        assert options[name].help
        if row["choices"]:
            assert set(row["choices"].split("|")) <= set(options[name].choices), name
    assert not {row["flag"] for row in rows} - set(options)


def test_options_have_defaults_that_pass_their_own_checks():
    config = parse_args(MODEL)
    assert config == replace(RunConfig(), model="convnext_tiny")
    assert config.given == {"model": "command line"}
    for config_class in (RunConfig, TrainConfig, ValidateConfig, InferConfig):
        for option in options_of(config_class).values():
            assert option.within(option.default), option.name


def test_configs_do_not_share_lists():
    parse_args(MODEL).mean.append(1.0)
    assert len(parse_args(MODEL).mean) == 3


MINDCV_LIKE = """\
# system
mode: 0
distribute: True
val_while_train: yes
# dataset
dataset: 'ImageNet'
data_dir: "/data/imagenet"
num_samples: None
batch_size: 1.5e2
# augmentation
image_resize: 224.0
scale: [0.08, 1]
ratio: (0.75, 1.333)
color_jitter: [0.4, 0.4, 0.4]
auto_augment: "randaug-m9-mstd0.5-inc1"
re_value: "random"
# model
model: 'convnext_tiny'
num_classes: '1000'
drop_rate: null
drop_path_rate: 0.1
ckpt_path:
# training
opt: 'adamW'
weight_decay: '1e-5'
lr: 1e-3
min_lr: 1e-7
loss: 'ce'
amp_level: 'o2'
loss_scale_type: 'Dynamic'
multi_step_decay_milestones: [30, 6e1, "90"]
cycle_decay: 1
"""


def test_parse_args_reads_a_recipe_in_the_spelling_of_mindcv(tmp_path):
    config = parse_args(recipe(tmp_path, MINDCV_LIKE))
    expected = {
        "mode": 0,
        "distribute": True,
        "val_while_train": True,
        "dataset": "imagenet",
        "data_dir": "/data/imagenet",
        "num_samples": None,
        "batch_size": 150,
        "image_resize": 224,
        "scale": (0.08, 1.0),
        "ratio": (0.75, 1.333),
        "color_jitter": [0.4, 0.4, 0.4],
        "auto_augment": "randaug-m9-mstd0.5-inc1",
        "re_value": "random",
        "model": "convnext_tiny",
        "num_classes": 1000,
        "drop_rate": None,
        "drop_path_rate": 0.1,
        "ckpt_path": "",
        "opt": "adamw",
        "weight_decay": 1e-5,
        "lr": 1e-3,
        "min_lr": 1e-7,
        "loss": "CE",
        "amp_level": "O2",
        "loss_scale_type": "dynamic",
        "multi_step_decay_milestones": [30, 60, 90],
        "cycle_decay": 1.0,
    }
    actual = config.as_dict()
    for name, value in expected.items():
        assert (actual[name], type(actual[name])) == (value, type(value)), name
    assert config.given.keys() == {"config", *expected}
    untouched = actual.keys() - config.given.keys()
    assert {name: actual[name] for name in untouched} == {name: getattr(RunConfig(), name) for name in untouched}


def test_parse_args_prefers_command_line_to_yaml_and_yaml_to_default(tmp_path):
    path = recipe(tmp_path, "model: a\nlr: 0.5\nepoch_size: 7\n")
    config = parse_args([*path, "--lr", "0.25"])
    assert (config.lr, config.epoch_size, config.batch_size) == (0.25, 7, 128)
    assert parse_args(["--lr", "0.25", *path]).lr == 0.25
    assert parse_args([*path, "--lr", "0.25", "--lr=0.125"]).lr == 0.125
    sources = {line.split()[0]: line.split("  ")[-1].strip() for line in config.described().splitlines()}
    assert sources.keys() == config.as_dict().keys()
    assert (sources["lr"], sources["epoch_size"], sources["batch_size"]) == ("command line", f"{path[1]}:3", "default")
    (line,) = (line for line in config.described().splitlines() if line.startswith("lr "))
    assert line.split()[1] == "0.25"


@pytest.mark.parametrize(
    ("argv", "name", "expected"),
    [
        (["--lr", "1e-5"], "lr", 1e-5),
        (["--lr=1e-5"], "lr", 1e-5),
        (["--batch_size", "1e3"], "batch_size", 1000),
        (["--batch_size=3.0"], "batch_size", 3),
        (["--distribute"], "distribute", True),
        (["--distribute", "False"], "distribute", False),
        (["--shuffle=no"], "shuffle", False),
        (["--scale", "0.5", "1"], "scale", (0.5, 1.0)),
        (["--scale", "0.5,1.0"], "scale", (0.5, 1.0)),
        (["--scale", "[0.5, 1.0]"], "scale", (0.5, 1.0)),
        (["--scale", "[0.5,", "1.0]"], "scale", (0.5, 1.0)),
        (["--scale=(0.5, 1)"], "scale", (0.5, 1.0)),
        (["--scale", "1", "1"], "scale", (1.0, 1.0)),
        (["--recompute_stages", "0", "3"], "recompute_stages", [0, 3]),
        (["--recompute_stages", "3"], "recompute_stages", [3]),
        (["--recompute_stages", "[]"], "recompute_stages", []),
        (["--color_jitter", "0.2"], "color_jitter", 0.2),
        (["--color_jitter", "0.2,0.3,0.4,0.1"], "color_jitter", [0.2, 0.3, 0.4, 0.1]),
        (["--color_jitter", "None"], "color_jitter", None),
        (["--re_value", "0"], "re_value", 0),
        (["--re_value", "Random"], "re_value", "random"),
        (["--re_value", "1", "2", "3.5"], "re_value", [1.0, 2.0, 3.5]),
        (["--auto_augment", "rand-m9-mstd0.5-inc1"], "auto_augment", "rand-m9-mstd0.5-inc1"),
        (["--auto_augment", "null"], "auto_augment", None),
        (["--auto_augment="], "auto_augment", None),
        (["--ckpt_path="], "ckpt_path", ""),
        (["--ckpt_path", "a=b.ckpt"], "ckpt_path", "a=b.ckpt"),
        (["--ckpt_path=a=b.ckpt"], "ckpt_path", "a=b.ckpt"),
        (["--dataset="], "dataset", ""),
        (["--num_classes", "none"], "num_classes", None),
        (["--device_target", "ascend"], "device_target", "Ascend"),
        (["--amp_level", "O1", "--amp_cast_list", "['Conv2d', 'Dense']"], "amp_cast_list", ["Conv2d", "Dense"]),
        (["--in_channels", "1", "--mean", "128", "--std", "64"], "mean", [128.0]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) and value and isinstance(value[0], str) else None,
)
def test_parse_args_accepts_all_spellings_on_the_command_line(argv, name, expected):
    value = getattr(parse_args([*MODEL, *argv]), name)
    assert (value, type(value)) == (expected, type(expected))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--modle", "x"], "--modle: there is no option 'modle'; did you mean 'model'?"),
        (["--batch", "3"], "--batch: there is no option 'batch'; did you mean 'batch_size'?"),
        (["--batch_size", "3.5"], "--batch_size: expected a whole number, at least 1, got '3.5'"),
        (["--batch_size", "0"], "--batch_size: expected a whole number, at least 1, got '0'"),
        (["--batch_size", "True"], "--batch_size: expected a whole number"),
        (["--batch_size", "3", "4"], "--batch_size: expected a whole number, at least 1, got '3 4'"),
        (["--batch_size"], "--batch_size: a value is missing, expected a whole number, at least 1"),
        (["--batch_size", "1e999"], "--batch_size: expected a whole number"),
        (["--lr", "0,001"], "got '0,001'; write 0.001"),
        (["--lr", "1e-3,"], "got '1e-3,'; write 1e-3"),
        (["--lr_rate", "1"], "--lr_rate: there is no option 'lr_rate'; did you mean 'lr'?"),
        (["--learning_rate", "1"], "--learning_rate: there is no option 'learning_rate'; did you mean 'lr'?"),
        (["-b", "32"], "-b: options start with two dashes ('--'); there is no option 'b'; did you mean 'batch_size'?"),
        (["--device_target", "cuda"], "got 'cuda'; did you mean 'GPU'?"),
        (["--loss", "cross_entropy"], "got 'cross_entropy'; did you mean 'CE'?"),
        (["\u2013lr", "0.1"], "\u2013lr: options start with two dashes ('--'); write '--lr 0.1'"),
        (["\u2013-lr", "0.1"], "write '--lr 0.1'"),
        (["--lr", "=", "0.1"], "--lr: write '--lr=0.1' without spaces around '='"),
        (["--label_smoothing", "10"], "got '10'; for 10 percent write 0.1"),
        (["--drop_path_rate", "20"], "got '20'; for 20 percent write 0.2"),
        (["--amp_dtype", "fp16"], "got 'fp16'; did you mean 'float16'?"),
        (["--resume"], "--resume: a value is missing, expected text (interrupted run to resume: a file, a folder"),
        (["--lr", "fast"], "--lr: expected a number, above 0, got 'fast'"),
        (["--lr", "0"], "--lr: expected a number, above 0"),
        (["--lr", "nan"], "--lr: expected a number"),
        (["--lr", "inf"], "--lr: expected a number"),
        (["--mean", "nan", "1", "1"], "--mean: expected a list of numbers, at least 0 and at most 255, got 'nan 1 1'"),
        (["--lr", "None"], "--lr: expected a number"),
        (["--distribute", "maybe"], "--distribute: expected true or false, got 'maybe'"),
        (["--opt", "adamww"], "got 'adamww'; did you mean 'adamw'?"),
        (["--opt", "adamww"], "--opt: expected one of sgd, momentum, adam, adamw, nadam"),
        (["--mode", "2"], "--mode: expected one of 0, 1, got '2'"),
        (["--re_value", "noise"], "or text (random, pixel, rand)"),
        (["--scale", "0.5"], "--scale: expected 2 numbers"),
        (["--scale", "0.5", "0.7", "0.9"], "--scale: expected 2 numbers"),
        (["--scale", "0.9", "0.5"], "scale: the first number is above the second"),
        (["--ratio", "1.5,0.5"], "ratio: the first number is above the second"),
        (["--cutmix_minmax", "0.8", "0.2"], "cutmix_minmax: the first number is above the second"),
        (
            ["--batch_size", "128", "--mixup_group_size", "96"],
            "mixup_group_size: must divide batch_size, which is 128, got 96: images are mixed within one batch only",
        ),
        (["--mixup_group_size", "0"], "--mixup_group_size: expected a whole number or None, at least 1, got '0'"),
        (["--betas", "0.9"], "needs 2 numbers, got 1"),
        (["--opt", "adan", "--betas", "0.9", "0.99"], "betas: opt 'adan' needs 3 numbers, got 2"),
        (["--opt", "sgd", "--betas", "0.9", "0.99"], "betas: opt 'sgd' has no betas"),
        (["--in_channels", "4"], "--in_channels: expected one of 1, 3, got '4'"),
        (["--hflip", "50"], "got '50'; for 50 percent write 0.5"),
        (["--scale", "0", "1"], "--scale: expected 2 numbers, above 0"),
        (["--hflip", "1.5"], "--hflip: expected a number, at least 0 and at most 1"),
        (["--cutmix_prob", "-0.1"], "--cutmix_prob: expected a number, at least 0 and at most 1"),
        (["--crop_pct", "0"], "--crop_pct: expected a number, above 0 and at most 1"),
        (["--crop_pct", "1.01"], "--crop_pct"),
        (["--crop_pct", "95"], "got '95'; for 95 percent write 0.95"),
        (["--image_resize", "31"], "--image_resize: expected a whole number, at least 32"),
        (["--epoch_size", "0"], "--epoch_size"),
        (["--keep_checkpoint_max", "0"], "--keep_checkpoint_max"),
        (["--drop_path_rate", "1"], "--drop_path_rate"),
        (["--label_smoothing", "1"], "--label_smoothing"),
        (["--weight_decay", "-1"], "--weight_decay"),
        (["--recompute_stages", "4"], "--recompute_stages"),
        (["--color_jitter", "0.1,0.2"], "color_jitter: a list needs 3 numbers"),
        (["--mean", "1", "2"], "mean: needs one number for each of in_channels"),
        (["--in_channels", "1"], "std: needs one number for each of in_channels"),
        (["--re_value", "1,2"], "re_value: a list needs one number for each of in_channels"),
        (["--ckpt_save_policy", "top_k"], "ckpt_save_policy: top_k keeps the checkpoints that validate best"),
        (["--ckpt_save_dir", ""], "ckpt_save_dir: is empty"),
        (["--scheduler", "one_cycle"], "scheduler: one_cycle and cyclic need warmup_epochs: 0"),
        (["--scheduler", "one_cycle", "--warmup_epochs", "0", "--min_lr", "0"], "min_lr: one_cycle ends at this rate"),
        (["--lr", "1e-7"], "min_lr: is above lr"),
        (["--multi_step_decay_milestones", "60", "30"], "multi_step_decay_milestones: the epochs must be in rising"),
        (["--opt", "adamw", "--use_nesterov"], "use_nesterov: only sgd, momentum, adam and nadam"),
        (["--opt", "sgd", "--use_nesterov", "--momentum", "0"], "use_nesterov: opt 'sgd' needs a momentum above 0"),
        (["--amp_cast_list", "Dense"], "amp_cast_list: is used with amp_level: O1 only"),
        (["--filter_bias_and_bn"], "'filter_bias_and_bn' is now weight_decay_filter"),
        (["--dynamic_loss_scale", "True"], "'dynamic_loss_scale' is now loss_scale_type ('dynamic'"),
        (["-c", "a.yaml", "b.yaml"], "--config: expected text, got 'a.yaml b.yaml'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_parse_args_names_a_problem_on_the_command_line(argv, message):
    found = problems(*MODEL, *argv)
    assert any(message in problem for problem in found), found


def test_parse_args_names_a_flag_without_its_dashes():
    assert problems(*MODEL, "--lr", "0.1", "dataset=cifar10", "-seed", "3", "-lrr=2") == [
        "command line: 'dataset=cifar10' belongs to no flag; write '--dataset=cifar10'",
        "-seed: options start with two dashes ('--'); write '--seed 3'",
        "-lrr: options start with two dashes ('--'); there is no option 'lrr'; did you mean 'lr'?",
    ]
    assert parse_args([*MODEL, "--data_dir", "a=b"]).data_dir == "a=b"


def test_parse_args_refuses_a_word_that_belongs_to_no_flag():
    assert problems("train", *MODEL) == [
        "command line: 'train' belongs to no flag; a value follows the name of its option, as in '--option train'"
    ]
    assert problems("configs/a.yaml", *MODEL) == [
        "command line: 'configs/a.yaml' belongs to no flag; a recipe is given as '--config configs/a.yaml'"
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("modle: x", ":1: modle: there is no option 'modle'; did you mean 'model'?"),
        ("mode: 0\nlr: 1\nlr: 2", ":3: lr: given twice, first at "),
        ("mode: 0\nbatch_size: 3.5", ":2: batch_size: expected a whole number, at least 1, got 3.5"),
        ("batch_size: True", "batch_size: expected a whole number"),
        ("batch_size:", "batch_size: expected a whole number, at least 1, got None"),
        ("distribute: 2", "distribute: expected true or false, got 2"),
        ("data_dir: 2012", "data_dir: expected text, got 2012"),
        ("data_dir: [a, b]", "data_dir: expected text, got ['a', 'b']"),
        ("lr: {a: 1}", "lr: expected a number, above 0, got {'a': 1}"),
        ("scale: {a: 1, b: 2}", "scale: expected 2 numbers"),
        ("scale: True", "scale: expected 2 numbers"),
        ("scale: [0.5, x]", "scale: expected 2 numbers, above 0, got [0.5, 'x']"),
        ("filter_bias_and_bn: True", "'filter_bias_and_bn' is now weight_decay_filter"),
        ("config: other.yaml", "a YAML file cannot name another"),
        ("given: x", "there is no option 'given'"),
        ("- lr\n- 3", "the file holds a list; expected lines of the form 'key: value'"),
        ("", "the file holds no options; expected lines of the form 'key: value'"),
        ("# only a comment\n", "the file holds no options; expected lines of the form 'key: value'"),
        ("lr", "the file holds a single value; expected lines of the form 'key: value'"),
        ("lr:\t0.1\n\tmode: 0", "not valid YAML in line 1, column 4: a tab stands where YAML allows spaces only"),
        ("lr: [1, 2", "not valid YAML"),
        ("lr: 1\n  mode: 0", "line 2"),
        ("lr: !!python/object:os.system x", "not valid YAML"),
        ("lr: 1\n---\nlr: 2", "not valid YAML"),
    ],
)
def test_parse_args_names_a_problem_in_the_yaml_file(tmp_path, text, message):
    argv = recipe(tmp_path, text)
    found = problems(*argv, *MODEL)
    assert len(found) == 1
    assert message in found[0]
    assert argv[1] in found[0]


def test_parse_args_names_a_yaml_file_that_cannot_be_read(tmp_path):
    assert problems("-c", str(tmp_path / "no.yaml"), *MODEL)[0].endswith("no.yaml': No such file or directory")
    assert "Is a directory" in problems("-c", str(tmp_path), *MODEL)[0]
    path = tmp_path / "latin.yaml"
    path.write_bytes(b"model: caf\xe9")
    assert "not text in UTF-8" in problems("-c", str(path), *MODEL)[0]


def test_parse_args_suggests_existing_files_when_the_yaml_file_is_missing(tmp_path, monkeypatch):
    (tmp_path / "configs" / "convnext").mkdir(parents=True)
    for name in ("tiny.yaml", "base.yaml"):
        (tmp_path / "configs" / "convnext" / name).write_text("lr: 1\n")
    (tmp_path / "own.yaml").write_text("lr: 1\n")
    monkeypatch.chdir(tmp_path)
    assert problems("-c", "ow.yaml")[0].endswith("; did you mean 'own.yaml'?")
    assert problems("-c", "own")[0].endswith("; did you mean 'own.yaml'?")
    assert problems("-c", "tiny.yaml")[0].endswith("; did you mean 'configs/convnext/tiny.yaml'?")
    assert problems("-c", "configs/convnextv2/tiny.yaml")[0].endswith("; did you mean 'configs/convnext/tiny.yaml'?")
    assert problems("-c", "configs/convnext")[0].endswith("Is a directory (it holds base.yaml, tiny.yaml)")
    assert problems("-c", "nothing_like_it.yaml")[0].endswith("No such file or directory")


def test_parse_args_replaces_weights_of_the_recipe_by_those_of_the_command_line(tmp_path):
    path = recipe(tmp_path, "model: convnext_tiny\npretrained: True\n")
    config = parse_args([*path, "--ckpt_path", "a.ckpt"], ValidateConfig)
    assert (config.pretrained, config.ckpt_path) == (False, "a.ckpt")
    assert config.warnings == (
        f"{path[1]}:2: pretrained: the weights of the command line (--ckpt_path) replace pretrained True",
    )
    path = recipe(tmp_path, "model: convnext_tiny\nckpt_path: a.ckpt\npretrained: False\n")
    config = parse_args([*path, "--pretrained"], TrainConfig)
    assert (config.pretrained, config.ckpt_path, len(config.warnings)) == (True, "", 1)
    assert parse_args([*path, "--ckpt_path", "b.ckpt"], TrainConfig).warnings == ()


def test_parse_args_reports_all_problems_at_once(tmp_path):
    argv = recipe(tmp_path, "modle: x\nopt: lamb\nlr: fast\nepoch_size: 3\nepoch_size: 4\n")
    found = problems("stray", *argv, "--batch_size", "0", "--ema", "maybe", "--seed", "--scale", "1", "0.5", "--x", "1")
    fragments = ("stray", "modle", "lr: exp", "given twice", "--batch_size", "--ema", "--seed", "scale:", "'x'")
    for fragment in fragments:
        assert sum(fragment in problem for problem in found) == 1, fragment
    assert any(problem.startswith("model: is required") for problem in found)
    assert len(found) == 10


def test_parse_args_reports_an_option_of_a_wrong_type_once(tmp_path):
    """An option that depends on the wrong one is not checked against the default value of that option."""
    path = recipe(tmp_path, "model: [a]\nckpt_save_policy: top_k\nval_while_train: 7\n")
    assert len(problems(*path)) == 2


def test_parse_args_accepts_pretrained_in_place_of_a_checkpoint():
    assert parse_args([*MODEL, "--pretrained"], ValidateConfig).pretrained
    assert parse_args([*MODEL, "--pretrained", "--image_path", "cats"], InferConfig).ckpt_path == ""
    assert problems("--pretrained", config_class=ValidateConfig) == [
        "model: is required, since it names the published weights"
    ]
    (found,) = problems(*MODEL, config_class=ValidateConfig)
    assert found.startswith("ckpt_path: is required")
    assert found.endswith("--model NAME --pretrained True for published ones")
    (found,) = problems(*MODEL, "--pretrained", "--ckpt_path", "a.ckpt")
    assert found == "pretrained: give either pretrained or ckpt_path, since each names the weights to load"
    assert parse_args([*MODEL, "--pretrained", "--ckpt_path", "a.ckpt", "--resume_opt"], TrainConfig)


@pytest.mark.parametrize("name", ["mnist", "CIFAR10", "cifar100"])
def test_parse_args_accepts_dataset_download_for_sets_that_can_be_downloaded(name):
    config = parse_args([*MODEL, "--dataset", name, "--dataset_download", "True"])
    assert config.dataset_download and config.dataset == name.lower()


@pytest.mark.parametrize("name", ["imagenet", "", "folder", "digits"])
def test_parse_args_refuses_dataset_download_for_other_sets(name):
    found = problems(*MODEL, "--dataset", name, "--dataset_download")
    assert found == ["dataset_download: only the data sets mnist, cifar10, cifar100 can be downloaded"]


def test_parse_args_says_how_to_get_fashion_mnist_instead_of_downloading_it():
    (found,) = problems(*MODEL, "--dataset", "fashion_mnist", "--dataset_download")
    assert found.startswith("dataset_download: fashion_mnist cannot be downloaded: install Debian's package dataset-")


CKPT = ("--ckpt_path", "a.ckpt")


def test_parse_args_accepts_the_options_of_each_script():
    config = parse_args([*CKPT, "--results_json", "a.json"], ValidateConfig)
    assert (config.results_json, config.per_class_csv) == ("a.json", "")
    config = parse_args([*CKPT, "--image_path", "cats", "--top_k", "3", "--results_file", "x.CSV"], InferConfig)
    assert (config.image_path, config.top_k, config.results_file) == (["cats"], 3, "x.CSV")
    words = ["--image_path", "a, b.png", "c d.png", "-e.png"]
    assert parse_args([*CKPT, *words], InferConfig).image_path == words[1:], "file names are not cut at commas"
    own = ["image_path", "top_k", "results_file", "picture", "class_names_file"]
    assert list(config.as_dict())[: len(own)] == own
    assert [found.partition(";")[0] for found in problems(config_class=InferConfig)] == [
        "ckpt_path: is required",
        "image_path: is required",
    ]
    assert problems(*CKPT, config_class=InferConfig)[0].endswith(
        "; give --image_path with one or more files, folders or patterns, for example --image_path photos"
    )
    found = problems(*CKPT, "--image_path", "x", "--results_file", "x.txt", config_class=InferConfig)
    assert found == ["results_file: its name must end in .csv or .json"]
    assert problems(*MODEL, "--top_k", "3", config_class=TrainConfig) == [
        "--top_k: train.py does not use this option; it belongs to infer.py"
    ]


def test_parse_args_reports_only_the_recipe_when_it_is_unreadable():
    assert problems("--config", "nowhere.yaml") == ["--config: cannot read 'nowhere.yaml': No such file or directory"]


def test_parse_args_suggests_no_file_that_shares_only_the_suffix(tmp_path):
    (tmp_path / "flip_a.yaml").touch()
    (told,) = problems("--config", str(tmp_path / "none_b.yaml"))
    assert told.endswith("No such file or directory")
    (told,) = problems("--config", str(tmp_path / "flip_b.yaml"))
    assert told.endswith(f"; did you mean '{tmp_path}/flip_a.yaml'?")


def test_parse_args_refuses_top_k_for_epochs_without_validation():
    argv = ["--ckpt_save_policy", "top_k", "--val_while_train", "--val_interval", "2"]
    assert "multiple of val_interval" in problems(*MODEL, *argv)[0]
    assert parse_args([*MODEL, *argv, "--ckpt_save_interval", "4"]).ckpt_save_interval == 4


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--aug_splits", "3"], "loss JSD"),
        (["--loss", "jsd"], "loss JSD"),
        (["--warmup_lr", "1e-6", "--warmup_factor", "0.1"], "not both"),
        (["--teacher_model", "convnext_base"], "teacher_ckpt_path"),
        (["--early_stopping_patience", "3"], "val_while_train"),
        (["--resume", "auto", "--resume_opt", "--ckpt_path", "a.ckpt"], "resume_opt: cannot stand beside resume"),
        (["--resume_opt"], "needs ckpt_path"),
        (["--mode", "1", "--jit_level", "O1"], "is used in graph mode (mode 0) only"),
        (["--mode", "1", "--compile_cache_dir", "cache"], "compile_cache_dir: is used in graph mode"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_parse_args_refuses_an_option_without_the_option_that_it_needs(argv, message):
    (problem,) = problems(*MODEL, *argv)
    assert message in problem


def test_completed_takes_options_that_are_not_given_from_the_checkpoint():
    config = parse_args([*CKPT, "--crop_pct", "0.9"], ValidateConfig)
    held = {"model": "convnext_atto", "num_classes": 7, "crop_pct": 0.8, "mean": [1.0, 2.0, 3.0]}
    completed = config.completed(held)
    assert completed.subset("model", "num_classes", "mean") == {k: held[k] for k in ("model", "num_classes", "mean")}
    assert completed.crop_pct == 0.9
    assert config.model == ""
    with pytest.raises(ConfigError, match="does not name one"):
        config.completed({})


def test_parse_args_needs_no_model_when_a_run_is_resumed():
    for argv in (["--resume", "auto"], ["--resume", "folder"], ["--resume_opt", "--ckpt_path", "a.ckpt"]):
        assert parse_args(argv, TrainConfig).model == ""
    (found,) = problems("--ckpt_path", "a.ckpt", config_class=TrainConfig)
    assert found.startswith("model: is required; give --model NAME")


def test_completed_keeps_options_of_the_saved_run_that_are_not_given():
    """The options of a saved run come from JSON, where a tuple is a list."""
    config = parse_args(["--resume", "auto", "--lr", "0.5"], TrainConfig)
    before = parse_args([*MODEL, "--lr", "0.1", "--mixup", "0.8", "--scale", "0.5", "1"], TrainConfig)
    completed = config.completed({**before.as_dict(), "resume": ""})
    assert (completed.lr, completed.mixup, completed.scale, completed.model) == (0.5, 0.8, (0.5, 1.0), before.model)
    assert completed.resume == "auto" and config.mixup == 0


def test_help_names_every_option(capsys):
    with pytest.raises(SystemExit) as caught:
        parse_args(["--lr", "bad", "--help"], InferConfig)
    assert caught.value.code == 0
    text = capsys.readouterr().out
    words, options = " ".join(text.split()), used_options(InferConfig)
    for option in options.values():
        assert words.count(f"--{option.name}: {option.help}") == 1
    assert "; required, unless pretrained is on)" in words.partition("--ckpt_path: ")[2].partition(" --")[0]
    assert words.partition("--image_path: ")[2].partition(" --")[0].endswith("; required)")
    headings = [line for line in text.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert len(headings) == len(set(headings)) == len({option.group for option in options.values()})


def test_choices_of_options_are_accepted_by_the_factories():
    import mindspore as ms
    from mindspore import Parameter, Tensor

    params = [Parameter(Tensor([[1.0]], ms.float32), name="w")]
    options = options_of(RunConfig)
    for name in options["opt"].choices:
        assert create_optimizer(params, name, nesterov=False)
    for name in options["scheduler"].choices:
        assert len(create_scheduler(2, name, warmup_epochs=0, num_epochs=3)) == 6
    for rule in options["weight_decay_filter"].choices:
        assert weight_decay_groups(params, 0.1, rule)


@pytest.mark.parametrize(
    ("argv", "way_out"),
    [
        (["--teacher_model", "convnext_atto", "--teacher_ckpt_path", "a.onnx"], "give the checkpoint that it was"),
        (["--pretrained_encoder", "a.onnx"], "give the checkpoint that it was"),
        (["--resume", "a.onnx"], "give the folder of the run"),
    ],
)
def test_parse_args_refuses_exported_files_that_training_would_start_from(argv, way_out):
    with pytest.raises(ConfigError) as error:
        parse_args(["--model", "convnext_atto", "--data_dir", ".", *argv], TrainConfig)
    assert f"{argv[-2][2:]}: 'a.onnx' is an exported file, which training cannot start from: {way_out}" in str(
        error.value
    )
