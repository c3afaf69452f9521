"""Every field of a config is documented, every number has bounds, old names are accepted."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any, get_type_hints

import pytest

from c2c_jax.cli.main import main
from c2c_jax.cli.recipe import read_config
from c2c_jax.config import Config, DataConfig, ImagesConfig, MemoryConfig, TranslatorConfig, check_fields
from c2c_jax.errors import ConfigError
from c2c_jax.old_names import RENAMED, upgraded
from c2c_jax.training.check import check
from c2c_jax.training.objectives import OBJECTIVES
from c2c_jax.translator.kinds import KINDS
from tests.fixtures.programs import ROOT


def fields_of(node: Any, prefix: str = "") -> Iterator[tuple[str, type, dataclasses.Field]]:
    kinds = get_type_hints(type(node))
    for field in dataclasses.fields(node):
        value = getattr(node, field.name)
        if dataclasses.is_dataclass(value):
            yield from fields_of(value, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, kinds[field.name], field


FIELDS = {path: (kind, field) for path, kind, field in fields_of(Config())}
NUMBERS = [path for path, (kind, _) in FIELDS.items() if kind in (int, float)]


def changed(path: str, value: object) -> Config:
    config = Config()
    *nodes, name = path.split(".")
    node = config
    for parent in nodes:
        node = getattr(node, parent)
    setattr(node, name, value)
    return config


def test_every_field_is_documented_and_every_number_has_bounds():
    own = [kind.Settings for kind in KINDS.values()]
    for name, field in [
        *((path, field) for path, (_, field) in FIELDS.items()),
        *((f"{cls}.{field.name}", field) for cls in (*own, *OBJECTIVES.values()) for field in dataclasses.fields(cls)),
    ]:
        assert field.metadata["help"].endswith("."), name
        if isinstance(field.default, int | float) and not isinstance(field.default, bool):
            assert {"gt", "ge"} & set(field.metadata) and {"lt", "le"} & set(field.metadata), name


def test_recipes_lie_within_bounds():
    for recipe in sorted((ROOT / "configs").glob("*.py")):
        config = check(read_config(str(recipe), []))
        assert config.objective.settings or config.objective.kind == "l2"


@pytest.mark.parametrize("path", NUMBERS)
def test_values_out_of_bounds(path):
    kind, _ = FIELDS[path]
    bad = [-2, 10**12, 10**5000, "7", None, True, [], {}]
    bad += [1.5] if kind is int else [math.nan, math.inf, -math.inf]
    for value in bad:
        with pytest.raises(ConfigError, match=f"config.{path} is .*; it must be") as caught:
            check_fields(changed(path, value))
        assert len(str(caught.value)) < 150


@pytest.mark.parametrize("path", NUMBERS)
def test_values_at_the_bounds(path):
    (kind, field), step = FIELDS[path], 1 if FIELDS[path][0] is int else 1e-3
    low, high = (field.metadata.get(name) for name in ("ge", "le"))
    above, below = (field.metadata.get(name) for name in ("gt", "lt"))
    for value in (step if low is None else low, below - step if high is None else high):
        check_fields(changed(path, kind(value)))
    for value in (above if low is None else low - step, below if high is None else high + step):
        with pytest.raises(ConfigError, match=f"config.{path} is"):
            check_fields(changed(path, kind(value)))


def test_other_types_and_sizes_together():
    for path, value in (("source", 5), ("images.calibrate", 1), ("select_by", None)):
        with pytest.raises(ConfigError, match=f"config.{path} is {value}; "):
            check_fields(changed(path, value))
    config = Config(translator=TranslatorConfig(settings={"width": 2**14, "depth": 3}))
    with pytest.raises(ConfigError, match="exceed 536,870,912 parameters"):
        check(config)


@pytest.mark.parametrize("value", ["1" + "0" * 5000, "abc", "1.5", "", "nan"])
def test_invalid_flags_are_one_line(value):
    with pytest.raises(ConfigError, match="seed") as caught:
        read_config(str(ROOT / "configs" / "mlp.py"), [f"--config.seed={value}"])
    assert len(str(caught.value)) < 400 and "\n" not in str(caught.value)


def test_settings_by_flags():
    flags = [
        "--config.translator.settings.width=32", "--config.objective.settings.margin_growth=.5",
        "--config.objective.settings.remat=true",
    ]  # fmt: skip
    config = check(read_config(str(ROOT / "configs" / "mlp.py"), flags))
    assert config.translator.settings == {"width": 32, "depth": 4}
    assert config.objective.settings["margin_growth"] == 0.5 and config.objective.settings["remat"] is True
    with pytest.raises(ConfigError, match="config.translator.settings.width is 'x'; it must be of type int"):
        check(read_config(str(ROOT / "configs" / "mlp.py"), ["--config.translator.settings.width=x"]))


def test_another_kind_keeps_the_settings_that_it_has():
    residual = str(ROOT / "configs" / "residual.py")
    assert check(read_config(residual, ["--config.translator.kind=ridge"])).translator.settings == {"penalty": 1e-3}
    flags = ["--config.translator.kind=mlp", "--config.translator.settings.depth=3", "--config.objective.kind=l2"]
    config = check(read_config(residual, flags))
    assert config.translator.settings == {"width": 2048, "depth": 3} and config.objective.settings == {}


def test_old_names(caplog):
    """In recipes, flags and saved configs."""
    config = Config(
        pictures=ImagesConfig(files="x"), groups=4, data=DataConfig(holdout=7, feed="streamed"),
        translator=TranslatorConfig(kind="residual", start="procrustes", depth=0), memory=MemoryConfig(captions=3),
    )  # fmt: skip
    config.memory.share, config.objective.twin_cosine = 0.25, 0.5
    assert config == Config(
        images=ImagesConfig(files="x"), data=DataConfig(validation_size=7, loader="streamed"),
        translator=TranslatorConfig(kind="residual", settings={"init": "procrustes"}),
        memory=MemoryConfig(size=3, weight=0.25), objective=config.objective,
    )  # fmt: skip
    assert config.objective.settings == {"false_negative_threshold": 0.5} and config.memory.share == 0.25
    flags = [
        "--config.augment.noise=0.5",
        "--config.groups=8",
        "--config.translator.width=9",
        "--config.pictures.files=y",
    ]
    config = read_config(str(ROOT / "configs" / "mlp.py"), flags)
    assert (config.augment.noise_cosine, config.translator.settings, config.images.files) == (0.5, {"width": 9}, "y")
    assert "config.groups no longer exists and is ignored" in caplog.messages
    assert "config.translator.width is now config.translator.settings.width" in caplog.messages
    saved = {"groups": 0, "translator": {"kind": "mlp", "width": 9, "depth": 0}, "memory": {"captions": 3}}
    assert upgraded(saved) == {"translator": {"kind": "mlp", "settings": {"width": 9}}, "memory": {"size": 3}}


@pytest.mark.parametrize("old", RENAMED)
def test_old_names_lead_to_fields(old):
    new = RENAMED[old]
    section, _, name = new.partition(".settings.")
    known = {field.name for cls in (*(k.Settings for k in KINDS.values()), *OBJECTIVES.values())
             for field in dataclasses.fields(cls)}  # fmt: skip
    assert name in known if name else any(path == new or path.startswith(f"{new}.") for path in FIELDS)


def test_old_flags(capsys):
    """With and without `=`; 0 stood for the kind's own depth, and other kinds' fields had no effect."""
    recipe = str(ROOT / "configs/mlp.py")
    old = ["--config.groups", "8", "--config.translator.width", "9", "--config.translator.depth=0"]
    config = read_config(recipe, [*old, "--config.translator.heads=8", "--config.memory.captions", "7"])
    assert config.translator.settings == {**read_config(recipe, []).translator.settings, "width": 9}
    assert config.memory.size == 7
    assert "config.translator.settings.heads=8 is ignored: mlp has no such setting" in capsys.readouterr().err
    assert main(["embed", "--repair", "store"]) == 2
    assert "run the command that made the store again" in capsys.readouterr().err
